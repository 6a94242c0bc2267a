"""Owns writing keys onto a server for an import: many small ones in one round trip, big ones piece by piece.

A door. Every key appears whole or not at all, whenever the import is killed: a small one is written by one command or
one MULTI/EXEC, a big one under a name of its own (`SCRATCH`) and then renamed. So the same command may be run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from typing import Any

from backfill import streams
from backfill.client import Client, ReplyError, command_names
from backfill.compare import show
from backfill.errors import BackfillError
from backfill.rebuild import MAX_PIECE_BYTES, Command, chunked, losses, write_commands
from backfill.scan import select
from backfill.values import Hash, State, Stream

from .records import SIMPLE, BadValue, Head, Item, Piece, StreamOrder, complete_stream, state_of

SCRATCH = b"crossfade:import:"  # followed by the key's own name; a later run of the same import replaces it
COMMANDS_PER_SEND = 1000


class Existing(Enum):
    """What becomes of a key that is there already."""

    FAIL = "fail"
    SKIP = "skip"
    REPLACE = "replace"


class Ttl(Enum):
    """What the ttls of a file mean. AUTO: from year 2001 on (in ms since 1970) an instant, below that what remains;
    RIOT has written both."""

    AUTO = "auto"
    ABSOLUTE = "absolute"
    RELATIVE = "relative"


FIRST_INSTANT_MS = 10**12  # September 2001; as a remaining time, 31 years


class Outcome(Enum):
    WRITTEN = "written"
    EXISTED = "existed"  # and was left alone, as it was asked for
    EXPIRED = "expired"  # its ttl has run out
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a record. `text`: why it failed, or what of it the target cannot hold."""

    head: Head
    outcome: Outcome
    text: str = ""


EXISTS = "the key {} exists on the target (--replace, or --skip-existing)"


class Target:
    """The server that is written to. One db at a time."""

    def __init__(self, client: Client, known: frozenset[bytes], version: tuple[str, int, int], now_ms: int) -> None:
        self._client = client
        self._known = known
        self._version = version
        self._now_ms = now_ms
        self._db = client.url.db

    @classmethod
    async def of(cls, client: Client) -> Target:
        """Asks the server what it knows. Errors: BackfillError."""
        names, time = await client.pipeline([[b"COMMAND"], [b"TIME"]])
        for reply in (names, time):
            if isinstance(reply, ReplyError):
                raise BackfillError(f"{client.url.address} refuses: {reply}")
        now = int(time[0]) * 1000 + int(time[1]) // 1000
        return cls(client, command_names(names), version_of(client), now)

    async def clock(self) -> None:
        """Look at the target's clock again: what a ttl means depends on it."""
        time = await self._client.call(b"TIME")
        if not isinstance(time, ReplyError):
            self._now_ms = int(time[0]) * 1000 + int(time[1]) // 1000

    async def enter(self, db: int) -> None:
        """Go on in this db. Errors: ScanError."""
        if db != self._db:
            await select(self._client, db)
            self._db = db

    def deadline(self, ttl: int | None, mode: Ttl) -> int | None:
        if ttl is None:
            return None
        remaining = mode is Ttl.RELATIVE or (mode is Ttl.AUTO and ttl < FIRST_INSTANT_MS)
        return self._now_ms + ttl if remaining else ttl

    def expired(self, deadline_ms: int | None) -> bool:
        return deadline_ms is not None and deadline_ms <= self._now_ms

    # -- small keys --

    async def write(self, batch: Sequence[Piece], existing: Existing, ttl: Ttl, *, stop: bool) -> list[Done]:
        """Write whole keys, all of this db and of different names. `stop`: nothing behind the first that fails."""
        done: list[Done] = []
        sent: list[tuple[Head, State, list[Command]]] = []
        there = await self._there(batch) if existing is not Existing.REPLACE else [False] * len(batch)
        for piece, exists in zip(batch, there, strict=True):
            found = self._prepare(piece, exists, existing, ttl)
            if isinstance(found, Done):
                done.append(found)
                if stop and found.outcome is Outcome.FAILED:
                    break
            else:
                sent.append((piece.head, *found))
        done += await self._send(sent)
        order = {id(piece.head): index for index, piece in enumerate(batch)}
        return sorted(done, key=lambda one: order[id(one.head)])

    async def _there(self, batch: Sequence[Piece]) -> list[bool]:
        replies = await self._client.pipeline([[b"EXISTS", piece.head.key] for piece in batch])
        return [reply == 1 for reply in replies]

    def _prepare(self, piece: Piece, exists: bool, existing: Existing, ttl: Ttl) -> Done | tuple[State, list[Command]]:
        head = piece.head
        if exists:
            return _existing(head, existing)
        try:
            state = self._state(piece, ttl)
        except BadValue as problem:
            return Done(head, Outcome.FAILED, str(problem))
        gone = self.expired(state.deadline_ms) or (isinstance(state.value, Hash) and not state.value.fields)
        if gone and existing is not Existing.REPLACE:
            return Done(head, Outcome.EXPIRED)
        if gone:
            return replace(state, kind=b"none"), [[b"DEL", head.key]]
        commands = write_commands(state, shift_ms=0, target=self._known, version=self._version)
        if existing is not Existing.REPLACE and commands[0][0] == b"DEL":
            del commands[0]
        return state, commands

    def _state(self, piece: Piece, ttl: Ttl) -> State:
        state = replace(state_of(piece), deadline_ms=self.deadline(piece.head.ttl, ttl))
        if isinstance(state.value, Hash) and state.value.deadlines:
            deadlines = {name: self.deadline(until, ttl) for name, until in state.value.deadlines.items()}
            gone = {name for name, until in deadlines.items() if self.expired(until)}
            fields = {name: value for name, value in state.value.fields.items() if name not in gone}
            kept = {name: until for name, until in deadlines.items() if until is not None and name not in gone}
            state = replace(state, value=Hash(fields, kept))
        return state

    async def _send(self, sent: Sequence[tuple[Head, State, list[Command]]]) -> list[Done]:
        commands: list[Command] = []
        ends = []
        for _, _, own in sent:
            commands += own if len(own) == 1 else [[b"MULTI"], *own, [b"EXEC"]]
            ends.append(len(commands))
        replies = await self._client.pipeline(commands) if commands else []
        done = []
        half: list[bytes] = []
        start = 0
        for (head, state, own), end in zip(sent, ends, strict=True):
            reply = replies[end - 1]
            # Of a refused EXEC the cause stands before it, in the reply to the command that was not queued.
            error = _first_error(replies[start:end] if len(own) == 1 or isinstance(reply, ReplyError) else reply)
            start = end
            if error is not None:
                done.append(Done(head, Outcome.FAILED, f"the target refused the key {show(head.key)}: {error}"))
                if not isinstance(reply, ReplyError):
                    half.append(head.key)
            elif state.missing:
                done.append(Done(head, Outcome.EXPIRED))
            else:
                lost = losses(state, target=self._known, version=self._version)
                done.append(Done(head, Outcome.WRITTEN, "; ".join(lost)))
        if half:  # commands before the one that failed did run
            await self._client.pipeline([[b"DEL", key] for key in half])
        return done

    # -- big keys --

    def big(self, head: Head, existing: Existing, ttl: Ttl) -> BigKey:
        """A key that comes in pieces."""
        return BigKey(self, self._client, head, existing, ttl, self._known, self._version[1] >= 7)


