"""What the edge and the views leave for each other in WSGI's `environ`."""

from __future__ import annotations

# When the request began, in ns; its body, None for one beyond the limit; which fields were wrong in it.
BEGUN = "lab.begun"
BODY = "lab.body"
FIELDS = "lab.fields"
# Why the request is refused before a view sees it: one of the values below.
FAULT = "lab.fault"
NO_HOST, OTHER_HOST, NO_KEY, NO_ROUTE = "no host", "other host", "no key", "no route"
# Why there is no body for it.
LATE, BUSY = "late", "busy"
