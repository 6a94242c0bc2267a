"""The copy of one big key in pages, exact without a proxy's help, and never half there for who reads the target.

Owns how: WATCH on the source notices every change to the key from the first page to the closing EXEC, which reads
deadline and length; the pages go to a temporary key on the target, which takes the key's place in one MULTI at the end.
A key that was changed meanwhile is read again, READINGS times; after that a snapshot reads it in one piece (up to
WHOLE_BYTES: the source stands still for that long), a live copy waits for a quieter moment (`Changing`).

What consumer groups do to a stream is not noticed by WATCH (measured: XREADGROUP, XACK, XCLAIM, XSETID, on all
versions): that part of a stream is read in the closing EXEC as a whole.

A temporary key that a kill leaves behind expires by itself.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import hiredis
import trio

from resp.slots import key_slot

from .. import streams
from ..client import Client
from ..errors import BackfillError, ServerRefuses
from ..rebuild import MAX_COMMAND_ARGS, Command, batches
from ..scan import START
from ..url import Url
from ..values import MISSING, Group, Pending, Stream
from .nurseries import open_nursery
from .sides import Facts, expect
from .tally import Place

PAGE_BYTES = 512 * 1024  # of one page's elements: about a millisecond of either server's time
MAX_PAGE_ELEMENTS = 5000
PIECE_BYTES = 1024 * 1024  # of a string: a copy in memory, nothing else
READINGS = 3
RESTS = 2  # live: for so many times as long as a copy took, the key is not copied again, so that others are
WHOLE_BYTES = 256 * 1024 * 1024
PREFIX = b"crossfade:paging:"
TEMPORARY_MS = 600_000  # a temporary key's life, begun anew with every page
COMMANDS_AT_ONCE = 1000
ALL_PENDING = b"1000000000"


class Changing(BackfillError):
    """The key was changed during every reading."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`small`: nothing was copied, it is to be copied as any other key."""

    size: int = 0
    rereads: int = 0
    small: bool = False
    stream: bool = False
    lost: str = ""  # what the target cannot hold of it


@dataclass(slots=True)
class _Reading:
    """One attempt at one key."""

    source: Client
    target: Client
    facts: tuple[Facts, Facts]
    key: bytes
    temporary: bytes
    shift_ms: int
    per_page: int  # elements
    size: int = 0
    deadlines: int = 0  # fields that have one: they may expire meanwhile
    placeholders: list[bytes] = field(default_factory=list)
    first: bytes | None = None  # entry of a stream
    pending: list[bytes] = field(default_factory=list)  # of a stream's groups, in order, before the first page


Pages = AsyncGenerator[list[Command], None]


