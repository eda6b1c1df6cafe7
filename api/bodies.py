"""Receive request bodies, with limits on the time for one body and on the memory of all bodies of a worker."""

from __future__ import annotations

import asyncio
from typing import Any

from granian.rsgi import HTTPProtocol, ProtocolClosed, ProtocolError  # type: ignore[attr-defined]

# Members of WSGI's `environ`: the body, or None for a body beyond the limit; and the reason why the request is refused:
# a value of api/access.py, LATE (the body was too slow) or BUSY (the server was full).
BODY = "lab.body"
FAULT = "lab.fault"
LATE, BUSY = "late", "busy"

# A whole body must arrive within this number of seconds. The largest batch takes this time at 5 Mbit/s.
BODY_SECONDS = 30.0
# ALL is the most memory, in bytes, that all bodies and large answers of a worker may take together. Bodies larger than
# WHOLE may not use the last LEFT bytes, so that a few clients with large bodies do not block those with smaller ones.
# Bodies up to SMALL are not counted: the number of connections limits them.
ALL, LEFT = 56 * 2**20, 8 * 2**20
SMALL = 64 * 1024
# A body up to this size is read from Granian in one piece, which is quicker; a larger one part by part as it arrives.
WHOLE = 2**20
# A body beyond its limit is read and discarded up to this size, so that the client gets the refusal. The rest of an
# even larger body is not read.
MOST_READ = 32 * 2**20


class CutError(Exception):
    """The client closed the connection before the end of the body."""


class Room:
    """Counts the bytes that a worker holds in memory for bodies and large answers, and limits them."""

    def __init__(self, seconds: float = BODY_SECONDS) -> None:
        self._seconds, self._taken = seconds, 0

    @property
    def full(self) -> bool:
        return self._taken > ALL

    def take(self, size: int) -> None:
        self._taken += size

    def give_back(self, size: int) -> None:
        self._taken -= size

    def has(self, before: int, more: int) -> bool:
        """Whether a body of `before` bytes may grow by `more`."""
        return self._taken + more <= (ALL if before + more <= WHOLE else ALL - LEFT)

    async def receive(self, environ: dict[str, Any], protocol: HTTPProtocol, limit: int) -> int:
        """Put the body into `environ`: None for a body beyond `limit`; or put the reason why it was not read there.

        Returns the number of bytes that were taken from the room; the caller returns them later. Raises CutError.
        """
        chunked = "HTTP_TRANSFER_ENCODING" in environ
        announced = None if chunked else int(environ.get("CONTENT_LENGTH") or 0)
        arrival = _Arrival(self, limit, announced)
        try:
            async with asyncio.timeout(self._seconds):
                if announced is None or announced > min(limit, WHOLE):
                    complete = await arrival.read(protocol)
                    if not complete and "HTTP_TRAILER" not in environ:
                        raise CutError
                    environ[BODY] = arrival.body
                elif announced <= SMALL or arrival.grow(announced):
                    environ[BODY] = await protocol()
            if arrival.refused:
                environ[FAULT] = BUSY
        except TimeoutError:
            arrival.drop()
            environ[FAULT] = LATE
        except (ProtocolClosed, ProtocolError) as error:
            arrival.drop()
            raise CutError from error
        except BaseException:
            arrival.drop()
            raise
        return arrival.taken


class _Arrival:
    """A body that is being received. Each part that arrives takes its size from the room."""

    def __init__(self, room: Room, limit: int, announced: int | None) -> None:
        self._room, self._limit, self._announced = room, limit, announced
        self.body: bytearray | None = bytearray() if announced is None or announced <= limit else None
        self.taken, self.refused = 0, False

    def grow(self, size: int) -> bool:
        """Take `size` more bytes from the room; when too few are left, drop the body and return False."""
        if not self._room.has(self.taken, size):
            self.drop()
            self.refused = True
            return False
        self._room.take(size)
        self.taken += size
        return True

    def drop(self) -> None:
        self._room.give_back(self.taken)
        self.taken, self.body = 0, None

    async def read(self, protocol: HTTPProtocol) -> bool:
        """Read the body and return False when it was cut. A body beyond the limit is read and discarded."""
        position, ends = 0, 0
        async for part in protocol:
            position += len(part)
            # Granian yields an empty part at the end, and another one before that after an error or trailers.
            ends += not part
            if self.body is not None and position > self._limit:
                self.drop()
            if self.body is not None:
                if not self.grow(len(part)):
                    return True
                self.body += part
            elif position > MOST_READ:
                return True
        return ends == 1 if self._announced is None else position == self._announced
