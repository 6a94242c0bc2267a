"""Verify: both sides compared key by key, exactly, under live traffic.

Owns the comparison run. The read of a key goes down the lane; when its reply arrives, the same read is put in the
mirror queue. Both replies show the key at the same point of the order, so a difference is a difference, unless the key
is known to be dirty: then it is looked at again once its copy has settled. Extra keys are found by scanning the mirror
side. A big key is compared page by page (`verifying_pages.py`). Memory does not grow with the number of keys.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import trio

from backfill.client import Client
from backfill.codec import Believed, Form, Unreadable, WrongType, parse, read_commands
from backfill.compare import Difference, Status, difference, show
from backfill.counts import Counts, verdict
from backfill.errors import BackfillError
from backfill.findings import Finding
from backfill.scan import databases, scan, select
from backfill.values import State
from proxy.bigkeys import PAGE_BYTES, sizing
from proxy.bigkeys.copying import PAGERS
from proxy.dirty import Place
from proxy.onepoint import Lost
from proxy.progress import Work
from proxy.verifying_pages import PagedVerify
from resp.frames import decode, elements

if TYPE_CHECKING:
    from proxy.server import Proxy

log = logging.getLogger("crossfade")

Pace = Callable[[float], Awaitable[bool]]
"""Called before so many keys are read; False ends the run."""

BATCH = 25  # keys read in one MULTI/EXEC, of PAGE_BYTES at most: small enough not to hold up the commands behind it
AT_ONCE = 8  # batches under way
ATTEMPTS = 20  # at one key: its type changes, or it is dirty
PATIENCE_SECONDS = 10.0  # for a dirty key to settle before its difference counts
TOLERANCE_MS = 1000  # between two deadlines; the clocks' offset is taken off before
MAX_FINDINGS = 1000  # kept to be shown; all are counted
MAX_FINDINGS_BYTES = 1024 * 1024  # of the names of their keys
KEY_BYTES = 10_000  # a big key counts as one for each so many bytes
SECOND_LOOK_SECONDS = 1.0  # of a run in the background, at a difference: what others change is told a moment later
MAX_LOGGED = 20  # keys named in the log by one run in the background


@dataclass(slots=True)
class Report(Counts):
    """What a verify found."""

    state: str = Work.IDLE.value
    repaired: int = 0
    sample: int = 0  # so many keys were to be looked at, drawn at random; 0: all
    total: int = 0
    seconds: float = 0.0
    problem: str = ""
    findings: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Terms:
    """How a verify is wanted."""

    repair: bool = False  # copy what differs, and look again
    tolerance_ms: int = TOLERANCE_MS
    sample: int = 0  # look at so many keys only, drawn at random
    findings: Path | None = None  # a file that gets every finding as a line of JSON
    pace: Pace | None = None  # it is a run in the background


class Verifying:
    """One verify at a time."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.report = Report()
        self.clean_at = 0.0  # time.time() when the last complete pass without a difference ended

    def __repr__(self) -> str:
        return f"<Verifying {self.report.state} checked={self.report.checked} different={self.report.different}>"

    @property
    def running(self) -> bool:
        return self.report.state == Work.RUNNING.value

    def failed(self, problem: str) -> None:
        """It broke."""
        self.report.state, self.report.problem = Work.FAILED.value, problem

    async def run(self, terms: Terms = Terms()) -> None:
        """Compare everything, or a sample."""
        began, gap, epoch = time.monotonic(), self._proxy.problems.get("watch"), self._proxy.roles.epoch
        report = self.report = Report(state=Work.RUNNING.value, sample=terms.sample)
        try:
            with _Findings(report, terms.findings) as findings:
                await _Pass(self._proxy, report, terms, findings).run()
        except BackfillError as problem:
            report.state, report.problem = Work.FAILED.value, problem.text
        except OSError as problem:
            report.state = Work.FAILED.value
            report.problem = f"the findings cannot be written to {terms.findings}: {problem.strerror}"
        else:
            report.state = Work.DONE.value
            if report.different:
                self._proxy.verified_epoch = -1
            elif not terms.sample and gap == self._proxy.problems.get("watch"):  # none has come meanwhile
                self._proxy.problems.pop("watch", None)
                self.clean_at, self._proxy.verified_epoch = time.time(), epoch
        report.seconds = round(time.monotonic() - began, 3)