class BigKeys:
    """Copies big keys between two servers, one at a time."""

    def __init__(
        self,
        source: Url,
        target: Url,
        facts: tuple[Facts, Facts],
        fences: list[int],
        *,
        types: frozenset[bytes] = frozenset(),
        live: bool,
    ) -> None:
        self._source, self._target = source, target
        self._facts = facts
        self._fences = fences  # ids of connections to the target that may have been lost
        self._types = types  # that are meant; empty: all
        self._live = live
        self._due: dict[Place, float] = {}  # live: when a key may be copied again

    async def copy(self, place: Place, shift_ms: int) -> Outcome:
        """Errors: Changing, ServerRefuses, ConnectionLost, ConnectError."""
        if not self._live:
            return await self._copy_now(place, shift_ms)
        began = trio.current_time()
        if (left := self._due.get(place, 0.0) - began) > 0:
            raise Changing(f"it is big, and changed while or since it was copied: again in {left:.1f} s")
        try:
            return await self._copy_now(place, shift_ms)
        finally:
            now = trio.current_time()
            self._due = {other: due for other, due in self._due.items() if due > now}
            self._due[place] = now + RESTS * (now - began)

    async def _copy_now(self, place: Place, shift_ms: int) -> Outcome:
        db, key = place
        async with (
            Client.open(self._source.with_db(db), name="crossfade-pages") as source,
            Client.open(self._target.with_db(db), name="crossfade-pages") as target,
        ):
            self._fences.append(target.wire.client_id)
            outcome = await self._copy(source, target, key, shift_ms)
            self._fences.pop()
            return outcome

    async def _copy(self, source: Client, target: Client, key: bytes, shift_ms: int) -> Outcome:
        size = 0
        for rereads in range(1 if self._live else READINGS):
            watch, kind, size = await source.pipeline([[b"WATCH", key], [b"TYPE", key], [b"MEMORY", b"USAGE", key]])
            expect(watch, "a big key cannot be copied exactly: WATCH")
            pager = PAGERS.get(expect(kind, "TYPE"))
            if pager is None or not isinstance(size, int) or (self._types and kind not in self._types):
                return Outcome(small=True)
            length = expect(await source.call(pager.length, key), "reading a big key")
            if not length:  # nothing to be paged: at most the groups of a stream
                return Outcome(small=True)
            reading = _Reading(
                source,
                target,
                self._facts,
                key,
                temporary_name(key),
                shift_ms,
                min(MAX_PAGE_ELEMENTS, max(1, PAGE_BYTES * length // max(1, size))),
            )
            try:
                lost = await self._read(reading, pager)
            except ServerRefuses:  # its type has changed, or the target does not take it
                await target.call(b"UNLINK", reading.temporary)
                raise
            if lost is not None:
                return Outcome(reading.size, rereads, stream=kind == b"stream", lost=lost)
            await target.call(b"UNLINK", reading.temporary)
        if self._live:
            raise Changing("it was changed while it was read in pages")
        if size > WHOLE_BYTES:
            raise Changing(f"it was changed during each of {READINGS} readings in pages, and is too big for one piece")
        return Outcome(rereads=READINGS, small=True)

    async def _read(self, reading: _Reading, pager: Pager) -> str | None:
        """All pages, and the end. What is lost on the target (usually ""); None when the key was changed."""
        send, receive = trio.open_memory_channel[list[Command]](1)
        async with open_nursery() as nursery:
            nursery.start_soon(_write_pages, reading, receive)
            async with send, aclosing(pager.pages(reading)) as pages:
                async for commands in pages:
                    await send.send(commands)
        source, key = reading.source, reading.key
        extra = await _group_reads(reading) if pager.length == b"XLEN" else []
        outcome = await source.transaction([[b"TIME"], [b"PTTL", key], [pager.length, key], *extra])
        if outcome is None:
            return None
        seconds, micros = expect(outcome, "EXEC")[0]
        now = int(seconds) * 1000 + int(micros) // 1000
        lost = ""
        if reading.deadlines and b"HPEXPIREAT" not in reading.facts[1].commands:
            lost = f"{reading.deadlines} hash fields lose their TTL: the target does not know HPEXPIREAT"
        if extra:
            rest = _rest_of_stream(reading, extra, outcome[3:], now, outcome[2])
            if rest is None:
                return None
            commands, lost = rest
            for start in range(0, len(commands), COMMANDS_AT_ONCE):
                await _run(reading.target, commands[start : start + COMMANDS_AT_ONCE])
        copied = expect(await reading.target.call(pager.length, reading.temporary), "counting the copy")
        if copied != outcome[2] and not reading.deadlines:
            return None  # an element expired, or the temporary key did
        await _take_its_place(reading, None if outcome[1] < 0 else now + outcome[1] + reading.shift_ms)
        return lost


async def _write_pages(reading: _Reading, pages: trio.MemoryReceiveChannel[list[Command]]) -> None:
    longest = reading.facts[1].max_bulk
    async for commands in pages:
        size = sum(sum(map(len, command)) for command in commands)
        reading.size += size
        if size > longest and any(len(arg) > longest for command in commands for arg in command):
            text = f"an element has more than {longest:,} bytes, which is what the target takes (proto-max-bulk-len)"
            raise ServerRefuses(text, text)
        await _run(reading.target, [*commands, [b"PEXPIRE", reading.temporary, b"%d" % TEMPORARY_MS]])


async def _run(target: Client, commands: Sequence[Command]) -> None:
    for reply in await target.pipeline(commands):
        expect(reply, "the target says")


async def _take_its_place(reading: _Reading, deadline: int | None) -> None:
    key = reading.key
    until = [b"PERSIST", key] if deadline is None else [b"PEXPIREAT", key, b"%d" % max(1, deadline)]
    commands = [[b"UNLINK", key], [b"RENAME", reading.temporary, key], until]
    for reply in expect(await reading.target.transaction(commands), "the target says"):
        expect(reply, "the target says")


def temporary_name(key: bytes) -> bytes:
    """A new name in the key's own slot, as far as there is one."""
    name = PREFIX + secrets.token_hex(8).encode()
    opening = key.find(b"{")
    closing = key.find(b"}", opening + 1)
    tag = key[opening + 1 : closing] if opening >= 0 and closing > opening + 1 else key
    tagged = name + b"{" + tag + b"}"
    return tagged if len(tag) < 1024 and key_slot(tagged) == key_slot(key) else name


# --- the pages of each type ---


def _spread(name: bytes, key: bytes, arguments: list[bytes]) -> list[Command]:
    """Commands of up to MAX_COMMAND_ARGS of the arguments each (an even number: pairs stay together)."""
    starts = range(0, len(arguments), MAX_COMMAND_ARGS)
    return [[name, key, *arguments[start : start + MAX_COMMAND_ARGS]] for start in starts]


async def _string(reading: _Reading) -> Pages:
    start = 0
    while True:
        end = start + PIECE_BYTES
        piece = await reading.source.call(b"GETRANGE", reading.key, b"%d" % start, b"%d" % (end - 1))
        if not expect(piece, "GETRANGE"):
            return
        yield [[b"APPEND", reading.temporary, piece]]
        start = end


async def _list(reading: _Reading) -> Pages:
    start, count = 0, reading.per_page
    while True:
        items = await reading.source.call(b"LRANGE", reading.key, b"%d" % start, b"%d" % (start + count - 1))
        if not expect(items, "LRANGE"):
            return
        yield _spread(b"RPUSH", reading.temporary, items)
        start += count


async def scan_elements(client: Client, command: bytes, key: bytes, count: int) -> AsyncGenerator[list[bytes], None]:
    """A key's elements, as SSCAN, HSCAN or ZSCAN gives them. Errors: ServerRefuses, ConnectionLost."""
    cursor = START
    while True:
        reply = await client.call(command, key, cursor, b"COUNT", b"%d" % count)
        cursor, elements = expect(reply, command.decode())
        if elements:
            yield elements
        if cursor == START:
            return


def _scan(reading: _Reading, command: bytes) -> AsyncGenerator[list[bytes], None]:
    return scan_elements(reading.source, command, reading.key, reading.per_page)


async def _set(reading: _Reading) -> Pages:
    async with aclosing(_scan(reading, b"SSCAN")) as pages:
        async for members in pages:
            yield _spread(b"SADD", reading.temporary, members)


async def _zset(reading: _Reading) -> Pages:
    """By rank, as WATCH notices whatever moves one: that is half the work of ZSCAN for either server (measured)."""
    start, count = 0, reading.per_page
    while True:
        end = b"%d" % (start + count - 1)
        flat = await reading.source.call(b"ZRANGE", reading.key, b"%d" % start, end, b"WITHSCORES")
        if not expect(flat, "ZRANGE"):
            return
        flat[::2], flat[1::2] = flat[1::2], flat[::2]  # score and member; the score's text says all of it
        yield _spread(b"ZADD", reading.temporary, flat)
        start += count


async def _hash(reading: _Reading) -> Pages:
    ask = b"HPEXPIRETIME" in reading.facts[0].commands
    tell = b"HPEXPIREAT" in reading.facts[1].commands
    async with aclosing(_scan(reading, b"HSCAN")) as pages:
        async for flat in pages:
            commands = _spread(b"HSET", reading.temporary, flat)
            if ask:
                deadlines = await _field_deadlines(reading, flat[::2])
                reading.deadlines += len(deadlines)
                if tell:
                    commands += _expire_fields(reading, deadlines)
            yield commands


async def _field_deadlines(reading: _Reading, fields: Sequence[bytes]) -> dict[bytes, int]:
    asked = list(batches(fields))
    commands = [[b"HPEXPIRETIME", reading.key, b"FIELDS", b"%d" % len(names), *names] for names in asked]
    replies = [expect(reply, "HPEXPIRETIME") for reply in await reading.source.pipeline(commands)]
    # A reply is nil (or all -2) when the key has gone meanwhile: WATCH will tell.
    told = chain.from_iterable(reply or [-2] * len(names) for reply, names in zip(replies, asked, strict=True))
    return {name: deadline for name, deadline in zip(fields, told, strict=True) if deadline >= 0}


def _expire_fields(reading: _Reading, deadlines: Mapping[bytes, int]) -> Iterable[Command]:
    by_deadline: dict[int, list[bytes]] = {}
    for name, deadline in deadlines.items():
        by_deadline.setdefault(max(1, deadline + reading.shift_ms), []).append(name)
    for deadline, names in by_deadline.items():
        yield [b"HPEXPIREAT", reading.temporary, b"%d" % deadline, b"FIELDS", b"%d" % len(names), *names]


# --- streams ---


async def _stream(reading: _Reading) -> Pages:
    """Entries, and placeholders for those that are deleted but still pending: see `streams`."""
    reading.pending = await _pending_ids(reading)
    start, position = b"-", 0
    while True:
        entries = await reading.source.call(b"XRANGE", reading.key, start, b"+", b"COUNT", b"%d" % reading.per_page)
        if not expect(entries, "XRANGE"):
            break
        if start == b"-":
            reading.first = entries[0][0]
        last = entries[-1][0]
        present = {identity for identity, _ in entries}
        added: dict[bytes, Sequence[bytes]] = dict(entries)
        while position < len(reading.pending) and streams.id_order(reading.pending[position]) <= streams.id_order(last):
            _hold_place(reading, reading.pending[position], present, added)
            position += 1
        ordered = sorted(added, key=streams.id_order) if len(added) > len(entries) else added
        yield [[b"XADD", reading.temporary, identity, *added[identity]] for identity in ordered]
        start = b"(" + last if _exclusive(reading.facts[0]) else _next_id(last)
    behind: dict[bytes, Sequence[bytes]] = {}
    for identity in reading.pending[position:]:
        _hold_place(reading, identity, set(), behind)
    if behind:
        yield [[b"XADD", reading.temporary, identity, *fields] for identity, fields in behind.items()]


def _hold_place(reading: _Reading, identity: bytes, present: set[bytes], added: dict[bytes, Sequence[bytes]]) -> None:
    if identity not in present and identity != streams.NO_ID:
        added[identity] = streams.PLACEHOLDER
        reading.placeholders.append(identity)


def _exclusive(facts: Facts) -> bool:
    return facts.version[1:] >= (6, 2)


def _next_id(identity: bytes) -> bytes:
    first, second = streams.id_order(identity)
    return b"%d-%d" % (first, second + 1)


async def _pending_ids(reading: _Reading) -> list[bytes]:
    source, key = reading.source, reading.key
    info, rows = await source.pipeline([[b"XINFO", b"STREAM", key], [b"XINFO", b"GROUPS", key]])
    last = streams.id_order(streams.pairs(expect(info, "XINFO STREAM"))[b"last-generated-id"])
    found: set[bytes] = set()
    for row in expect(rows, "XINFO GROUPS"):
        reply = await source.call(b"XPENDING", key, streams.pairs(row)[b"name"], b"-", b"+", ALL_PENDING)
        found.update(entry[0] for entry in expect(reply, "XPENDING"))
    counters = reading.facts[1].version[1] >= 7
    wanted = (identity for identity in found if not counters or streams.id_order(identity) <= last)
    return sorted(wanted, key=streams.id_order)


async def _group_reads(reading: _Reading) -> list[Command]:
    """What to read of the groups, in one MULTI with the end."""
    key = reading.key
    rows = expect(await reading.source.call(b"XINFO", b"GROUPS", key), "XINFO GROUPS")
    reads = [[b"XINFO", b"STREAM", key], [b"XINFO", b"GROUPS", key]]
    for row in rows:
        name = streams.pairs(row)[b"name"]
        reads += [[b"XINFO", b"CONSUMERS", key, name], [b"XPENDING", key, name, b"-", b"+", ALL_PENDING]]
    return reads


def _rest_of_stream(
    reading: _Reading, asked: list[Command], replies: list[Any], now: int, length: int
) -> tuple[list[Command], str] | None:
    """The commands for what comes behind the entries, and what is lost; None when a group came or went meanwhile."""
    if any(isinstance(reply, hiredis.ReplyError) for reply in replies):
        return None
    info, rows = streams.pairs(replies[0]), [streams.pairs(row) for row in replies[1]]
    if [row[b"name"] for row in rows] != [command[3] for command in asked[2::2]]:
        return None
    groups = tuple(
        Group(
            row[b"name"],
            row[b"last-delivered-id"],
            row.get(b"entries-read"),
            tuple(streams.pairs(consumer)[b"name"] for consumer in consumers),
            tuple(Pending(identity, consumer, now - idle, count) for identity, consumer, idle, count in pending),
        )
        for row, consumers, pending in zip(rows, replies[2::2], replies[3::2], strict=True)
    )
    stream = Stream(
        {}, info[b"last-generated-id"], info.get(b"entries-added"), info.get(b"max-deleted-entry-id"), groups
    )
    counters = reading.facts[1].version[1] >= 7
    last = streams.id_order(stream.last_id)
    lost = sum(counters and streams.id_order(entry.id) > last for group in groups for entry in group.pending)
    rest = streams.finish(
        reading.temporary,
        stream,
        length,
        reading.first,
        reading.placeholders,
        shift_ms=reading.shift_ms,
        counters=counters,
    )
    text = f"{lost} pending entries above the stream's last id cannot be made on the target" if lost else ""
    return list(rest), text


@dataclass(frozen=True, slots=True)
class Pager:
    """How a type is paged, and the command that tells its length."""

    pages: Callable[[_Reading], Pages]
    length: bytes


PAGERS: Mapping[bytes, Pager] = {
    b"string": Pager(_string, b"STRLEN"),
    b"list": Pager(_list, b"LLEN"),
    b"set": Pager(_set, b"SCARD"),
    b"zset": Pager(_zset, b"ZCARD"),
    b"hash": Pager(_hash, b"HLEN"),
    b"stream": Pager(_stream, b"XLEN"),
}
assert MISSING not in PAGERS
