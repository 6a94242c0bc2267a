"""What the ferry does: scan a page, ask for the sizes, cross with the small keys, leave the others to the lane.

Owns the order of the pages (they are told in the order of the scan) and how much is under way: DEPTH crossings, each
read in blocks so that the serving side is never held for more than a moment.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiredis
import trio

from backfill.direct import bulk
from backfill.direct.pipe import Pipe
from backfill.errors import BackfillError, ScanError
from proxy import together
from proxy.ferry.words import selection_of, text_of
from proxy.journal import forget_crossing, note_crossing
from resp.encode import encode

KEYS = 1000  # of a page, about; a crossing has not more: the proxy hears and judges so many in 0.2 ms
BYTES = 512 * 1024  # of a crossing, as MEMORY USAGE has it
SCANNED = 128  # keys of one SCAN,
BLOCK = 64  # or whose size is asked for, or that are read, in one go: clients wait for 0.1 ms at most
DEPTH = 4  # crossings under way: while some are read, others are written
SKEW_MS = 100  # clocks further apart: deadlines of fields inside a payload would be wrong by that much


@dataclass(frozen=True, slots=True)
class Page:
    """The keys of some SCANs, and the position (as in `Position`, for JSON) at its beginning and behind its end."""

    db: int
    keys: list[bytes]
    begin: dict[str, Any]
    end: dict[str, Any]


class Walk:
    """One journey. `tell` sends a message to the proxy."""

    def __init__(self, journey: dict[str, Any], source: Pipe, target: Pipe, tell: Any) -> None:
        self._source, self._target = source, target
        self._tell = tell
        self._selection = selection_of(journey["selection"])
        self._journal = Path(journey["journal"])
        self._absolute = journey["absolute"]
        self._dbs = journey["dbs"]
        self._start = journey["start"]
        self._leaves: dict[int, trio.Event] = {}
        self._shift_ms = 0
        self._number = 0
        self._room = trio.Semaphore(DEPTH)

    def __repr__(self) -> str:
        return f"<Walk {self._number} crossings, {len(self._leaves)} wait>"

    def go(self, number: int, shift_ms: int) -> None:
        """The proxy lets a crossing begin."""
        self._shift_ms = shift_ms
        self._leaves.pop(number).set()

    def closed(self, number: int) -> None:
        """The proxy has judged it, and has noted what is to be copied again."""
        forget_crossing(self._journal, _file(number))

    async def run(self) -> None:
        """All dbs. Errors: BackfillError."""
        found, pages = trio.open_memory_channel[Page](1)  # one is scanned while the keys of another are asked for
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._scan, found)
            async for page in pages:
                await self._take(nursery, page)

    async def _scan(self, found: trio.MemorySendChannel[Page]) -> None:
        done = list(self._start["done"])
        async with found:
            for db in self._dbs:
                await self._source.enter(db)
                await self._target.enter(db)
                cursor = self._start["cursor"].encode() if db == self._start["db"] else b"0"
                while True:
                    keys, following = await self._page(db, cursor)
                    begin = {"db": db, "cursor": cursor.decode(), "done": done}
                    end = {"db": db, "cursor": following.decode(), "done": done}
                    if following == b"0":
                        done = [*done, db]
                        end = {"db": -1, "cursor": "0", "done": done}
                    await found.send(Page(db, keys, begin, end))
                    cursor = following
                    if cursor == b"0":
                        break

    async def _page(self, db: int, cursor: bytes) -> tuple[list[bytes], bytes]:
        """The keys that are meant of some SCANs, and where the next page begins."""
        keys: dict[bytes, None] = {}
        for _ in range(KEYS // SCANNED):  # not more, however few of the keys are meant: the checkpoint is to advance
            command = [b"SCAN", cursor, *self._selection.scan_options(), b"COUNT", b"%d" % SCANNED]
            (reply,) = await self._source.send(encode(command), 1, db).wait()
            if isinstance(reply, hiredis.ReplyError):
                raise ScanError(f"SCAN: {reply}")
            cursor, found = reply
            keys |= dict.fromkeys(self._selection.filter(found))
            if cursor == b"0":
                break
        return list(keys), cursor

    async def _take(self, nursery: trio.Nursery, page: Page) -> None:
        """Cross with the keys of one page, in as many crossings as it takes; the last one is the end of the page."""
        db, keys = page.db, page.keys
        small, sizes, left = await self._look(db, keys)
        ends = bulk.cut(sizes, KEYS, BYTES) if small else [0]
        start = 0
        for index in ends:
            await self._room.acquire()
            part = small[start:index]
            last = index == ends[-1]
            self._number += 1
            self._note(self._number, db, part)
            leave = self._leaves[self._number] = trio.Event()
            self._tell(
                {
                    "is": "open",
                    "number": self._number,
                    "db": db,
                    "keys": text_of(part),
                    "size": sum(sizes[start:index]),
                    "left": text_of(left) if last else [],
                    "left_sizes": list(left.values()) if last else [],
                    "end": page.end if last else page.begin,
                }
            )
            nursery.start_soon(self._cross, self._number, db, part, leave)
            start = index

    def _note(self, number: int, db: int, keys: list[bytes]) -> None:
        """So that a start of the proxy knows of them, whatever becomes of both processes."""
        try:
            note_crossing(self._journal, _file(number), db, keys)
        except OSError as problem:
            raise BackfillError(f"its keys cannot be written to the journal: {problem.strerror}") from None

    async def _look(self, db: int, keys: list[bytes]) -> tuple[list[bytes], list[int], dict[bytes, int]]:
        """The small keys of those that are meant, their sizes, and the other keys with theirs (0: not known)."""
        types = self._selection.types if len(self._selection.types) > 1 else frozenset()
        found: list[Any] = []
        kinds: list[Any] = []
        for start in range(0, len(keys), BLOCK):
            names = bulk.encoded(keys[start : start + BLOCK])
            replies = await self._source.send(*bulk.probe(names, types=bool(types)), db).wait()
            found += replies[: len(names)]
            kinds += replies[len(names) :]
        if types:
            pairs = [(key, size) for key, size, kind in zip(keys, found, kinds, strict=True) if kind in types]
            keys, found = [key for key, _ in pairs], [size for _, size in pairs]
        if not set(map(type, found)) <= {int} or max(found, default=0) > together.BYTES:
            sizes = {key: size if isinstance(size, int) else 0 for key, size in zip(keys, found, strict=True)}
            left = {key: size for key, size in sizes.items() if not 0 < size <= together.BYTES}
            keys = [key for key in keys if key not in left]
            return keys, [sizes[key] for key in keys], left
        return keys, found, {}

    # -- one crossing --------------------------------------------------------------------------------------------

    async def _cross(self, number: int, db: int, keys: list[bytes], leave: trio.Event) -> None:
        await leave.wait()
        left = await self._copy(db, keys) if keys else []
        self._tell({"is": "close", "number": number, "left": text_of(left)})
        self._room.release()

    async def _copy(self, db: int, keys: list[bytes]) -> list[bytes]:
        """Which of them are left to the lane."""
        left: list[bytes] = []
        tickets = []
        for start in range(0, len(keys), BLOCK):
            part = keys[start : start + BLOCK]
            names = bulk.encoded(part)
            data, count = bulk.read_apart(names, absolute=self._absolute)
            replies = await self._source.send(data, count, db).wait()
            found = bulk.parse_apart(len(part), replies, absolute=self._absolute)
            if found is None:
                left += part
                continue
            deadlines, payloads = found
            if not all(map(self._fits, payloads)):
                fit = [index for index, payload in enumerate(payloads) if self._fits(payload)]
                left += [key for key, payload in zip(part, payloads, strict=True) if not self._fits(payload)]
                part, names = [part[index] for index in fit], [names[index] for index in fit]
                deadlines, payloads = [deadlines[index] for index in fit], [payloads[index] for index in fit]
            if part:
                data = bulk.restores(names, deadlines, payloads, self._shift_ms)
                tickets.append((part, self._target.send(data, len(part), db)))
        for part, ticket in tickets:
            left += self._refused(part, await ticket.wait())
        return left

    def _fits(self, payload: bytes | None) -> bool:
        """Whether it is written as it is: not what is gone, or has grown, or has deadlines inside that are wrong."""
        if payload is None or len(payload) > together.BYTES:
            return False
        return abs(self._shift_ms) <= SKEW_MS or payload[0] not in bulk.WITH_FIELD_DEADLINES

    @staticmethod
    def _refused(keys: Sequence[bytes], replies: Sequence[Any]) -> list[bytes]:
        if hiredis.ReplyError not in set(map(type, replies)):
            return []
        refused = [key for key, reply in zip(keys, replies, strict=True) if isinstance(reply, hiredis.ReplyError)]
        if len(refused) == len(keys):
            raise BackfillError(f"the mirror side takes no payload: {replies[0]}")
        return refused


def _file(number: int) -> str:
    """The name of a crossing's file."""
    return f"{os.getpid()}-{number}"
