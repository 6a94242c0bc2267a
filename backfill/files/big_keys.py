"""Owns writing a big key onto a server for an import, piece by piece. A door.

It is put together under a name of its own (`scratch_name`) and then renamed: so it appears whole or not at all, and a
later run of an import that was killed begins it anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from backfill import streams
from backfill.client import ReplyError
from backfill.compare import show
from backfill.rebuild import MAX_PIECE_BYTES, Command, chunked
from backfill.values import Stream

from .records import SIMPLE, BadValue, Head, Item, Piece, StreamOrder, complete_stream
from .writing import Done, Existing, Outcome, Target, Ttl, existed, first_error

SCRATCH = b"crossfade:import:"  # followed by the key's own name
COMMANDS_PER_SEND = 1000


def scratch_name(key: bytes) -> bytes:
    """Where a big key is put together: in the same cluster slot, wherever the key's name allows it."""
    if b"{" in key or b"}" in key:
        return SCRATCH + key  # a hash tag of its own stays one
    return SCRATCH + b"{" + key + b"}"


class BigKey:
    """`write` for each piece, then `finish`; or `drop`."""

    def __init__(
        self,
        target: Target,
        head: Head,
        existing: Existing,
        ttl: Ttl,
    ) -> None:
        self._target = target
        self._client = target.client
        self._head = head
        self._existing = existing
        self._ttl = ttl
        self._name = scratch_name(head.key)
        self._done: Done | None = None  # nothing more to write
        self._count = 0
        self._lost = 0
        self._order = StreamOrder()
        self._pending: list[bytes] | None = None  # of a stream: ids that need a placeholder, in order
        self._placeholders: list[bytes] = []
        self._first: bytes | None = None  # entry of a stream

    async def begin(self) -> None:
        """Look whether it is to be written at all."""
        if self._head.kind not in SIMPLE:
            self._fail(f"a {self._head.kind.decode('utf-8', 'replace')} cannot be imported")
        elif self._existing is not Existing.REPLACE and await self._client.call(b"EXISTS", self._head.key) == 1:
            self._done = existed(self._head, self._existing)
        elif self._target.expired(self._target.deadline(self._head.ttl, self._ttl)):
            await self._expire()
        else:
            await self._client.call(b"DEL", self._name)

    async def _expire(self) -> None:
        if self._existing is Existing.REPLACE:
            await self._client.call(b"DEL", self._head.key)
        self._done = Done(self._head, Outcome.EXPIRED)

    async def write(self, piece: Piece) -> None:
        """Errors: ConnectionLost. What the target refuses is told by `finish`."""
        if self._done is not None:
            return
        try:
            commands = list(self._commands(piece.items))
        except BadValue as problem:
            self._fail(str(problem))
            return
        self._count += len(piece.items)
        await self._run(commands)

    async def finish(self) -> Done:
        """Under its own name."""
        if self._done is None:
            try:
                await self._run(list(self._last_commands()))
            except BadValue as problem:
                self._fail(str(problem))
        if self._done is None:
            await self._rename()
        if self._done is None or self._done.outcome is not Outcome.WRITTEN:
            await self.drop()
        assert self._done is not None
        return self._done

    async def drop(self) -> None:
        """Leave nothing behind."""
        await self._client.call(b"DEL", self._name)

    def _fail(self, text: str) -> None:
        self._done = self._done or Done(self._head, Outcome.FAILED, text)

    async def _run(self, commands: Iterable[Command]) -> None:
        waiting = iter(commands)
        while self._done is None and (some := list(islice(waiting, COMMANDS_PER_SEND))):
            error = first_error(await self._client.pipeline(some))
            if error is not None:
                self._fail(f"the target refused the key {show(self._head.key)}: {error}")

    async def _rename(self) -> None:
        deadline = self._target.deadline(self._head.ttl, self._ttl)
        replaces = self._existing is Existing.REPLACE
        if self._target.expired(deadline) or await self._client.call(b"EXISTS", self._name) != 1:
            await self._expire()
            return
        commands = [[b"RENAME" if replaces else b"RENAMENX", self._name, self._head.key]]
        if deadline is not None:
            commands.insert(0, [b"PEXPIREAT", self._name, b"%d" % deadline])
        *queued, replies = await self._client.pipeline([[b"MULTI"], *commands, [b"EXEC"]])
        error = first_error(queued) or first_error([replies] if isinstance(replies, ReplyError) else replies)
        if error is not None:
            self._fail(f"the target refused the key {show(self._head.key)}: {error}")
        elif replies[-1] == 0:
            self._done = existed(self._head, self._existing)
        else:
            lost = f"{self._lost} hash fields lose their TTL: the target does not know HPEXPIREAT" if self._lost else ""
            self._done = Done(self._head, Outcome.WRITTEN, lost)

    # -- commands; errors: BadValue --

    def _commands(self, items: Sequence[Item]) -> Iterable[Command]:
        name = self._name
        match self._head.kind:
            case b"string":
                return ([b"APPEND", name, part] for item in items for part in _parts(item))
            case b"list":
                return chunked([b"RPUSH", name], ((item,) for item in items))
            case b"set":
                return chunked([b"SADD", name], ((item,) for item in items))
            case b"zset":
                return chunked([b"ZADD", name], ((repr(score).encode(), member) for member, score in items))
            case b"hash":
                return self._hash(items)
            case _:
                self._order.check(items)
                return self._entries(items)

    def _hash(self, items: Sequence[Item]) -> Iterator[Command]:
        deadlines = [(name, self._target.deadline(ttl, self._ttl)) for name, _, ttl in items if ttl is not None]
        gone = {name for name, until in deadlines if self._target.expired(until)}
        kept = [(name, value) for name, value, _ in items if value is not None and name not in gone]
        yield from chunked([b"HSET", self._name], kept)
        if gone:  # set by an earlier piece
            yield from chunked([b"HDEL", self._name], ((name,) for name in gone))
        if b"HPEXPIREAT" not in self._target.known:
            self._lost += len(deadlines) - len(gone)
            return
        by_deadline: dict[int | None, list[bytes]] = {}
        for name, until in deadlines:
            if name not in gone:
                by_deadline.setdefault(until, []).append(name)
        for until, names in by_deadline.items():
            yield [b"HPEXPIREAT", self._name, b"%d" % (until or 1), b"FIELDS", b"%d" % len(names), *names]

    def _entries(self, items: Sequence[Item]) -> Iterator[Command]:
        """With placeholders for ids that are pending and deleted, each in its place."""
        if self._first is None and items:
            self._first = items[0][0]
        for identity, fields in items:
            yield from self._placeholders_before(identity)
            yield [b"XADD", self._name, identity, *fields]

    def _placeholders_before(self, identity: bytes | None) -> Iterator[Command]:
        if self._pending is None:
            known = self._head.stream
            found = streams.deleted_but_pending(known, self._target.counters) if known is not None else []
            self._pending = found[::-1]
        while self._pending:
            order = streams.id_order(self._pending[-1])
            if identity is not None and order >= streams.id_order(identity):
                if order == streams.id_order(identity):
                    self._pending.pop()
                return
            self._placeholders.append(self._pending.pop())
            yield [b"XADD", self._name, self._placeholders[-1], *streams.PLACEHOLDER]

    def _last_commands(self) -> Iterator[Command]:
        if self._head.kind != b"stream":
            return
        stream: Stream = complete_stream(self._head.stream, self._order.last)
        yield from self._placeholders_before(None)
        yield from streams.finish(
            self._name,
            stream,
            self._count,
            self._first,
            self._placeholders,
            shift_ms=0,
            counters=self._target.counters,
        )


def _parts(data: bytes) -> Iterator[bytes]:
    return (data[start : start + MAX_PIECE_BYTES] for start in range(0, len(data), MAX_PIECE_BYTES))
