"""Values to bytes.

Owns: the canonical encoding of a command, and the few replies that the proxy makes itself. Refuses to know: when to
send what. Every function gives one complete frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hiredis import pack_command

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
NULL_BULK = b"$-1\r\n"
NULL = b"_\r\n"

BIG_BYTES = 8192  # of the last argument: from here on pack_command's two copies cost more (64 KB: 4.7 µs for 2.0)

_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")  # as Redis does: an error or status must stay one line


def encode(args: Sequence[bytes]) -> bytes:
    """A command as an array of bulk strings: the only form in which commands go upstream."""
    if args and len(args[-1]) >= BIG_BYTES:
        pieces = [b"*%d\r\n" % len(args)]
        for arg in args:
            pieces += (b"$%d\r\n" % len(arg), arg, b"\r\n")
        return b"".join(pieces)
    packed: bytes = pack_command(tuple(args))  # type: ignore[arg-type]  # the stub says: a tuple of one
    return packed


def simple(text: bytes) -> bytes:
    return b"+" + text.translate(_LINE_BREAKS) + b"\r\n"


def error(text: bytes | str) -> bytes:
    """An error reply; `text` begins with its code ("ERR no such key"). Line breaks become spaces."""
    if isinstance(text, str):
        text = text.encode()
    return b"-" + text.translate(_LINE_BREAKS) + b"\r\n"


def integer(value: int) -> bytes:
    return b":%d\r\n" % value


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def null(resp: int) -> bytes:
    """The null of a missing value: `_` in RESP3, the null bulk string in RESP2."""
    return NULL if resp == 3 else NULL_BULK


def array(frames: Sequence[bytes]) -> bytes:
    """An array of elements that are frames already."""
    return b"*%d\r\n" % len(frames) + b"".join(frames)


def map_(pairs: Iterable[tuple[bytes, bytes]], resp: int) -> bytes:
    """A map of frames to frames: a flat array in RESP2."""
    frames = [frame for pair in pairs for frame in pair]
    return b"%%%d\r\n" % (len(frames) // 2) + b"".join(frames) if resp == 3 else array(frames)


def push(frames: Sequence[bytes], resp: int) -> bytes:
    """An out-of-band message (pub/sub, invalidation): an ordinary array in RESP2."""
    return b">%d\r\n" % len(frames) + b"".join(frames) if resp == 3 else array(frames)
