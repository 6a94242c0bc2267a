"""Deep pipelines: many commands in one chunk, read in C.

Owns: using hiredis on a client's bytes without taking over its views. Refuses to know: the protocol's errors and
limits; what it does not vouch for, the caller reads again.

hiredis needs two thirds of the time of our own loop, but it is a reader of replies: it takes any type where servers
want `$`, tells no offsets, and allocates what a header announces (a list of 2 * 10**9 takes three seconds to free).
Hence a check before and a proof after. Before: no aggregate with a huge count can be in the chunk. After: step by step
from the beginning, the type byte stands where the sizes read so far put it; with `*` or `$` there, hiredis had one
choice.
"""

from __future__ import annotations

import re

import hiredis

_STAR, _DOLLAR = b"*$"
_SET, _PUSH, _ATTRIBUTE = b"~>|"  # the other types for which hiredis makes a list; rare in what clients send
_HUGE_ARRAY = re.compile(rb"\*[0-9]{7}").search

_COUNT_SIZES = (0, *(len(b"*%d\r\n" % count) for count in range(1, 1000)))
_BULK_SIZES = tuple(len(b"$%d\r\n\r\n" % size) + size for size in range(10000))
_INCOMPLETE = False


def read_pipeline(data: bytes, commands: list[list[bytes]]) -> int:
    """Append the commands at the beginning of `data` that are plain and complete; gives the length of what was read, 0
    when anything in it was out of the ordinary."""
    if _SET in data or _PUSH in data or _ATTRIBUTE in data or _HUGE_ARRAY(data):
        return 0
    reader = hiredis.Reader()
    position = 0
    try:
        reader.feed(data)
        found = list(iter(reader.gets, _INCOMPLETE))
        for command in found:
            if data[position] != _STAR or not command:
                return 0
            position += _COUNT_SIZES[len(command)]
            for arg in command:
                if data[position] != _DOLLAR:
                    return 0
                position += _BULK_SIZES[len(arg)]
    except (hiredis.HiredisError, IndexError, TypeError):  # not RESP, a size beyond the tables, not a string
        return 0
    commands += found
    return position
