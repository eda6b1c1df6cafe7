"""What the edge and the views leave for each other in WSGI's `environ`."""

from __future__ import annotations

# When the request began, in ns; its body, None for one beyond the limit; which fields were wrong in it.
BEGUN = "lab.begun"
# Why the server has no body for a request: LATE or BUSY.
FAULT = "lab.fault"
LATE, BUSY = "late", "busy"
BODY = "lab.body"
FIELDS = "lab.fields"