def _first_error(replies: Iterable[Any]) -> ReplyError | None:
    return next((reply for reply in replies if isinstance(reply, ReplyError)), None)


def _existing(head: Head, existing: Existing) -> Done:
    if existing is Existing.SKIP:
        return Done(head, Outcome.EXISTED)
    return Done(head, Outcome.FAILED, EXISTS.format(show(head.key)))


def version_of(client: Client) -> tuple[str, int, int]:
    """Product, major and minor version of the server, from what the handshake learned."""
    server = client.wire.server
    product = "valkey" if "valkey_version" in server else "redis"
    text = server.get("valkey_version") or server.get("redis_version") or "7.0"
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0]
    return product, int(major) if major.isdigit() else 7, int(minor) if minor.isdigit() else 0


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
        client: Client,
        head: Head,
        existing: Existing,
        ttl: Ttl,
        known: frozenset[bytes],
        counters: bool,
    ) -> None:
        self._target = target
        self._client = client
        self._head = head
        self._existing = existing
        self._ttl = ttl
        self._known = known
        self._counters = counters  # streams have them
        self._name = scratch_name(head.key)
        self._done: Done | None = None  # nothing more to write
        self._count = 0
        self._lost = 0
        self._order = StreamOrder()
        self._pending: list[bytes] | None = None  # of a stream: ids that need a placeholder, in order
        self._placeholders: list[bytes] = []

    async def begin(self) -> None:
        """Look whether it is to be written at all."""
        if self._head.kind not in SIMPLE:
            self._fail(f"a {self._head.kind.decode('utf-8', 'replace')} cannot be imported")
        elif self._existing is not Existing.REPLACE and await self._client.call(b"EXISTS", self._head.key) == 1:
            self._done = _existing(self._head, self._existing)
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
            error = _first_error(await self._client.pipeline(some))
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
        replies = await self._client.transaction(commands)
        error = replies if isinstance(replies, ReplyError) else _first_error(replies)
        if error is not None:
            self._fail(f"the target refused the key {show(self._head.key)}: {error}")
        elif replies[-1] == 0:
            self._done = _existing(self._head, self._existing)
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
        if b"HPEXPIREAT" not in self._known:
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
        for identity, fields in items:
            yield from self._placeholders_before(identity)
            yield [b"XADD", self._name, identity, *fields]

    def _placeholders_before(self, identity: bytes | None) -> Iterator[Command]:
        if self._pending is None:
            known = self._head.stream
            found = streams.deleted_but_pending(known, self._counters) if known is not None else []
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
            self._name, stream, self._count, self._placeholders, shift_ms=0, counters=self._counters
        )


def _parts(data: bytes) -> Iterator[bytes]:
    return (data[start : start + MAX_PIECE_BYTES] for start in range(0, len(data), MAX_PIECE_BYTES))
