"""Looks at the source's keys: how big, of which types, and whether the target takes them. A door; it never writes to
the source. On the target one key with a random name and a deadline is restored and deleted.

SCAN walks the keys in the order of their hashes, so what is seen within the time is a fair sample of all.
"""

from __future__ import annotations

import heapq
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from backfill.client import Client, ConnectionLost, ReplyError
from backfill.codec import Form, WrongType, losses, parse, read_commands
from backfill.errors import ConnectError, ScanError
from backfill.scan import scan, select
from backfill.values import State

from .model import Big, Look, Sample
from .needs import PROBE_KEY

BIGGEST = 10
PAGE = 500  # keys asked for at once
RESTORED = 8  # keys of each type that are tried on the target
READ = 200  # hashes and streams that are read whole, to see what the target cannot hold
SMALL_BYTES = 256 * 1024  # larger ones are not read
SMALL_ELEMENTS = 1000
REPLY_SECONDS = 30.0
TEMPORARY_MS = 60_000

LENGTHS = {b"list": b"LLEN", b"hash": b"HLEN", b"set": b"SCARD", b"zset": b"ZCARD", b"stream": b"XLEN"}
LOSSY = (b"hash", b"stream")  # types of which a target may be unable to hold something (see `losses`)

Progress = Callable[[int, int], None]  # keys seen, keys in all


async def look_at_keys(
    source: Look, target: Look, *, seconds: float, whole: bool, progress: Progress = lambda seen, total: None
) -> Sample:
    """A sample of the source's keys, for at most so many seconds; or, with `whole`, every key."""
    sizes = source.sizes
    found = Sample(total=sum(sizes.values()), in_bytes="MEMORY USAGE" not in source.refused)
    try:
        async with (
            Client.open(source.url.with_db(0), reply_timeout=REPLY_SECONDS) as client,
            Client.open(target.url, reply_timeout=REPLY_SECONDS) as other,
        ):
            sampler = _Sampler(source, target, client, other, found)
            for db, size in sizes.items():
                await select(client, db)
                deadline = time.monotonic() + seconds * size / max(1, found.total)
                async with aclosing(scan(client, count=PAGE)) as pages:
                    async for keys in pages:
                        await sampler.take(db, keys)
                        progress(found.seen, found.total)
                        if not whole and time.monotonic() > deadline:
                            break
    except (ConnectError, ConnectionLost, ScanError) as problem:
        found.problem = problem.text
    found.biggest.sort(key=lambda big: -big.size)
    return found


class _Sampler:
    """The walk's state."""

    def __init__(self, source: Look, target: Look, client: Client, other: Client, found: Sample) -> None:
        self._source, self._target = source, target
        self._client, self._other = client, other
        self._found = found
        self._heap: list[tuple[int, int, Big]] = []
        self._tried: Counter[bytes] = Counter()
        self._read: Counter[bytes] = Counter()
        self._key = PROBE_KEY + b":" + secrets.token_hex(8).encode()

    async def take(self, db: int, keys: list[bytes]) -> None:
        """One page of keys."""
        found = self._found
        kinds = [_kind(reply) for reply in await self._client.pipeline([[b"TYPE", key] for key in keys])]
        sizes = await self._client.pipeline([self._size(key, kind) for key, kind in zip(keys, kinds, strict=True)])
        for key, kind, size in zip(keys, kinds, sizes, strict=True):
            if kind == b"none":
                continue
            found.seen += 1
            name = kind.decode(errors="replace")
            found.kinds[name] = found.kinds.get(name, 0) + 1
            size = size if isinstance(size, int) else 0
            self._note_size(Big(db, key, name, size))
            if size <= (SMALL_BYTES if found.in_bytes or kind == b"string" else SMALL_ELEMENTS):
                await self._try_on_target(key, kind)
                await self._look_for_losses(key, kind)

    def _size(self, key: bytes, kind: bytes) -> list[bytes]:
        if self._found.in_bytes:
            return [b"MEMORY", b"USAGE", key]
        return [LENGTHS.get(kind, b"STRLEN"), key]

    def _note_size(self, big: Big) -> None:
        entry = (big.size, self._found.seen, big)
        if len(self._heap) < BIGGEST:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)
        self._found.biggest = [big for _, _, big in self._heap]

    async def _try_on_target(self, key: bytes, kind: bytes) -> None:
        """Whether the target's RESTORE takes what the source's DUMP gives."""
        self._tried[kind] += 1
        if self._tried[kind] > RESTORED or "DUMP" in self._source.refused:
            return
        payload = await self._client.call(b"DUMP", key)
        if not isinstance(payload, bytes):
            return
        temporary = b"%d" % TEMPORARY_MS
        reply, _ = await self._other.pipeline(
            [[b"RESTORE", self._key, temporary, payload, b"REPLACE"], [b"DEL", self._key]]
        )
        name = kind.decode(errors="replace")
        refusal = str(reply) if isinstance(reply, ReplyError) else ""
        self._found.restored[name] = self._found.restored.get(name) or refusal

    async def _look_for_losses(self, key: bytes, kind: bytes) -> None:
        """What of this key the target cannot hold."""
        if kind not in LOSSY or self._read[kind] >= READ:
            return
        self._read[kind] += 1
        version = (self._target.product, *self._target.version)
        state = await self._state(key, kind)
        if isinstance(state, State):
            for text in losses(state, target=self._target.commands, version=version):
                text = re.sub(r"^\d+ ", "", text)
                self._found.losses[text] = self._found.losses.get(text, 0) + 1

    async def _state(self, key: bytes, kind: bytes) -> Any:
        believed: bytes | WrongType = kind
        state: Any = None
        for _ in range(3):  # a hash with field deadlines takes two reads
            commands = read_commands(key, Form.STRUCT, believed, known=self._source.commands)
            replies = await self._client.transaction(commands)
            if not isinstance(replies, list):
                return None
            state = parse(key, Form.STRUCT, replies, believed)
            if not isinstance(state, WrongType):
                return state
            believed = state
        return state


def _kind(reply: Any) -> bytes:
    return reply if isinstance(reply, bytes) else str(reply).encode()
