"""The backfill through a running proxy: every key of the serving side is copied in the lane, under live traffic.

Owns the walk over the keys and the progress. A found key is merely marked for a state copy; the copy itself is the
repair's, which makes it exact (see DESIGN, "The one idea"). When the serving side has been walked through, the mirror
side is: what it has and the serving side does not becomes dirty, so that it is deleted. Restarts when the whole order
was lost meanwhile (SWAPDB, a barrier that failed).
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import trio

from backfill.client import Client, ConnectionLost, ReplyError
from backfill.errors import BackfillError, ConnectError, ScanError
from backfill.scan import databases, scan, select
from proxy.dirty import Place

if TYPE_CHECKING:
    from proxy.server import Proxy

log = logging.getLogger("crossfade")

WINDOW = 2000  # keys found but not yet copied; more would only be memory
SETTLE_SECONDS = 0.2  # how often the end of the last copies is looked at
AGAIN_SECONDS = 1.0  # after a lost connection
GIVE_UP_SECONDS = 30.0  # without any progress at the end, what is left has failed


class Work(Enum):
    """What a backfill or a verify is doing."""

    IDLE = "idle"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(slots=True)
class Progress:
    """What `status` shows of the backfill."""

    state: str = Work.IDLE.value
    scanned: int = 0  # keys found on the serving side
    copied: int = 0  # of them acknowledged by the mirror side
    failed: int = 0  # of them not copied when it ended
    total: int = 0  # keys when it began
    extra: int = 0  # keys only the mirror side had
    seconds: float = 0.0
    problem: str = ""
    complete: bool = False  # it covered everything: the phase may leave `filling`
    failures: list[str] = field(default_factory=list)  # some of what failed, with the reason

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to copy, how fast."""

    match: bytes | None = None
    rate: float = 0.0  # keys a second; 0: as fast as it goes


class Filling:
    """One backfill at a time."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.progress = Progress()
        self._pending: set[Place] = set()
        proxy.hub.repair.cleaned = self._cleaned

    def __repr__(self) -> str:
        return f"<Filling {self.progress.state} scanned={self.progress.scanned} pending={len(self._pending)}>"

    @property
    def running(self) -> bool:
        return self.progress.state == Work.RUNNING.value

    def failed(self, problem: str) -> None:
        """It broke."""
        self.progress.state, self.progress.problem = Work.FAILED.value, problem

    def _cleaned(self, place: Place) -> None:
        if place in self._pending:
            self._pending.remove(place)
            self.progress.copied += 1

    async def run(self, plan: Plan) -> None:
        """Copy everything. The outcome is in `progress`."""
        began = time.monotonic()
        unmirrored = self._proxy.hub.recorder.unmirrored.copy()
        while True:
            refills = self._proxy.refills
            self.progress = Progress(state=Work.RUNNING.value)
            self._pending.clear()
            try:
                await self._fill(plan, began)
            except (ConnectionLost, ConnectError) as problem:
                log.warning("backfill: %s; it begins again when both sides are there", problem.text)
                self.progress.problem = problem.text
                await self._both_there()
                continue
            except BackfillError as problem:
                self._end(Work.FAILED, problem.text, began)
                return
            if refills == self._proxy.refills:
                break
        left = sorted(self._pending)
        self.progress.failed = len(left)
        reasons = {place: mark.reason for place, mark in self._proxy.hub.repair.keys.failing(1000)}
        self.progress.failures = [
            f"db {db} {key!r}: {reasons.get((db, key), 'not copied yet')}" for db, key in left[:20]
        ]
        self._pending.clear()
        if left:
            self._end(Work.FAILED, f"{len(left):,} keys could not be copied", began)
            return
        if plan.match is None:
            self.progress.complete = True
            self._proxy.remember_now(backfilled=True, filled=True, filling=False)
            self._proxy.problems.pop("filling", None)
            self._proxy.hub.recorder.copied_all(unmirrored)
        self._end(Work.DONE, "", began)

    async def _both_there(self) -> None:
        hub = self._proxy.hub
        await trio.sleep(AGAIN_SECONDS)
        await hub.until(lambda: hub.lane.link is not None and hub.mirror.link is not None)

    def _end(self, work: Work, problem: str, began: float) -> None:
        self.progress.state = work.value
        self.progress.problem = problem
        self.progress.seconds = round(time.monotonic() - began, 3)

    async def _fill(self, plan: Plan, began: float) -> None:
        proxy = self._proxy
        refills, swaps = self._order()
        async with Client.open(proxy.serving.url.with_db(0)) as client:
            sizes = await databases(client)
            self.progress.total = sum(sizes.values())
            for db in sizes:
                await select(client, db)
                async for keys in scan(client, match=plan.match):
                    await self._take(db, keys, plan, began)
                    if refills != proxy.refills:
                        return
                    if swaps != proxy.hub.repair.swaps:  # the keys behind our back are in another db now
                        proxy.refills += 1
                        return
            await self._finish_copies()
            if plan.match is None:
                if proxy.hub.repair.frozen:
                    raise BackfillError(proxy.hub.repair.frozen)
                await self._extras(client)
                await self._finish_copies()

    def _order(self) -> tuple[int, int]:
        """Changes when what has been scanned says nothing any more."""
        return self._proxy.refills, self._proxy.hub.repair.swaps

    async def _take(self, db: int, keys: list[bytes], plan: Plan, began: float) -> None:
        """Mark the keys of one page, in portions that the window has room for."""
        hub, progress = self._proxy.hub, self.progress
        order = self._order()
        for start in range(0, len(keys), 100):
            await hub.until(lambda: not hub.flipping and (len(self._pending) < WINDOW or self._order() != order))
            for key in keys[start : start + 100]:
                place = (db, key)
                if place not in self._pending:
                    self._pending.add(place)
                    progress.scanned += 1
                    hub.repair.mark_unordered(place, "backfill", lag=True)
            hub.flush()
            progress.seconds = round(time.monotonic() - began, 3)
            if plan.rate:
                ahead = progress.scanned / plan.rate - (time.monotonic() - began)
                await trio.sleep(max(0.0, ahead))

    async def _finish_copies(self) -> None:
        """Until every found key is clean, or nothing moves any more."""
        last, since = -1, time.monotonic()
        while self._pending:
            if self.progress.copied != last:
                last, since = self.progress.copied, time.monotonic()
            if time.monotonic() - since > GIVE_UP_SECONDS:
                return
            await trio.sleep(SETTLE_SECONDS)

    async def _extras(self, serving: Client) -> None:
        """Keys that only the mirror side has: expired, evicted or deleted meanwhile, or there from the start."""
        proxy = self._proxy
        try:
            async with Client.open(proxy.mirror.url.with_db(0)) as mirror:
                for db in await databases(mirror):
                    await select(mirror, db)
                    await select(serving, db)
                    async for keys in scan(mirror):
                        there = await serving.pipeline([[b"EXISTS", key] for key in keys])
                        if problem := next((reply for reply in there if isinstance(reply, ReplyError)), None):
                            raise ScanError(f"EXISTS: {problem}")
                        for key, found in zip(keys, there, strict=True):
                            if found == 0:
                                self.progress.extra += 1
                                proxy.hub.repair.mark_unordered((db, key), "only on the mirror side", lag=True)
                        proxy.hub.flush()
                        await proxy.hub.until(lambda: len(proxy.hub.repair.keys) < WINDOW)
        except (ConnectionLost, ScanError) as problem:
            raise type(problem)(f"looking for extra keys on the {proxy.mirror.name.value}: {problem.text}") from None
