"""Verify: both sides compared key by key, exactly, under live traffic.

Owns the comparison run. The read of a key goes down the lane; when its reply arrives, the same read is put in the
mirror queue. Both replies show the key at the same point of the order, so a difference is a difference, unless the key
is known to be dirty: then it is looked at again once its copy has settled. Extra keys are found by scanning the mirror
side. Memory does not grow with the number of keys.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from backfill.client import Client
from backfill.codec import Believed, Form, Unreadable, WrongType, parse, read_commands
from backfill.compare import Difference, Status, difference, show
from backfill.errors import BackfillError
from backfill.scan import databases, scan, select
from backfill.values import State
from proxy.dirty import Place
from proxy.filling import Work
from resp.frames import decode, elements

if TYPE_CHECKING:
    from proxy.server import Proxy

BATCH = 25  # keys read in one MULTI/EXEC: small enough not to hold up the commands behind it
AT_ONCE = 8  # batches under way
ATTEMPTS = 20  # at one key: its type changes, or it is dirty
PATIENCE_SECONDS = 10.0  # for a dirty key to settle before its difference counts
TOLERANCE_MS = 1000  # between two deadlines; the clocks' offset is taken off before
MAX_FINDINGS = 1000  # kept to be shown; all are counted


@dataclass(slots=True)
class Report:
    """What a verify found."""

    state: str = Work.IDLE.value
    checked: int = 0
    equal: int = 0
    missing: int = 0
    extra: int = 0
    type: int = 0
    ttl: int = 0
    value: int = 0
    unreadable: int = 0
    repaired: int = 0
    total: int = 0
    seconds: float = 0.0
    problem: str = ""
    findings: list[dict[str, Any]] = field(default_factory=list)

    @property
    def different(self) -> int:
        """Keys that are not equal, or could not be compared."""
        return self.missing + self.extra + self.type + self.ttl + self.value + self.unreadable

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Lost(BackfillError):
    """A side went away in the middle."""


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

    async def run(self, *, repair: bool = False, tolerance_ms: int = TOLERANCE_MS) -> None:
        """Compare everything; with `repair`, copy what differs and look again."""
        began = time.monotonic()
        report = self.report = Report(state=Work.RUNNING.value)
        try:
            await _Pass(self._proxy, report, repair, tolerance_ms).run()
        except BackfillError as problem:
            report.state, report.problem = Work.FAILED.value, problem.text
        else:
            report.state = Work.DONE.value
            self._proxy.verified_epoch = -1
            if not report.different:
                self._proxy.problems.pop("watch", None)
                self.clean_at, self._proxy.verified_epoch = time.time(), self._proxy.roles.epoch
        report.seconds = round(time.monotonic() - began, 3)


class _Pass:
    def __init__(self, proxy: Proxy, report: Report, repair: bool, tolerance_ms: int) -> None:
        self._proxy = proxy
        self._report = report
        self._repair = repair
        self._tolerance_ms = tolerance_ms
        self._slots = trio.Semaphore(AT_ONCE)
        self._lost: Lost | None = None

    async def run(self) -> None:
        proxy = self._proxy
        async with (
            Client.open(proxy.serving.url.with_db(0)) as serving,
            Client.open(proxy.mirror.url.with_db(0)) as mirror,
        ):
            sizes, there = await databases(serving), await databases(mirror)
            self._report.total = sum(sizes.values())
            for db in sizes:
                await select(serving, db)
                async for keys in scan(serving):
                    kinds = await serving.pipeline([[b"TYPE", key] for key in keys])
                    await self._check_all(db, keys, kinds)
            for db in there:
                await select(serving, db)
                await select(mirror, db)
                async for keys in scan(mirror):
                    found = await serving.pipeline([[b"EXISTS", key] for key in keys])
                    suspects = [key for key, exists in zip(keys, found, strict=True) if not exists]
                    await self._check_all(db, suspects, [None] * len(suspects))

    async def _check_all(self, db: int, keys: list[bytes], kinds: Sequence[Any]) -> None:
        async with trio.open_nursery() as nursery:
            for start in range(0, len(keys), BATCH):
                await self._slots.acquire()
                readings = [
                    Reading(key, kind if isinstance(kind, bytes) else None)
                    for key, kind in zip(keys[start : start + BATCH], kinds[start : start + BATCH], strict=True)
                ]
                nursery.start_soon(self._check_batch, db, readings)
        if self._lost is not None:
            raise self._lost

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
        self._report.checked += len(readings) - len(again)
        self._report.equal += len(readings) - len(again)
        async with trio.open_nursery() as nursery:
            for reading in again:
                nursery.start_soon(self._check, (db, reading.key), reading.believed)

    async def _check(self, place: Place, believed: Believed) -> None:
        try:
            found = await self._settled_difference(place, believed)
        except Lost as problem:
            self._lost = problem
            return
        report = self._report
        report.checked += 1
        if found is None:
            report.equal += 1
            return
        status = found.status.value if isinstance(found, Difference) else "unreadable"
        setattr(report, status, getattr(report, status) + 1)
        if len(report.findings) < MAX_FINDINGS:
            detail = found.detail if isinstance(found, Difference) else found.reason
            report.findings.append({"db": place[0], "key": show(place[1]), "status": status, "detail": detail})

    async def _settled_difference(self, place: Place, believed: Believed) -> Difference | Unreadable | None:
        """A difference that is not merely a copy on its way."""
        repaired = False
        give_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            found, was_dirty = await self._compare(place, believed)
            if not isinstance(found, Difference):
                break
            if was_dirty:
                if time.monotonic() > give_up:
                    break
                await trio.sleep(0.05)
            elif self._repair and not repaired:
                repaired = True
                self._proxy.hub.repair.mark_unordered(place, "found different by verify")
                self._proxy.hub.flush()
            else:
                break
            believed = None
        if repaired and found is None:
            self._report.repaired += 1
        return found

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
            text = f"{left.kind.decode()} here, {right.actual.decode()} on the mirror side"
            return Difference(reading.key, Status.TYPE, text)
        return difference(left, right, shift_ms=self._proxy.roles.shift_ms, tolerance_ms=self._tolerance_ms)

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
