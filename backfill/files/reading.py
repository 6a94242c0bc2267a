"""Owns reading keys from a server for an export: whole ones many at a time, big ones in pages.

A door. A key up to BIG_BYTES is read at one point of the server's history, by one MULTI/EXEC. A bigger hash, list, set,
sorted set or stream is read in pages into a temporary file, so that neither the server nor we hold it in one reply:
each element is as it was when its page was read. When its length has changed meanwhile, that is told.
"""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

from backfill import codec, streams
from backfill.client import Client, ReplyError
from backfill.codec import Form, Unreadable, WrongType
from backfill.values import MISSING, Group, Pending, State, Stream

from .records import FileError, Head, Item, parts_of

BIG_BYTES = 1024 * 1024  # of memory: HGETALL of it takes some ms of the server's time
BIG_ELEMENTS = 5000  # where the server does not tell memory
BATCH_BYTES = 4 * 1024 * 1024  # of keys read in one round trip
PAGE_BYTES = 512 * 1024
PAGE_ELEMENTS = 1000
ATTEMPTS = 5  # of a key that changes its type while it is read
LENGTHS = {b"list": b"LLEN", b"set": b"SCARD", b"zset": b"ZCARD", b"hash": b"HLEN", b"stream": b"XLEN"}


@dataclass(frozen=True, slots=True)
class Found:
    """A key. `changed`: it was read in pages, and its length was another at the end. Whoever takes it closes it."""

    head: Head
    items: Iterable[Item]
    changed: bool = False

    def close(self) -> None:
        if isinstance(self.items, Spool):
            self.items.close()


@dataclass(frozen=True, slots=True)
class NotRead:
    key: bytes
    reason: str


