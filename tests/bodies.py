"""The worst bodies that a client can send, of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

BATCH = b'{"instances":['


def worst(size: int) -> Iterator[tuple[str, bytes]]:
    """Each kind with its name: a record by itself, at most `size` bytes."""
    yield "many keys", _filled(size, b"{", lambda n: b'"%d":1,' % n, b'"a":1}')
    yield "one key again and again", _repeated(size, b"{", b'"a":1,', b'"a":1}')
    yield "many keys, each twice", _filled(size, b"{", lambda n: b'"%d":1,' % (n // 2), b'"a":1}')
    yield "nested lists", b"[" * size
    yield "nested objects", _repeated(size, b"", b'{"a":', b"")
    yield "a long key", _repeated(size, b'{"', b"k" * 64, b'":1}')
    yield "a long value", _repeated(size, b'{"a":"', b"v" * 64, b'"}')
    yield "a long value with one wide character", _repeated(size, '{"a":"😀'.encode(), b"v" * 64, b'"}')
    yield "a long whole number", _repeated(size, b'{"a":', b"1" * 64, b"}")
    yield "a long fraction", _repeated(size, b'{"a":0.', b"0" * 64, b"1}")
    yield "escapes", _repeated(size, b'{"', b"\\u00e9\\n", b'":1}')
    yield "escaped keys", _filled(size, b"{", lambda n: b'"\\u00e9%d":1,' % n, b'"a":1}')
    yield "empty objects", _repeated(size, b'{"a":[', b"{},", b"{}]}")
    yield "empty lists", _repeated(size, b'{"a":[', b"[],", b"[]]}")
    yield "numbers", _repeated(size, b'{"a":[', b"1,", b"1]}")
    yield "blanks", b'{"a":1}'.ljust(size)
    yield "no text", b"\xff" * size


def worst_batches(size: int, record: bytes = b'{"a":1}') -> Iterator[tuple[str, bytes]]:
    """Each kind with its name; `record` is a valid one."""
    yield from worst(size)
    for name, body in worst(size - len(BATCH) - 2):
        yield f"one record: {name}", BATCH + body + b"]}"
    for name, body in worst(size // 120):
        yield f"records: {name}", _repeated(size, BATCH, body + b",", body + b"]}")
    for text in (b"{}", b"[]", b"1", b"null", b'""', b'{"a":1e999}', b'{"a":1,"a":1}', b'{"a":1,"x":1}', record):
        yield f"many {text.decode()}", _repeated(size, BATCH, text + b",", text + b"]}")
    good = BATCH + b",".join([record] * 9_999)
    yield "9,999 good ones and one that is not", good + b',{"a":"x"}]}'
    yield "9,999 good ones and a long one", good + b',{"a":"' + b"x" * (size - len(good) - 12) + b'"}]}'
    yield "10,000 good ones and another key", good + b"," + record + b'],"x":1}'
    yield "10,000 good ones and blanks", (good + b"," + record + b"]").ljust(size - 1) + b"}"
    yield "two lists", b"{" + b",".join([good[1:] + b"]"] * 5) + b"}"


def _repeated(size: int, head: bytes, part: bytes, tail: bytes) -> bytes:
    return head + part * ((size - len(head) - len(tail)) // len(part)) + tail


def _filled(size: int, head: bytes, part: Callable[[int], bytes], tail: bytes) -> bytes:
    parts, remainder, number = [head], size - len(head) - len(tail), 0
    while remainder >= len(piece := part(number)):
        parts.append(piece)
        remainder, number = remainder - len(piece), number + 1
    return b"".join([*parts, tail])
