"""Whether the mirror answered what the serving side did.

Owns: `same_reply`. The two frames may be in different RESP versions and come from different servers. Refuses to know:
commands. Equal is what carries the same information: a null is a null, a set has no order, #t is 1; a number is
compared as a number only where one side says that it is one (a double), for two strings "1" and "1.0" are different.

Invariant 4: reply comparison is free verification, so anything not known to be harmless is a difference.
"""

from __future__ import annotations

from collections.abc import Sequence

from resp.frames import elements, is_error, is_null

AGGREGATES = b"*~%>"


def same_reply(expected: bytes, got: bytes) -> bool:
    """Loose comparison of two complete frames. An error equals nothing but an error of the same kind."""
    if expected == got:
        return True
    if is_null(expected) or is_null(got):
        return is_null(expected) and is_null(got)
    if is_error(expected) != is_error(got):
        return False
    if expected[0] in AGGREGATES or got[0] in AGGREGATES:
        return expected[0] in AGGREGATES and got[0] in AGGREGATES and _same_elements(expected, got)
    return _same_scalar(expected, got)


def text(frame: bytes) -> bytes:
    """The content of a frame that is no aggregate: a bulk string's bytes, a number's digits, 1 or 0 of a boolean."""
    kind = frame[:1]
    if kind in (b"$", b"=", b"!"):
        body = frame[frame.index(b"\n") + 1 : -2]
        return body[4:] if kind == b"=" else body
    if kind == b"#":
        return b"1" if frame[1:2] == b"t" else b"0"
    return frame[1:-2]


def _same_scalar(expected: bytes, got: bytes) -> bool:
    left, right = text(expected), text(got)
    if is_error(expected):
        return left.split(b" ", 1)[0] == right.split(b" ", 1)[0]
    if left == right:
        return True
    return (expected[:1] == b"," or got[:1] == b",") and _same_number(left, right)


def _same_number(left: bytes, right: bytes) -> bool:
    try:
        return float(left) == float(right)
    except ValueError:
        return False


def _same_elements(expected: bytes, got: bytes) -> bool:
    kinds = expected[:1] + got[:1]
    if b"%" in kinds:
        left, right = _pairs(expected), _pairs(got)
        left.sort(key=_map_order)
        right.sort(key=_map_order)
        return len(left) == len(right) and all(map(_same_sequence, left, right))
    if b"~" in kinds:
        return _same_sequence(sorted(elements(expected), key=_order), sorted(elements(got), key=_order))
    return _same_sequence(elements(expected), elements(got))


def _same_sequence(expected: Sequence[bytes], got: Sequence[bytes]) -> bool:
    return len(expected) == len(got) and all(map(same_reply, expected, got))


def _pairs(frame: bytes) -> list[list[bytes]]:
    """A map's pairs; RESP2 has them flat, or (XREADGROUP) as arrays of two."""
    parts = elements(frame)
    if frame[:1] != b"%" and parts and parts[0][:3] == b"*2\r":
        return [elements(part) for part in parts]
    return [parts[i : i + 2] for i in range(0, len(parts), 2)]


def _map_order(pair: list[bytes]) -> bytes:
    return _order(pair[0])


def _order(frame: bytes) -> bytes:
    """A sort key that is the same in both RESP versions."""
    if is_null(frame):
        return b""
    if frame[0] in AGGREGATES:
        return b"\0".join(map(_order, elements(frame)))
    return text(frame)
