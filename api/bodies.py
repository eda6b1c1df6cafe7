"""Bodies on their way: how long a worker waits for one, and how much memory all of them may take together."""

from __future__ import annotations

import asyncio
from typing import Any

from granian.rsgi import HTTPProtocol, ProtocolClosed, ProtocolError  # type: ignore[attr-defined]

from api.environ import BODY, BUSY, FAULT, LATE

# In which a whole body must be here: the largest batch at 5 Mbit/s.
BODY_SECONDS = 30.0
# Bytes that the bodies and the large answers of a worker may have together. Bodies beyond WHOLE leave a part of it to
# the others, so that a few clients with much to send do not shut out those with little. Those up to SMALL are not
# counted: there are no more of them than connections.
ALL, LEFT = 56 * 2**20, 8 * 2**20
SMALL = 64 * 1024
# A body up to here is taken from Granian at once, which is quicker; a larger one in parts, as it comes.
WHOLE = 2**20
# A body beyond its limit is read and dropped up to here, so that the client reads the refusal; then it is cut.
MOST_READ = 32 * 2**20


class CutError(Exception):
    """The client ended in the middle of the body."""


class Room:
    """What a worker holds in memory for bodies and large answers, in bytes, and whether there is room for more."""

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
        """Put the body into `environ`, None for one beyond `limit`, or why there is none.

        Returns the bytes that were taken, which the caller gives back. Raises CutError.
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
    """One body as it comes; what it takes of the room is counted as it comes, too."""

    def __init__(self, room: Room, limit: int, announced: int | None) -> None:
        self._room, self._limit, self._announced = room, limit, announced
        self.body: bytearray | None = bytearray() if announced is None or announced <= limit else None
        self.taken, self.refused = 0, False

    def grow(self, size: int) -> bool:
        """Take more of the room; say whether there was so much."""
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
        """Read the body; say whether it came to its end. One beyond the limit is dropped, and so is what follows."""
        seen, ends = 0, 0
        async for part in protocol:
            seen += len(part)
            # Granian gives an empty part at the end, and before it another one for an error or for trailers.
            ends += not part
            if self.body is not None and seen > self._limit:
                self.drop()
            if self.body is not None:
                if not self.grow(len(part)):
                    return True
                self.body += part
            elif seen > MOST_READ:
                return True
        return ends == 1 if self._announced is None else seen == self._announced
