"""What the edge and the views leave for each other in WSGI's `environ`."""

from __future__ import annotations

# When the request began, in ns; its body, None for one beyond the limit; which fields were wrong in it.
BEGUN = "lab.begun"
BODY = "lab.body"
FIELDS = "lab.fields"
