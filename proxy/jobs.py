"""What an operator can have running: a backfill, a verify, a flip; and the status of everything.

Owns that there is one of each at a time, and the status document (its fields are a contract, see DESIGN).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from proxy.filling import Filling, Plan
from proxy.finish import FINISHED, End, finish, mirror_again
from proxy.flip import Outcome, Terms, flip
from proxy.problems import look
from proxy.progress import Work
from proxy.scrubbing import Scrub
from proxy.unheld import counted, review
from proxy.verifying import Terms as VerifyTerms
from proxy.verifying import Verifying

if TYPE_CHECKING:
    from proxy.server import Proxy


log = logging.getLogger("crossfade")


REFILL_SECONDS = 1.0  # how often it is looked whether a backfill is due


class Busy(Exception):
    """Not now; `text` says why: such a job is running already, or mirroring was ended."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


async def _guarded(name: str, work: Callable[[], Awaitable[None]], failed: Callable[[str], None]) -> None:
    """A job that breaks ends alone: the proxy serves on."""
    try:
        await work()
    except Exception as problem:
        log.exception("%s broke", name)
        failed(f"broke: {problem!r} (see the log)")


class Jobs:
    """The long-running work of one proxy."""

    def __init__(self, proxy: Proxy, nursery: trio.Nursery) -> None:
        self.filling = Filling(proxy)
        self.verifying = Verifying(proxy)
        self.scrub = Scrub(proxy, lambda: self.filling.running or self.verifying.running)
        self._proxy = proxy
        self._nursery = nursery
        self._flipping = trio.Lock()
        self._began = time.time()
        nursery.start_soon(self._refill)
        nursery.start_soon(review, proxy)
        nursery.start_soon(_guarded, "scrub", self.scrub.run, self.scrub.failed)

    def __repr__(self) -> str:
        return f"<Jobs {self.filling!r} {self.verifying!r}>"

    def start_backfill(self, plan: Plan, *, mirror_again: bool = False) -> None:
        """Begin a backfill; one of the same keys that runs already goes on. `mirror_again`: also when mirroring was
        ended. Errors: Busy."""
        if self._proxy.finished:
            self._mirror_again(wanted=mirror_again)
        if self.filling.running:
            if plan.same(self.filling.plan) and not plan.anew:
                return
            raise Busy("a backfill of other keys is running: see `crossfade status`")
        self.filling.progress.state = Work.RUNNING.value
        self.filling.plan = plan

        async def backfill() -> None:
            if not plan.partial:
                self._proxy.remember_now(filling=True)
            await self.filling.run(plan)
            if not plan.partial:
                self._proxy.state.remember(filling=False)

        self._nursery.start_soon(_guarded, "backfill", backfill, self.filling.failed)

    def _mirror_again(self, *, wanted: bool) -> None:
        if not wanted:
            raise Busy(FINISHED)
        try:
            mirror_again(self._proxy)
        except OSError as problem:
            raise Busy(f"nothing has changed: the state cannot be saved: {problem.strerror}") from None

    def finish(self) -> End:
        """End mirroring, or say why not. Errors: Busy."""
        if self._flipping.locked():
            raise Busy("a flip is under way")
        return finish(self._proxy, self)

    async def _refill(self) -> None:
        """A backfill that is due, after one that was complete or was cut short, begins by itself. What is wrong is
        looked at as often, so that the log has it."""
        proxy = self._proxy
        while True:
            await trio.sleep(REFILL_SECONDS)
            look(proxy, self.filling.progress)
            durable = proxy.state.durable
            due = not self._proxy.finished and not durable.backfilled and (durable.filled or durable.filling)
            up = proxy.hub.lane.link is not None and proxy.hub.mirror.link is not None
            if due and up and not self.filling.running and not durable.frozen:
                log.info("the backfill begins again: %s", proxy.refill_reason or "it was cut short")
                self.start_backfill(Plan())

    def start_verify(self, terms: VerifyTerms) -> None:
        """Begin a verify. Errors: Busy."""
        if self._proxy.finished:
            raise Busy(FINISHED)
        if self.verifying.running:
            raise Busy("a verify is running already: see `crossfade status`")
        self.verifying.report.state = Work.RUNNING.value

        async def verify() -> None:
            await self.verifying.run(terms)

        self._nursery.start_soon(_guarded, "verify", verify, self.verifying.failed)

    async def flip(self, terms: Terms) -> Outcome:
        """Flip, or say why not. Errors: Busy."""
        if self._flipping.locked():
            raise Busy("a flip is under way already")
        async with self._flipping:
            return await flip(self._proxy, self, terms)

    def status(self) -> dict[str, Any]:
        """Everything an operator wants to know, as JSON-able values."""
        proxy = self._proxy
        hub = proxy.hub
        return {
            "phase": proxy.phase.value,
            "serving": proxy.roles.serving.value,
            "epoch": proxy.roles.epoch,
            "dirty": hub.repair.keys.dirty,
            "unmirrored": sum(hub.recorder.unmirrored.values()),
            "clients": hub.client_count,
            "mirror": {
                "connected": hub.mirror.link is not None,
                "lag_ms": round(hub.mirror.lag() * 1000, 1),
                "queued": hub.mirror.queued,
                "queued_bytes": hub.mirror.queued_bytes,
                "settled": hub.mirror.judge.settled,
                "differed": hub.mirror.judge.differed,
                "dropped": hub.mirror.dropped,
            },
            "backfill": self.filling.progress.to_json(),
            "verify": {key: value for key, value in self.verifying.report.to_json().items() if key != "findings"},
            "scrub": self.scrub.to_json(),
            "source": self._side("source"),
            "target": self._side("target"),
            "lane": {"connected": hub.lane.link is not None, "pending": hub.lane.pending},
            "copies": {
                "done": hub.repair.copies,
                "bytes": hub.repair.copied_bytes,
                "waiting": len(hub.repair.keys),
                "in_pages": len(hub.repair.copies_in_pages),
                "pages": hub.repair.copies_in_pages.pages,
                "begun_again": hub.repair.copies_in_pages.broken,
                "largest_reply": max(hub.repair.largest_read, hub.repair.copies_in_pages.largest),
                "failures": dict(hub.repair.failures.most_common(5)),
                "reasons": hub.repair.keys.reasons(),
            },
            "unmirrored_commands": dict(hub.recorder.unmirrored.most_common(20)),
            "unheld": counted(proxy),
            "watch": {
                "state": hub.watch.state.value,
                "unexplained": hub.watch.unexplained,
                "during_scripts": hub.watch.during_scripts,
            },
            "workers": proxy.fronts.status(),
            "waiting": len(hub.waiters),
            "pinned": len(hub.pins),
            "commands": hub.commands,
            "flips": proxy.flips,
            "finished": proxy.state.durable.finished or None,
            "last_clean_verify": self.verifying.clean_at or None,
            "problems": look(proxy, self.filling.progress),
            "listen": f"{proxy.settings.host}:{proxy.port}",
            "pid": os.getpid(),
            "uptime_s": round(time.time() - self._began, 1),
        }

    def _side(self, name: str) -> dict[str, Any]:
        side = next(side for side in self._proxy.sides.values() if side.name.value == name)
        product, major, minor = side.facts.version
        return {
            "url": str(side.url),
            "version": f"{product} {major}.{minor}",
            "connected": not side.problem,
            "problem": side.problem,
            "since": side.since,
            "clock_offset_ms": round(side.facts.clock.offset_ms, 3),
            "clock_uncertainty_ms": round(side.facts.clock.uncertainty_ms, 3),
        }
