"""Verify of a big key: page by page, each page read on both sides at one point of the order.

Owns the walk through one key. Hashes, sets and sorted sets go by their members, not by cursor: a page of names from the
serving side, then those members by name on both sides. If the sizes differ at the end, the names of the mirror side are
gone through as well, for what only that has. Lists and strings go by index, streams by id, their groups at one point.

A page is exact: a difference is one, unless the key is dirty. What clients move from the part that is still to come to
the part that has been (LPOP of a list) is not seen in this run; the reply of every such command has been compared.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import hiredis

from backfill.codec import Unreadable, head_commands, times
from backfill.compare import Difference, Status, difference
from backfill.rebuild import Command
from backfill.streams import pairs
from backfill.values import Hash, SortedSet, State, Stream, Value
from proxy.bigkeys.pages import PAGE_BYTES, PAGE_ELEMENTS
from proxy.bigkeys.streams import group_of
from proxy.onepoint import Refused, Replies, read_both, read_mirror

if TYPE_CHECKING:
    from proxy.dirty import Place
    from proxy.server import Proxy

FIRST_ELEMENTS = 200
START = b"0"
EVERYTHING = b"1000000000"
ENDING_ATTEMPTS = 20  # at a stream's groups: they come and go

Found = Difference | Unreadable | None
LENGTHS = {
    b"hash": b"HLEN",
    b"set": b"SCARD",
    b"zset": b"ZCARD",
    b"list": b"LLEN",
    b"string": b"STRLEN",
    b"stream": b"XLEN",
}
SCANS = {b"hash": b"HSCAN", b"set": b"SSCAN", b"zset": b"ZSCAN"}


class PagedVerify:
    """One key, once."""

    def __init__(self, proxy: Proxy, place: Place, kind: bytes, tolerance_ms: int) -> None:
        self._proxy = proxy
        self._hub = proxy.hub
        self._place = place
        self._db, self._key = place
        self._kind = kind
        self._tolerance_ms = tolerance_ms
        self._count = FIRST_ELEMENTS
        self._sizes = (0, 0)
        self.dirty = False  # the key was, while it was read: what was found may mean nothing
        self.changed = False  # it is of another type now: to be looked at anew

    def __repr__(self) -> str:
        return f"<PagedVerify {self._place!r} {self._kind.decode()}>"

    async def run(self) -> Found:
        """The first difference. Errors: Lost."""
        walk = {b"list": self._positions, b"string": self._positions, b"stream": self._stream}
        try:
            return await walk.get(self._kind, self._members)()
        except Refused as refused:
            return Unreadable(refused.text)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as problem:
            return Unreadable(f"read with an unexpected answer: {problem!r}")

    # -- one page ------------------------------------------------------------------------------------------------

    async def _page(
        self,
        left: Sequence[Command],
        right: Callable[[Replies], Sequence[Command]],
        value: Callable[[Replies, frozenset[bytes]], Value],
        first: int = 0,
    ) -> tuple[Found, Replies]:
        """What differs in one page, and the serving side's replies."""
        roles = self._proxy.roles
        known, known_there = roles.serving_facts.commands, roles.mirror_facts.commands
        head, head_there = self._head(known), self._head(known_there)

        def mirrored(replies: Replies) -> list[Command]:
            return [*head_there, *right(replies[4:])]

        here, there = await read_both(self._hub, self._db, [*head, *left], mirrored, self._note_dirt)
        if not isinstance(here[3], int):
            self.changed = True
            return None, []
        if not there:
            raise Refused(f"not what a server answers: {here[4:5]!r:.100}")
        states = [
            self._state(replies, lambda part, names=names: value(part, names))  # type: ignore[misc]
            for replies, names in ((here, known), (there, known_there))
        ]
        self._sizes = (here[3], there[3] if isinstance(there[3], int) else 0)
        found = difference(
            *states, shift_ms=roles.shift_ms, tolerance_ms=self._tolerance_ms, first=first, names=roles.names
        )
        return found, here[4:]

    async def _same(
        self, commands: list[Command], value: Callable[[Replies, frozenset[bytes]], Value], first: int
    ) -> tuple[Found, Replies]:
        return await self._page(commands, lambda _: commands, value, first)

    def _head(self, known: frozenset[bytes]) -> list[Command]:
        return [*head_commands(self._key, known), [b"TYPE", self._key], [LENGTHS[self._kind], self._key]]

    def _state(self, replies: Replies, value: Callable[[Replies], Value]) -> State:
        """The key, as far as one page shows it."""
        now_ms, deadline = times(replies[0], replies[1])
        kind = replies[2] if isinstance(replies[2], bytes) else str(replies[2]).encode()
        if kind != self._kind:
            return State(self._key, kind, deadline, now_ms)
        if error := next((one for one in replies if isinstance(one, hiredis.ReplyError)), None):
            raise Refused(str(error))
        return State(self._key, kind, deadline, now_ms, value=value(replies[4:]))

    def _note_dirt(self) -> None:
        self.dirty = self.dirty or self._place in self._hub.repair.keys

    def _adapt(self, elements: int, size: int) -> None:
        if elements:
            self._count = max(1, min(PAGE_ELEMENTS, PAGE_BYTES * elements // max(1, size), 4 * self._count))

    # -- by members ----------------------------------------------------------------------------------------------

    async def _members(self) -> Found:
        found = await self._first_of(self._scan_serving)
        if found or self._sizes[0] == self._sizes[1] or self.changed:
            return found
        sizes = self._sizes
        if found := await self._first_of(self._scan_mirror):
            return found
        if self._kind == b"hash" or self._sizes[0] == self._sizes[1]:
            return None  # HLEN counts fields that have expired and are not yet removed
        serving, mirror = self._proxy.roles.names
        text = f"{sizes[0]:,} elements on the {serving}, {sizes[1]:,} on the {mirror}"
        return Difference(self._key, Status.VALUE, text)

    async def _first_of(self, scan: Callable[[Command], Any]) -> Found:
        async with aclosing(self._names(scan)) as pages:
            async for names in pages:
                if found := await self._by_name(names):
                    return found
        return None

    async def _names(self, scan: Callable[[Command], Any]) -> AsyncGenerator[list[bytes], None]:
        """The names of the members, in pages."""
        cursor = START
        while True:
            reply = await scan([SCANS[self._kind], self._key, cursor, b"COUNT", b"%d" % self._count])
            if isinstance(reply, hiredis.ReplyError):
                self.changed = True
                return
            cursor, items = reply
            names = items if self._kind == b"set" else items[::2]
            for start in range(0, len(names), PAGE_ELEMENTS):  # a compact encoding is returned whole
                yield names[start : start + PAGE_ELEMENTS]
            self._adapt(len(names), sum(map(len, items)))
            if cursor == START:
                return

    async def _scan_serving(self, command: Command) -> Any:
        return (await read_both(self._hub, self._db, [command]))[0][0]

    async def _scan_mirror(self, command: Command) -> Any:
        return (await read_mirror(self._hub, self._db, [command]))[0]

    async def _by_name(self, names: list[bytes]) -> Found:
        facts, mirror_facts = self._proxy.roles.serving_facts, self._proxy.roles.mirror_facts
        commands, value = BY_NAME[self._kind]
        found, _ = await self._page(
            commands(self._key, names, facts.commands),
            lambda replies: commands(self._key, names, mirror_facts.commands),
            lambda replies, known: value(names, replies),
        )
        return found

    # -- by position ---------------------------------------------------------------------------------------------

    async def _positions(self) -> Found:
        read, value = (b"LRANGE", tuple) if self._kind == b"list" else (b"GETRANGE", bytes)
        first, step = 0, self._count if self._kind == b"list" else PAGE_BYTES
        while True:
            commands: list[Command] = [[read, self._key, b"%d" % first, b"%d" % (first + step - 1)]]
            found, replies = await self._same(commands, lambda part, known: value(part[0]), first)
            if self.changed or (found and (self._kind == b"list" or self._sizes[0] == self._sizes[1])):
                return found
            first += step
            if found or first >= max(self._sizes):
                break
            if self._kind == b"list":
                self._adapt(len(replies[0]), sum(map(len, replies[0])))
                step = self._count
        if self._sizes[0] == self._sizes[1]:
            return found
        unit = "elements" if self._kind == b"list" else "bytes"
        serving, mirror = self._proxy.roles.names
        text = f"{self._sizes[0]:,} {unit} on the {serving}, {self._sizes[1]:,} on the {mirror}"
        return Difference(self._key, Status.VALUE, text)

    # -- streams -------------------------------------------------------------------------------------------------

    async def _stream(self) -> Found:
        last, more = b"-", True
        while more:
            asked = self._count
            command = [b"XRANGE", self._key, last, b"+", b"COUNT", b"%d" % asked]

            def same_ids(replies: Replies, start: bytes = last, asked: int = asked) -> list[Command]:
                end = replies[0][-1][0] if len(replies[0]) >= asked else b"+"
                return [[b"XRANGE", self._key, start, end, b"COUNT", b"%d" % (asked + 1)]]

            found, replies = await self._page([command], same_ids, lambda part, known: Stream(_entries(part[0]), b""))
            if found or self.changed:
                return found
            entries = replies[0]
            more = len(entries) >= asked
            last = b"(" + entries[-1][0] if entries else last
            self._adapt(len(entries), sum(len(part) for _, fields in entries for part in fields))
        return await self._stream_end()

    async def _stream_end(self) -> Found:
        """The last id and the groups, once their names are known."""
        groups: list[bytes] = []
        for _ in range(ENDING_ATTEMPTS):
            commands: list[Command] = [[b"XINFO", b"STREAM", self._key], [b"XINFO", b"GROUPS", self._key]]
            for group in groups:
                commands.append([b"XINFO", b"CONSUMERS", self._key, group])
                commands.append([b"XPENDING", self._key, group, b"-", b"+", EVERYTHING])
            here, there = await read_both(
                self._hub,
                self._db,
                [*self._head(self._proxy.roles.serving_facts.commands), *commands],
                lambda _, same=commands: [*self._head(self._proxy.roles.mirror_facts.commands), *same],  # type: ignore[misc]
                self._note_dirt,
            )
            if not isinstance(here[3], int):
                self.changed = True
                return None
            names = [pairs(group)[b"name"] for group in here[5]]
            if names == groups:
                return self._ends(here, there)
            groups = names
        return Unreadable("its groups change faster than they can be read")

    def _ends(self, here: Replies, there: Replies) -> Found:
        if not isinstance(there[3], int) or isinstance(there[5], hiredis.ReplyError):
            return Difference(
                self._key, Status.TYPE, "a stream on the {}, not on the {}".format(*self._proxy.roles.names)
            )
        parts = [
            Stream({}, pairs(replies[4])[b"last-generated-id"], groups=tuple(_groups(replies)))
            for replies in (here, there)
        ]
        states = [
            State(self._key, b"stream", times(*replies[:2])[1], times(*replies[:2])[0], value=part)
            for replies, part in zip((here, there), parts, strict=True)
        ]
        roles = self._proxy.roles
        found = difference(*states, shift_ms=roles.shift_ms, tolerance_ms=self._tolerance_ms, names=roles.names)
        if found is None and here[3] != there[3]:
            serving, mirror = roles.names
            text = f"{here[3]:,} entries on the {serving}, {there[3]:,} on the {mirror}"
            found = Difference(self._key, Status.VALUE, text)
        return found


def _entries(listed: Sequence[Any]) -> Mapping[bytes, tuple[bytes, ...]]:
    return {identity: tuple(fields) for identity, fields in listed}


def _groups(replies: Replies) -> list[Any]:
    """The groups in the replies of `_stream_end`: those of which consumers and pending entries were asked for."""
    facts = [pairs(group) for group in replies[5]]
    if any(isinstance(reply, hiredis.ReplyError) for reply in replies[6:]) or len(replies[6:]) != 2 * len(facts):
        return [group_of(one, [], [], 0) for one in facts]
    return [
        group_of(one, consumers, pending, 0)
        for one, consumers, pending in zip(facts, replies[6::2], replies[7::2], strict=True)
    ]


# -- members by name ---------------------------------------------------------------------------------------------------


def _hash_read(key: bytes, names: list[bytes], known: frozenset[bytes]) -> list[Command]:
    commands: list[Command] = [[b"HMGET", key, *names]]
    if b"HPEXPIRETIME" in known:
        commands.append([b"HPEXPIRETIME", key, b"FIELDS", b"%d" % len(names), *names])
    return commands


def _hash_value(names: list[bytes], replies: Replies) -> Value:
    fields = {name: value for name, value in zip(names, replies[0], strict=True) if value is not None}
    moments = dict(zip(names, replies[1], strict=True)) if len(replies) > 1 else {}
    return Hash(fields, {name: moments[name] for name in fields if moments.get(name, -1) >= 0})


def _set_value(names: list[bytes], replies: Replies) -> Value:
    return frozenset(name for name, found in zip(names, replies[0], strict=True) if found)


def _zset_value(names: list[bytes], replies: Replies) -> Value:
    scores = zip(names, replies[0], strict=True)
    return SortedSet({name: float(score) for name, score in scores if score is not None})


Reader = Callable[[bytes, list[bytes], frozenset[bytes]], list[Command]]
BY_NAME: Mapping[bytes, tuple[Reader, Callable[[list[bytes], Replies], Value]]] = {
    b"hash": (_hash_read, _hash_value),
    b"set": (lambda key, names, known: [[b"SMISMEMBER", key, *names]], _set_value),
    b"zset": (lambda key, names, known: [[b"ZMSCORE", key, *names]], _zset_value),
}
