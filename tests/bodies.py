"""Bodies that are as bad as a client can make them, of any size."""

from __future__ import annotations

from collections.abc import Iterator

BATCH = b'{"instances":['


def worst(size: int) -> Iterator[tuple[str, bytes]]:
    """Each kind with its name: a record by itself, at most `size` bytes."""
    yield "many keys", _filled(size, b"{", lambda n: b'"%d":1,' % n, b'"a":1}')
    yield "one key again and again", _filled(size, b"{", lambda _: b'"a":1,', b'"a":1}')
    yield "many keys, each twice", _filled(size, b"{", lambda n: b'"%d":1,' % (n // 2), b'"a":1}')
    yield "nested lists", b"[" * size
    yield "nested objects", _filled(size, b"", lambda _: b'{"a":', b"")
    yield "a long key", _filled(size, b'{"', lambda _: b"k" * 64, b'":1}')
    yield "a long value", _filled(size, b'{"a":"', lambda _: b"v" * 64, b'"}')
    yield "a long value with one wide character", _filled(size, '{"a":"😀'.encode(), lambda _: b"v" * 64, b'"}')
    yield "a long whole number", _filled(size, b'{"a":', lambda _: b"1" * 64, b"}")
    yield "a long fraction", _filled(size, b'{"a":0.', lambda _: b"0" * 64, b"1}")
    yield "escapes", _filled(size, b'{"', lambda _: b"\\u00e9\\n", b'":1}')
    yield "escaped keys", _filled(size, b"{", lambda n: b'"\\u00e9%d":1,' % n, b'"a":1}')
    yield "empty objects", _filled(size, b'{"a":[', lambda _: b"{},", b"{}]}")
    yield "empty lists", _filled(size, b'{"a":[', lambda _: b"[],", b"[]]}")
    yield "numbers", _filled(size, b'{"a":[', lambda _: b"1,", b"1]}")
    yield "blanks", b'{"a":1}'.ljust(size)
    yield "no text", b"\xff" * size


def worst_batches(size: int, record: bytes = b'{"a":1}') -> Iterator[tuple[str, bytes]]:
    """Each kind with its name; `record` is a valid one."""
    yield from worst(size)
    for name, body in worst(size - len(BATCH) - 2):
        yield f"one record: {name}", BATCH + body + b"]}"
    for name, body in worst(size // 120):
        yield f"records: {name}", _filled(size, BATCH, lambda _, body=body: body + b",", body + b"]}")
    for text in (b"{}", b"[]", b"1", b"null", b'""', b'{"a":1e999}', b'{"a":1,"a":1}', b'{"a":1,"x":1}', record):
        yield f"many {text.decode()}", _filled(size, BATCH, lambda _, text=text: text + b",", text + b"]}")
    good = BATCH + b",".join([record] * 9_999)
    yield "9,999 good ones and one that is not", good + b',{"a":"x"}]}'
    yield "9,999 good ones and a long one", good + b',{"a":"' + b"x" * (size - len(good) - 12) + b'"}]}'
    yield "10,000 good ones and another key", good + b"," + record + b'],"x":1}'
    yield "10,000 good ones and blanks", (good + b"," + record + b"]").ljust(size - 1) + b"}"
    yield "two lists", b"{" + b",".join([good[1:] + b"]"] * 5) + b"}"


def _filled(size: int, head: bytes, part, tail: bytes) -> bytes:
    parts, left, number = [head], size - len(head) - len(tail), 0
    while left >= len(piece := part(number)):
        parts.append(piece)
        left, number = left - len(piece), number + 1
    return b"".join([*parts, tail])
