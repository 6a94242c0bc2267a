"""Is a key big? Asked before it is read. Pure.

MEMORY USAGE tells at once, as it takes some samples only (5 elements by default). Where a service refuses it, lengths
and samples of our own do: in one MULTI, as the type is not known before; those for other types answer WRONGTYPE.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hiredis

from backfill.rebuild import Command

SAMPLES = b"8"
OVERHEAD_BYTES = 16  # of an element
STREAM = b"stream"

_LENGTHS = (b"STRLEN", b"HLEN", b"SCARD", b"ZCARD", b"LLEN", b"XLEN")


def by_memory(key: bytes) -> list[Command]:
    """For `parse_memory`."""
    return [[b"MEMORY", b"USAGE", key], [b"TYPE", key]]


def parse_memory(replies: Sequence[Any]) -> tuple[int, bytes] | None:
    """Bytes and type; None where the server refused."""
    used, kind = replies
    if isinstance(used, hiredis.ReplyError) or isinstance(kind, hiredis.ReplyError):
        return None
    return int(used or 0), _text(kind)


def by_samples(key: bytes) -> list[Command]:
    """For `parse_samples`."""
    return [
        [b"TYPE", key],
        *([name, key] for name in _LENGTHS),
        [b"HRANDFIELD", key, SAMPLES, b"WITHVALUES"],
        [b"SRANDMEMBER", key, SAMPLES],
        [b"ZRANDMEMBER", key, SAMPLES],
        [b"LRANGE", key, b"0", b"7"],
        [b"XRANGE", key, b"-", b"+", b"COUNT", SAMPLES],
    ]


def parse_samples(replies: Sequence[Any]) -> tuple[int, bytes]:
    """Bytes, roughly, and type."""
    kind = _text(replies[0])
    lengths = dict(zip((b"string", b"hash", b"set", b"zset", b"list", STREAM), replies[1:7], strict=True))
    samples = dict(zip((b"hash", b"set", b"zset", b"list", STREAM), replies[7:], strict=True))
    length, sample = lengths.get(kind, 0), samples.get(kind)
    if not isinstance(length, int):
        return 0, kind
    if not isinstance(sample, list) or not sample:
        return length, kind
    elements = len(sample) // 2 if kind == b"hash" else len(sample)
    return length * (_bytes(sample) // elements + OVERHEAD_BYTES), kind


def _bytes(value: Any) -> int:
    return sum(map(_bytes, value)) if isinstance(value, list) else len(_text(value))


def _text(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
