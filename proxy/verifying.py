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

AT_ONCE = 200  # keys being compared at the same time
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
            for key, kind in zip(keys, kinds, strict=True):
                await self._slots.acquire()
                nursery.start_soon(self._check, (db, key), kind if isinstance(kind, bytes) else None)
        if self._lost is not None:
            raise self._lost

    async def _check(self, place: Place, believed: Believed) -> None:
        try:
            found = await self._settled_difference(place, believed)
        except Lost as problem:
            self._lost = problem
            return
        finally:
            self._slots.release()
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
        roles = self._proxy.roles
        for _ in range(ATTEMPTS):
            left, right, dirty = await self._read_both(place, believed)
            if isinstance(left, Unreadable):
                return left, dirty
            if isinstance(left, WrongType):
                believed = left
                continue
            if isinstance(right, Unreadable):
                return right, dirty
            if isinstance(right, WrongType):
                if left.missing or right.actual == left.kind:  # the type, or the fields to ask for, are known now
                    believed = right
                    continue
                text = f"{left.kind.decode()} here, {right.actual.decode()} on the mirror side"
                return Difference(place[1], Status.TYPE, text), dirty
            return difference(left, right, shift_ms=roles.shift_ms, tolerance_ms=self._tolerance_ms), dirty
        return Unreadable("its type changes faster than it can be read"), False

    async def _read_both(
        self, place: Place, believed: Believed
    ) -> tuple[State | WrongType | Unreadable, State | WrongType | Unreadable, bool]:
        """The key on both sides, at the same point of the order; and whether it was dirty when either was read. That
        is asked when the replies come: by the time this task runs, the key may have been repaired."""
        hub, roles = self._proxy.hub, self._proxy.roles
        db, key = place
        done = trio.Event()
        frames: list[bytes | None] = []
        right_believed: list[Believed] = []
        dirty: list[bool] = []

        def on_mirror(frame: bytes | None) -> None:
            frames.append(frame)
            dirty.append(place in hub.repair.keys)
            done.set()

        def on_serving(frame: bytes | None) -> None:
            frames.append(frame)
            dirty.append(place in hub.repair.keys)
            left = _parsed(key, frame, believed)
            if not isinstance(left, State):
                done.set()
                return
            known = isinstance(believed, WrongType) and (left.missing or believed.actual == left.kind)
            right_believed.append(believed if known else left.kind)
            commands = read_commands(key, Form.STRUCT, right_believed[0], known=roles.mirror_facts.commands)
            hub.mirror.call(db, commands, on_mirror)

        hub.lane.call(db, read_commands(key, Form.STRUCT, believed, known=roles.serving_facts.commands), on_serving)
        hub.flush()
        await done.wait()
        if None in frames:
            raise Lost("a connection was lost in the middle: run it again")
        left = _parsed(key, frames[0], believed)
        right = _parsed(key, frames[1], right_believed[0]) if right_believed else left
        return left, right, any(dirty)


def _parsed(key: bytes, frame: bytes | None, believed: Believed) -> State | WrongType | Unreadable:
    if frame is None:
        return Unreadable("connection lost")
    if frame.startswith(b"-"):
        return Unreadable(frame[1:-2].decode(errors="replace"))
    return parse(key, Form.STRUCT, [decode(element) for element in elements(frame)], believed)
