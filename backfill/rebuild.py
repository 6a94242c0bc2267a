"""Owns the commands that make a key on a server what a state says: RESTORE, or ordinary ones in bounded portions. Pure.

All of one state's commands belong inside one MULTI/EXEC: in between, the key is half there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from . import streams
from .values import Hash, Opaque, SortedSet, State, Stream

Command = list[bytes]
MAX_COMMAND_BYTES = 256 * 1024  # of one rebuilding command: what a server runs in well under a millisecond
MAX_COMMAND_ARGS = 2000
MAX_PIECE_BYTES = 8 * 1024 * 1024  # of a string: larger ones are appended to, as proto-max-bulk-len differs


def write_commands(
    state: State, *, shift_ms: int, target: frozenset[bytes], version: tuple[str, int, int]
) -> list[Command]:
    """What makes the key on the target what `state` says, whatever was there; more than one command needs a MULTI.
    `shift_ms`: the target's clock minus the clock of the server that was read. `target`: upper-case names of the
    target's commands; `version`: (product, major, minor)."""
    if state.missing:
        return [[b"DEL", state.key]]
    payload = state.value.payload if isinstance(state.value, Opaque) else state.payload
    if payload is not None:
        return [restore(state.key, payload, state.deadline_ms, shift_ms=shift_ms)]
    deadline = None if state.deadline_ms is None else max(1, state.deadline_ms + shift_ms)
    if isinstance(state.value, bytes):
        return list(_write_string(state.key, state.value, deadline))
    commands = [[b"DEL", state.key], *_rebuild(state, shift_ms, target, version)]
    if deadline is not None:
        commands.append([b"PEXPIREAT", state.key, b"%d" % deadline])
    return commands


def losses(state: State, *, target: frozenset[bytes], version: tuple[str, int, int]) -> tuple[str, ...]:
    """What of this state `write_commands` cannot put onto such a target, one line each; usually nothing."""
    found = []
    if isinstance(state.value, Hash) and state.value.deadlines and b"HPEXPIREAT" not in target:
        found.append(f"{len(state.value.deadlines)} hash fields lose their TTL: the target does not know HPEXPIREAT")
    if isinstance(state.value, Stream) and (count := streams.lost(state.value, counters=counters(version))):
        found.append(f"{count} pending entries above the stream's last id cannot be made on the target")
    return tuple(found)


def counters(version: tuple[str, int, int]) -> bool:
    """Whether streams have counters of added and deleted entries there."""
    return version[1] >= 7


def restore(key: bytes, payload: bytes, deadline_ms: int | None, *, shift_ms: int) -> Command:
    """`write_commands` of a key that has this DUMP payload."""
    if deadline_ms is None:
        return [b"RESTORE", key, b"0", payload, b"REPLACE"]
    return [b"RESTORE", key, b"%d" % max(1, deadline_ms + shift_ms), payload, b"REPLACE", b"ABSTTL"]


def _write_string(key: bytes, value: bytes, deadline: int | None) -> Iterator[Command]:
    until = [] if deadline is None else [b"PXAT", b"%d" % deadline]
    yield [b"SET", key, value[:MAX_PIECE_BYTES], *until]
    for start in range(MAX_PIECE_BYTES, len(value), MAX_PIECE_BYTES):
        yield [b"APPEND", key, value[start : start + MAX_PIECE_BYTES]]


def _rebuild(state: State, shift_ms: int, target: frozenset[bytes], version: tuple[str, int, int]) -> Iterable[Command]:
    match state.value:
        case tuple():
            return chunked([b"RPUSH", state.key], ((item,) for item in state.value))
        case frozenset():
            return chunked([b"SADD", state.key], ((member,) for member in state.value))
        case SortedSet(scores):
            return chunked([b"ZADD", state.key], ((repr(score).encode(), m) for m, score in scores.items()))
        case Hash():
            return _write_hash(state.key, state.value, shift_ms, target)
        case Stream():
            return streams.write(state.key, state.value, shift_ms=shift_ms, counters=counters(version))
        case _:
            raise ValueError("a state without value and payload can only be that of a missing key")


def _write_hash(key: bytes, value: Hash, shift_ms: int, target: frozenset[bytes]) -> Iterable[Command]:
    commands = chunked([b"HSET", key], value.fields.items())
    return chain(commands, field_deadlines(key, value, shift_ms)) if b"HPEXPIREAT" in target else commands


def field_deadlines(key: bytes, value: Hash, shift_ms: int) -> Iterator[Command]:
    """The commands that give the fields of a hash their deadlines on the target."""
    by_deadline: dict[int, list[bytes]] = {}
    for name, deadline in value.deadlines.items():
        by_deadline.setdefault(max(1, deadline + shift_ms), []).append(name)
    for deadline, names in by_deadline.items():
        for batch in batches(names):
            yield [b"HPEXPIREAT", key, b"%d" % deadline, b"FIELDS", b"%d" % len(batch), *batch]


def chunked(head: Command, items: Iterable[tuple[bytes, ...]]) -> Iterator[Command]:
    """`head` with the items behind it, in as many commands as the limits want."""
    command, size = list(head), 0
    for item in items:
        command.extend(item)
        size += sum(map(len, item))
        if size >= MAX_COMMAND_BYTES or len(command) >= MAX_COMMAND_ARGS:
            yield command
            command, size = list(head), 0
    if len(command) > len(head):
        yield command


def batches(names: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (names[start : start + MAX_COMMAND_ARGS] for start in range(0, len(names), MAX_COMMAND_ARGS))
