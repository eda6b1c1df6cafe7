"""What the edge and the views leave for each other in WSGI's `environ`."""

from __future__ import annotations

# When the request began, in ns; its body, None for one beyond the limit; which fields were wrong in it.
BEGUN = "lab.begun"
BODY = "lab.body"
FIELDS = "lab.fields"
# Where the request comes from: a value of `source` in `lab.events`.
SOURCE = "lab.source"
# The reason why the request is refused before a view gets it: one of the values below.
FAULT = "lab.fault"
NO_HOST, OTHER_HOST, NO_KEY, NO_ROUTE = "no host", "other host", "no key", "no route"
OTHER_CLIENT = "other client"
# Values for a request whose body was not read: it was too slow, or the server was full.
LATE, BUSY = "late", "busy"
