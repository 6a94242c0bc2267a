"""Owns the quick way of the codec: many keys as DUMP payloads, without an object or an encoding per key. Pure.

What a block reads is one MULTI/EXEC, so a key's deadline and payload belong together: a SET between PTTL and DUMP would
make an immortal key mortal. `codec` has the meaning of it all; this is the same for hundreds of keys at once. A key is
encoded once, as the bulk string that is part of every command about it: a block of commands is then one `join`
(measured: 0.006 us a key and command, pack_command 0.28).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hiredis

BLOCK_KEYS = 128  # the server runs one such MULTI in about 0.2 ms
BLOCK_BYTES = 256 * 1024
HELD_UP_MS = 3  # between the first and the last PTTL: more would show in the deadlines
STREAMS = frozenset((15, 19, 21))  # first bytes of payloads
WITH_FIELD_DEADLINES = frozenset((22, 23, 24, 25))
_MULTI, _EXEC, _TIME = b"*1\r\n$5\r\nMULTI\r\n", b"*1\r\n$4\r\nEXEC\r\n", b"*1\r\n$4\r\nTIME\r\n"
_DUMP, _DEL, _TYPE = b"*2\r\n$4\r\nDUMP\r\n", b"*2\r\n$3\r\nDEL\r\n", b"*2\r\n$4\r\nTYPE\r\n"
_PTTL, _PEXPIRETIME = b"*2\r\n$4\r\nPTTL\r\n", b"*2\r\n$11\r\nPEXPIRETIME\r\n"
_MEMORY_USAGE = b"*3\r\n$6\r\nMEMORY\r\n$5\r\nUSAGE\r\n"
_RESTORE = b"*5\r\n$7\r\nRESTORE\r\n%b$1\r\n0\r\n$%d\r\n%b\r\n$7\r\nREPLACE\r\n"
_RESTORE_UNTIL = b"*6\r\n$7\r\nRESTORE\r\n%b$%d\r\n%b\r\n$%d\r\n%b\r\n$7\r\nREPLACE\r\n$6\r\nABSTTL\r\n"


def encoded(keys: Sequence[bytes]) -> list[bytes]:
    """Each key as a bulk string."""
    return [b"$%d\r\n%b\r\n" % (len(key), key) for key in keys]


def _each(command: bytes, names: Sequence[bytes]) -> bytes:
    return command + command.join(names)


def probe(names: Sequence[bytes], *, types: bool) -> tuple[bytes, int]:
    """The commands that tell the keys' sizes in memory (and their types), and how many replies they get."""
    if not names:
        return b"", 0
    data = _each(_MEMORY_USAGE, names)
    return (data + _each(_TYPE, names), 2 * len(names)) if types else (data, len(names))


def cut(sizes: Sequence[int], most_keys: int, most_bytes: int) -> list[int]:
    """Where to cut so that no part exceeds the limits, by more than its last key: the ends of the parts."""
    if sum(sizes) <= most_bytes:
        return [*range(most_keys, len(sizes), most_keys), len(sizes)]
    ends, count, total = [], 0, 0
    for index, size in enumerate(sizes):
        count += 1
        total += size
        if count >= most_keys or total >= most_bytes:
            ends.append(index + 1)
            count = total = 0
    if count:
        ends.append(len(sizes))
    return ends


def ask_types(names: Sequence[bytes]) -> bytes:
    """TYPE of each."""
    return _each(_TYPE, names)


def delete(names: Sequence[bytes]) -> bytes:
    """DEL of each."""
    return _each(_DEL, names)


