"""The trace that the present request belongs to."""

from __future__ import annotations

import logging
from contextvars import ContextVar

# 32 hexadecimal digits; empty outside of a request.
trace_id: ContextVar[str] = ContextVar("trace_id", default="")


class TraceFilter(logging.Filter):
    """Puts the trace id on every log line of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        if identifier := trace_id.get():
            setattr(record, "trace.id", identifier)
        return True