class Spool:
    """Items in a temporary file; they may be walked more than once."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        self._pages = 0

    def add(self, items: list[Item]) -> None:
        try:
            marshal.dump(items, self._file)
        except OSError as problem:
            raise FileError(f"no room for a big key in {tempfile.gettempdir()} (TMPDIR): {problem.strerror}") from None
        self._pages += 1

    def __iter__(self) -> Iterator[Item]:
        self._file.seek(0)
        for _ in range(self._pages):
            yield from marshal.load(self._file)

    def close(self) -> None:
        self._file.close()


class Changed(Exception):
    """The key is of another type now, or gone."""


class Keys:
    """Reads keys of the db that the client is in. `relative`: ttls are what remains, not instants."""

    def __init__(self, client: Client, known: frozenset[bytes], *, relative: bool = False) -> None:
        self._client = client
        self._known = known
        self._relative = relative
        self._tells_memory = True

    async def read(self, keys: Sequence[bytes], kinds: frozenset[bytes]) -> AsyncGenerator[Found | NotRead, None]:
        """Those of the keys that are there and of one of `kinds` (empty: all). Errors: ConnectionLost."""
        small: list[tuple[bytes, bytes]] = []
        waiting = 0
        for key, kind, size in await self._sizes(keys) if keys else ():
            if isinstance(kind, ReplyError):
                yield NotRead(key, str(kind))
                continue
            if kind == MISSING or (kinds and kind not in kinds):
                continue
            if size >= BIG_BYTES and kind in LENGTHS:
                if (big := await self._big(key, kind)) is not None:
                    yield big
                continue
            if small and waiting + size > BATCH_BYTES:
                for found in await self._small(small):
                    yield found
                small, waiting = [], 0
            small.append((key, kind))
            waiting += size
        for found in await self._small(small):
            yield found

    async def _sizes(self, keys: Sequence[bytes]) -> list[tuple[bytes, bytes | ReplyError, int]]:
        """Key, type and about the bytes of each."""
        commands = [[b"TYPE", key] for key in keys]
        if self._tells_memory:
            commands += [[b"MEMORY", b"USAGE", key] for key in keys]
        replies = await self._client.pipeline(commands)
        kinds = replies[: len(keys)]
        memory = replies[len(keys) :]
        if any(isinstance(size, ReplyError) for size in memory):  # forbidden, or unknown to a service
            self._tells_memory = False
        if not self._tells_memory:
            memory = await self._estimates(keys, kinds)
        return [(key, kind, size or 0) for key, kind, size in zip(keys, kinds, memory, strict=True)]

    async def _estimates(self, keys: Sequence[bytes], kinds: Sequence[bytes | ReplyError]) -> list[int]:
        """Where MEMORY is forbidden: by the number of elements."""
        asked = {b"string": b"STRLEN", **LENGTHS}
        lengths = await self._client.pipeline(
            [
                [asked.get(kind, b"EXISTS") if isinstance(kind, bytes) else b"EXISTS", key]
                for key, kind in zip(keys, kinds, strict=True)
            ]
        )
        per_element = BIG_BYTES // BIG_ELEMENTS
        return [
            0 if isinstance(length, ReplyError) else length * (1 if kind == b"string" else per_element)
            for kind, length in zip(kinds, lengths, strict=True)
        ]

    # -- whole keys --

    async def _small(self, keys: Sequence[tuple[bytes, bytes]]) -> list[Found | NotRead]:
        wanted: list[tuple[bytes, codec.Believed]] = list(keys)
        found: dict[bytes, Found | NotRead] = {}
        for _ in range(ATTEMPTS):
            again: list[tuple[bytes, codec.Believed]] = []
            for (key, _), state in zip(wanted, await self._states(wanted), strict=True):
                if isinstance(state, WrongType):
                    again.append((key, state))
                elif isinstance(state, Unreadable):
                    found[key] = NotRead(key, state.reason)
                elif not state.missing:
                    found[key] = self._found(state)
            if not again:
                break
            wanted = again
        else:
            found.update({key: NotRead(key, "it changes faster than it can be read") for key, _ in wanted})
        return list(found.values())

    async def _states(self, wanted: Sequence[tuple[bytes, codec.Believed]]) -> list[State | WrongType | Unreadable]:
        commands: list[Sequence[bytes]] = []
        ends = []
        for key, believed in wanted:
            commands += [[b"MULTI"], *codec.read_commands(key, Form.STRUCT, believed, known=self._known), [b"EXEC"]]
            ends.append(len(commands) - 1)
        replies = await self._client.pipeline(commands) if commands else []
        states: list[State | WrongType | Unreadable] = []
        start = 0
        for (key, believed), end in zip(wanted, ends, strict=True):
            if isinstance(replies[end], ReplyError):  # the cause stands before it
                cause = next(reply for reply in replies[start : end + 1] if isinstance(reply, ReplyError))
                states.append(Unreadable(str(cause)))
            else:
                states.append(codec.parse(key, Form.STRUCT, replies[end], believed))
            start = end + 1
        return states

    def _found(self, state: State) -> Found:
        return Found(*parts_of(state, lambda deadline: self._ttl(deadline, state.read_ms)))

    def _ttl(self, deadline_ms: int | None, now_ms: int) -> int | None:
        if deadline_ms is None:
            return None
        return max(1, deadline_ms - now_ms) if self._relative else max(1, deadline_ms)

    # -- big keys --

    async def _big(self, key: bytes, kind: bytes) -> Found | NotRead | None:
        for _ in range(ATTEMPTS):
            spool = Spool()
            try:
                return await _Paged(self._client, self._known, key, kind, spool, self._ttl).read()
            except Changed:
                spool.close()
            except BaseException:
                spool.close()
                raise
            kind = await self._client.call(b"TYPE", key)
            if kind == MISSING or isinstance(kind, ReplyError):
                return None
            if kind not in LENGTHS:
                return next(iter(await self._small([(key, kind)])), None)
        return NotRead(key, "it changes faster than it can be read")


class _Paged:
    """One big key, page by page."""

    def __init__(
        self, client: Client, known: frozenset[bytes], key: bytes, kind: bytes, spool: Spool, ttl: Any
    ) -> None:
        self._client = client
        self._known = known
        self._key = key
        self._kind = kind
        self._spool = spool
        self._ttl = ttl
        self._count = PAGE_ELEMENTS

    async def read(self) -> Found:
        now, deadline, length, memory = await self._measure()
        self._count = min(PAGE_ELEMENTS, max(1, PAGE_BYTES * length // max(memory, 1)))
        head = Head(self._key, self._kind)
        if self._kind == b"stream":
            head.stream = await self._stream()
        elif self._kind == b"list":
            await self._list(length)
        else:
            await self._scan(now)
        later, deadline, length_at_end, _ = await self._measure()
        head.ttl = self._ttl(deadline, later)
        return Found(head, self._spool, changed=length != length_at_end)

    async def _measure(self) -> tuple[int, int | None, int, int]:
        """The clock, the deadline, the length and about the bytes, at one point."""
        length = [LENGTHS[self._kind], self._key]
        replies = await self._client.transaction([[b"TIME"], [b"PTTL", self._key], length])
        self._check(replies)
        for reply in replies:
            self._check(reply)
        seconds, micros = replies[0]
        now, remaining = int(seconds) * 1000 + int(micros) // 1000, replies[1]
        if remaining == -2:
            raise Changed
        memory = await self._client.call(b"MEMORY", b"USAGE", self._key)
        return now, now + remaining if remaining >= 0 else None, replies[2], memory if isinstance(memory, int) else 0

    async def _call(self, *command: bytes) -> Any:
        return self._check(await self._client.call(*command))

    def _check(self, reply: Any) -> Any:
        if isinstance(reply, ReplyError):
            raise Changed  # WRONGTYPE, or no such key; anything else will show when the key is read whole
        return reply

    async def _list(self, length: int) -> None:
        """What was in it at the beginning: a queue may grow for ever."""
        for start in range(0, length, self._count):
            end = min(start + self._count, length) - 1
            self._spool.add(await self._call(b"LRANGE", self._key, b"%d" % start, b"%d" % end))

    async def _scan(self, now: int) -> None:
        """SSCAN, HSCAN, ZSCAN: an element that is there from the beginning to the end is returned at least once."""
        command = {b"set": b"SSCAN", b"hash": b"HSCAN", b"zset": b"ZSCAN"}[self._kind]
        cursor = b"0"
        while True:
            cursor, flat = await self._call(command, self._key, cursor, b"COUNT", b"%d" % self._count)
            if flat:
                self._spool.add(await self._items(flat, now))
            if cursor == b"0":
                return

    async def _items(self, flat: list[bytes], now: int) -> list[Item]:
        if self._kind == b"set":
            return flat
        pairs = zip(flat[::2], flat[1::2], strict=True)
        if self._kind == b"zset":
            return [(member, float(score)) for member, score in pairs]
        if b"HPEXPIRETIME" not in self._known:
            return [(name, value, None) for name, value in pairs]
        count = b"%d" % (len(flat) // 2)
        deadlines = await self._call(b"HPEXPIRETIME", self._key, b"FIELDS", count, *flat[::2])
        if not isinstance(deadlines, list):
            raise Changed  # no such key
        return [
            (name, value, self._ttl(deadline, now) if deadline >= 0 else None)
            for (name, value), deadline in zip(pairs, deadlines, strict=True)
            if deadline != -2  # expired since
        ]

    # A stream's groups are read at one point with its last id; entries that come later are left out.

    async def _stream(self) -> Stream:
        replies = self._check(
            await self._client.transaction([[b"XINFO", b"STREAM", self._key], [b"XINFO", b"GROUPS", self._key]])
        )
        info = streams.pairs(self._check(replies[0]))
        groups = [streams.pairs(group) for group in self._check(replies[1])]
        last_id: bytes = info[b"last-generated-id"]
        start = b"-"
        while page := await self._call(b"XRANGE", self._key, start, last_id, b"COUNT", b"%d" % self._count):
            self._spool.add([(identity, tuple(fields)) for identity, fields in page])
            start = b"(" + page[-1][0]
        return Stream(
            {},
            last_id,
            info.get(b"entries-added"),
            info.get(b"max-deleted-entry-id"),
            tuple([await self._group(group, last_id) for group in groups]),
        )

    async def _group(self, info: dict[bytes, Any], last_id: bytes) -> Group:
        name: bytes = info[b"name"]
        pending: list[Pending] = []
        start = b"-"
        while True:
            page = [b"XPENDING", self._key, name, start, last_id, b"%d" % PAGE_ELEMENTS]
            replies = self._check(await self._client.transaction([[b"TIME"], page]))
            seconds, micros = self._check(replies[0])
            now = int(seconds) * 1000 + int(micros) // 1000
            found = self._check(replies[1])
            pending += [Pending(identity, owner, now - idle, count) for identity, owner, idle, count in found]
            if not found:
                break
            start = b"(" + found[-1][0]
        consumers = [streams.pairs(consumer)[b"name"] for consumer in await self._consumers(name)]
        # One that was deleted since; its entries were pending when they were read.
        consumers += {entry.consumer for entry in pending}.difference(consumers)
        return Group(name, info[b"last-delivered-id"], info.get(b"entries-read"), tuple(consumers), tuple(pending))

    async def _consumers(self, group: bytes) -> Any:
        return await self._call(b"XINFO", b"CONSUMERS", self._key, group)