def read_block(names: Sequence[bytes], *, absolute: bool, types: bool = False) -> tuple[bytes, int]:
    """The commands that read these keys (and their types), and how many replies they get. `absolute`: PEXPIRETIME is
    known."""
    # All deadlines before all payloads: on 6.2 PTTL counts from the moment it runs, and DUMP may take its time.
    count = len(names)
    kinds = _each(_TYPE, names) if types else b""
    replies = 2 * count + 2 + count * types
    if absolute:
        return b"".join((_MULTI, _each(_PEXPIRETIME, names), _each(_DUMP, names), kinds, _EXEC)), replies
    return b"".join((_MULTI, _TIME, _each(_PTTL, names), _each(_DUMP, names), kinds, _EXEC)), replies + 1


def read_apart(names: Sequence[bytes], *, absolute: bool) -> tuple[bytes, int]:
    """As `read_block`, without the MULTI, which is a third of what the server has to do: for who finds out by other
    means whether a key was changed meanwhile."""
    count = len(names)
    if absolute:
        return b"".join((_each(_PEXPIRETIME, names), _each(_DUMP, names))), 2 * count
    return b"".join((_TIME, _each(_PTTL, names), _TIME, _each(_DUMP, names))), 2 * count + 2


def parse_apart(count: int, replies: Sequence[Any], *, absolute: bool) -> tuple[list[int], list[bytes | None]] | None:
    """Deadlines in ms (-1: none) and payloads (None: no such key), as `parse_block`. None: something was refused, or
    the deadlines cannot be told, as the server was held up meanwhile."""
    if hiredis.ReplyError in set(map(type, replies)):
        return None
    if absolute:
        return list(replies[:count]), list(replies[count:])
    deadlines = list(replies[1 : count + 1])
    if max(deadlines) >= 0:
        before, after = (int(time[0]) * 1000 + int(time[1]) // 1000 for time in (replies[0], replies[count + 1]))
        if after - before > HELD_UP_MS:
            return None
        deadlines = [after + left if left >= 0 else -1 for left in deadlines]
    return deadlines, list(replies[count + 2 :])


def parse_block(
    count: int, replies: Sequence[Any], *, absolute: bool, types: frozenset[bytes] = frozenset()
) -> tuple[list[int], list[bytes | None]] | hiredis.ReplyError:
    """Deadlines in ms (-1: none) and payloads (None: no such key; with `types`, for which the block has asked, none of
    these types) of `count` keys, all at one point; or the error because of which nothing was read."""
    outcome = replies[-1]
    if not isinstance(outcome, list):
        return next((reply for reply in replies if isinstance(reply, hiredis.ReplyError)), hiredis.ReplyError("ERR"))
    if hiredis.ReplyError in set(map(type, outcome)):
        return next(reply for reply in outcome if isinstance(reply, hiredis.ReplyError))
    if types:
        kinds = outcome[-count:]
        del outcome[-count:]
        for index in [index for index, kind in enumerate(kinds) if kind not in types]:
            outcome[index - count] = None
    if absolute:
        return outcome[:count], outcome[count:]
    deadlines = outcome[1 : count + 1]
    if max(deadlines) >= 0:
        now = int(outcome[0][0]) * 1000 + int(outcome[0][1]) // 1000
        deadlines = [now + left if left >= 0 else -1 for left in deadlines]
    return deadlines, outcome[count + 1 :]


def restores(
    names: Sequence[bytes], deadlines: Sequence[int], payloads: Sequence[bytes | None], shift_ms: int
) -> bytes:
    """One command for each key: RESTORE, or DEL where there is none."""
    if max(deadlines) < 0 and None not in payloads:
        return b"".join([_RESTORE % (name, len(p), p) for name, p in zip(names, payloads, strict=True)])  # type: ignore[arg-type]
    return b"".join([_restore(*key, shift_ms) for key in zip(names, deadlines, payloads, strict=True)])


def _restore(name: bytes, deadline: int, payload: bytes | None, shift_ms: int) -> bytes:
    if payload is None:
        return _DEL + name
    if deadline < 0:
        return _RESTORE % (name, len(payload), payload)
    until = b"%d" % max(1, deadline + shift_ms)
    return _RESTORE_UNTIL % (name, len(until), until, len(payload), payload)