class _Findings:
    """What differs: some of it in the report, all of it in the file, if one is wanted."""

    def __init__(self, report: Report, path: Path | None) -> None:
        self._report = report
        self._path = path
        self._file: IO[str] | None = None
        self._room = MAX_FINDINGS_BYTES

    def __enter__(self) -> _Findings:
        if self._path is not None:
            self._file = open(self._path, "w", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, place: Place, status: str, detail: str) -> None:
        finding = Finding(*place, status, detail).to_json()
        self._room -= len(place[1])
        if len(self._report.findings) < MAX_FINDINGS and self._room >= 0:
            self._report.findings.append(finding)
        if self._file is not None:
            self._file.write(json.dumps(finding) + "\n")
            self._file.flush()


class _Pass:
    def __init__(self, proxy: Proxy, report: Report, terms: Terms, findings: _Findings) -> None:
        self._proxy = proxy
        self._report = report
        self._repair = terms.repair
        self._tolerance_ms = terms.tolerance_ms
        self._sample = terms.sample
        self._findings = findings
        self._by_samples = False  # MEMORY USAGE is refused there
        self._pace = terms.pace
        self._slots = trio.Semaphore(AT_ONCE)
        self._lost: Lost | None = None
        self._logged = 0

    async def run(self) -> None:
        proxy = self._proxy
        async with (
            Client.open(proxy.serving.url.with_db(0)) as serving,
            Client.open(proxy.mirror.url.with_db(0)) as mirror,
        ):
            sizes, there = await databases(serving), await databases(mirror)
            total = sum(sizes.values())
            self._report.total = min(total, self._sample) if self._sample else total
            for db in sizes:
                await select(serving, db)
                async for keys in scan(serving):
                    wanted = self._drawn(keys, self._sample, total)
                    await self._check_all(db, wanted, await self._look(serving, wanted))
            for db in there:
                await select(serving, db)
                await select(mirror, db)
                async for keys in scan(mirror):
                    await self._keep_pace(len(keys) / BATCH)
                    if self._lost is not None:
                        raise self._lost
                    keys = self._drawn(keys, self._sample, sum(there.values()))
                    found = await serving.pipeline([[b"EXISTS", key] for key in keys])
                    suspects = [key for key, exists in zip(keys, found, strict=True) if not exists]
                    await self._check_all(db, suspects, [(0, None)] * len(suspects))

    @staticmethod
    def _drawn(keys: list[bytes], sample: int, total: int) -> list[bytes]:
        """Each key with the same chance, so that about `sample` of all are looked at."""
        if not sample:
            return keys
        return [key for key in keys if random.random() * max(1, total) < sample]

    async def _look(self, serving: Client, keys: list[bytes]) -> list[tuple[int, bytes | None]]:
        """Size and type of each key."""
        if not self._by_samples:
            replies = await serving.pipeline([args for key in keys for args in sizing.by_memory(key)])
            found = [sizing.parse_memory(replies[at : at + 2]) for at in range(0, len(replies), 2)]
            if None not in found:
                return [one for one in found if one is not None]
            self._by_samples = True
        return [sizing.parse_samples(await serving.pipeline(sizing.by_samples(key))) for key in keys]

    async def _check_all(self, db: int, keys: list[bytes], looks: list[tuple[int, bytes | None]]) -> None:
        big = self._proxy.hub.repair.big_bytes
        small: list[tuple[Reading, int]] = []
        async with trio.open_nursery() as nursery:
            for key, (size, kind) in zip(keys, looks, strict=True):
                if size > big and kind in PAGERS:
                    await self._keep_pace(size / KEY_BYTES)
                    await self._slots.acquire()
                    nursery.start_soon(self._check_big, (db, key), kind)
                else:
                    small.append((Reading(key, kind), size))
            for readings in _batches(small):
                await self._keep_pace(len(readings))
                if self._lost is not None:
                    break
                await self._slots.acquire()
                nursery.start_soon(self._check_batch, db, readings)
        if self._lost is not None:
            raise self._lost

    async def _keep_pace(self, keys: float) -> None:
        """In the background: wait as long as it has to before so many keys are read."""
        if self._pace is not None and not await self._pace(keys):
            self._lost = Lost("given up: the sides were swapped, or a backfill is due")

    async def _check_big(self, place: Place, kind: bytes) -> None:
        try:
            await self._check(place, None, kind)
        finally:
            self._slots.release()

    async def _check_batch(self, db: int, readings: list[Reading]) -> None:
        """Several keys in one go; what is not simply equal is looked at again, key by key."""
        try:
            await self._read_both(db, readings)
        except Lost as problem:
            self._lost = problem
            return
        finally:
            self._slots.release()
        again = [reading for reading in readings if self._judge(reading) is not None]
        self._report.are_equal(len(readings) - len(again))
        async with trio.open_nursery() as nursery:
            for reading in again:
                nursery.start_soon(self._check, (db, reading.key), reading.believed)

    async def _check(self, place: Place, believed: Believed, big: bytes | None = None) -> None:
        """One key; `big`: its type, if it is to be read in pages."""
        try:
            found = await self._settled_difference(place, believed, big)
        except Lost as problem:
            self._lost = problem
            return
        if found is None:
            self._report.are_equal(1)
            return
        status, detail = verdict(found)
        self._report.found(status)
        self._findings.add(place, status, detail)

    async def _settled_difference(
        self, place: Place, believed: Believed, big: bytes | None
    ) -> Difference | Unreadable | None:
        """A difference that is not merely a copy on its way."""
        repaired, looked_again = False, self._pace is None
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            if big is None:
                found, was_dirty = await self._compare(place, believed)
            else:
                paged = PagedVerify(self._proxy, place, big, self._tolerance_ms)
                found, was_dirty = await paged.run(), paged.dirty
                if paged.changed:
                    big = None
                    continue
            if not isinstance(found, Difference):
                break
            if was_dirty:
                if time.monotonic() > give_up and place not in self._proxy.hub.repair.copies_in_pages:
                    why = self._proxy.hub.repair.keys.reason(place)
                    found = replace(found, detail=f"{found.detail} (dirty all the time: {why})")
                    break
                await trio.sleep(0.05)
            elif not looked_again:
                looked_again = True
                await trio.sleep(SECOND_LOOK_SECONDS)
            elif self._repair and not repaired:
                repaired = True
                if self._pace is not None:
                    self._log(place, found)
                self._proxy.hub.repair.mark_unordered(place, "found different by verify")
                self._proxy.hub.flush()
            else:
                break
            believed = None
        if repaired and found is None:
            self._report.repaired += 1
        return found

    def _log(self, place: Place, found: Difference) -> None:
        self._logged += 1
        if self._logged <= MAX_LOGGED:
            what = f"{found.status.value}: {found.detail}"
            log.warning("db %d %s differs (%s): copied again", place[0], show(place[1]), what)

    async def _compare(self, place: Place, believed: Believed) -> tuple[Difference | Unreadable | None, bool]:
        """What differs, and whether the key was dirty while it was read."""
        for _ in range(ATTEMPTS):
            reading = Reading(place[1], believed)
            await self._read_both(place[0], [reading])
            found = self._judge(reading)
            if not isinstance(found, WrongType):
                return found, reading.dirty
            believed = found
        return Unreadable("its type changes faster than it can be read"), False

    def _judge(self, reading: Reading) -> Difference | Unreadable | WrongType | None:
        """What differs; WrongType when it must be read again with that."""
        left, right = reading.left, reading.right
        if not isinstance(left, State):
            return left
        if isinstance(right, Unreadable):
            return right
        if isinstance(right, WrongType):
            if left.missing or right.actual == left.kind:  # the type, or the fields to ask for, are known now
                return right
            serving, mirror = self._proxy.roles.names
            text = f"{left.kind.decode()} on the {serving}, {right.actual.decode()} on the {mirror}"
            return Difference(reading.key, Status.TYPE, text)
        roles = self._proxy.roles
        return difference(left, right, shift_ms=roles.shift_ms, tolerance_ms=self._tolerance_ms, names=roles.names)

    async def _read_both(self, db: int, readings: list[Reading]) -> None:
        """The keys on both sides, at the same point of the order. Errors: Lost."""
        hub, roles = self._proxy.hub, self._proxy.roles
        await hub.until(lambda: not hub.flipping)
        done = trio.Event()
        lost: list[bool] = []

        def on_mirror(frame: bytes | None) -> None:
            lost.append(frame is None)
            _take_in(frame, mirrored, [reading.right_commands for reading in mirrored], left=False)
            self._note_dirt(db, mirrored)
            done.set()

        def on_serving(frame: bytes | None) -> None:
            lost.append(frame is None)
            _take_in(frame, readings, commands, left=True)
            self._note_dirt(db, readings)
            mirrored.extend(reading for reading in readings if isinstance(reading.left, State))
            for reading in mirrored:
                reading.expect(known=roles.mirror_facts.commands)
            if mirrored:
                hub.mirror.call(db, [args for reading in mirrored for args in reading.right_commands], on_mirror)
            else:
                done.set()

        mirrored: list[Reading] = []
        known = roles.serving_facts.commands
        commands = [read_commands(one.key, Form.STRUCT, one.believed, known=known) for one in readings]
        hub.lane.call(db, [args for one in commands for args in one], on_serving)
        hub.flush()
        await done.wait()
        if any(lost):
            raise Lost("a connection was lost in the middle: run it again")

    def _note_dirt(self, db: int, readings: list[Reading]) -> None:
        """Asked when the replies come: by the time that the task runs, a key may have been repaired."""
        for reading in readings:
            reading.dirty = reading.dirty or (db, reading.key) in self._proxy.hub.repair.keys


def _batches(readings: list[tuple[Reading, int]]) -> Iterator[list[Reading]]:
    """Keys to be read in one go, by number and bytes."""
    batch: list[Reading] = []
    size = 0
    for reading, own in readings:
        if batch and (len(batch) >= BATCH or size + own > PAGE_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(reading)
        size += own
    if batch:
        yield batch


Seen = State | WrongType | Unreadable
NOT_READ = Unreadable("not read")


@dataclass(slots=True)
class Reading:
    """One key, read on both sides."""

    key: bytes
    believed: Believed
    left: Seen = NOT_READ
    right: Seen = NOT_READ
    right_believed: Believed = None
    right_commands: list[list[bytes]] = field(default_factory=list)
    dirty: bool = False  # while it was read

    def expect(self, *, known: frozenset[bytes]) -> None:
        """Prepare the read on the mirror side by what was seen on the serving side."""
        assert isinstance(self.left, State)
        fits = isinstance(self.believed, WrongType) and (self.left.missing or self.believed.actual == self.left.kind)
        self.right_believed = self.believed if fits else self.left.kind
        self.right_commands = read_commands(self.key, Form.STRUCT, self.right_believed, known=known)


def _take_in(
    frame: bytes | None, readings: list[Reading], commands: Sequence[Sequence[Sequence[bytes]]], *, left: bool
) -> None:
    """Give each key its part of the EXEC reply."""
    failed = Unreadable("connection lost")
    replies: list[bytes] = []
    if frame is not None:
        replies = elements(frame) if frame.startswith(b"*") else []
        failed = Unreadable(frame[1:-2].decode(errors="replace")[:200])
    whole = len(replies) == sum(map(len, commands))
    position = 0
    for reading, own in zip(readings, commands, strict=True):
        part = [decode(reply) for reply in replies[position : position + len(own)]]
        position += len(own)
        if left:
            reading.left = parse(reading.key, Form.STRUCT, part, reading.believed) if whole else failed
        else:
            reading.right = parse(reading.key, Form.STRUCT, part, reading.right_believed) if whole else failed
