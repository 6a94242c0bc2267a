"""The scrub: a slow, endless verify in the background, which copies what it finds to differ.

It is what finds in the end whatever nobody told of: writers that bypass the proxy where the server does not allow the
watch, a mirror side that evicts, a defect of ours. Owns its pace and when it holds still; the comparison is
`verifying.py`'s. It yields to every job and to flips, and looks twice before it says that a key differs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import trio

from proxy.progress import Work
from proxy.verifying import Report, Terms, Verifying

if TYPE_CHECKING:
    from proxy.server import Proxy

DEFAULT_RATE = 200.0  # keys a second; about 2 % of a core, and a million keys in an hour and a half
REST_KEYS = 12_000  # between two passes it rests for as long as so many keys take: a minute at the default rate
LOOK_SECONDS = 0.25  # how often it is looked whether it may go on
MANY_DIRTY = 1000  # with more dirty keys than this the repair has enough to do


@dataclass(frozen=True, slots=True)
class Passed:
    """A pass that came to its end."""

    ended: float  # time.time()
    seconds: float
    checked: int
    repaired: int  # keys that differed, and were copied
    different: int  # keys that still differed afterwards, or could not be read

    @property
    def clean(self) -> bool:
        return not self.repaired and not self.different


class Scrub:
    """Passes, one after another, for as long as the proxy runs."""

    def __init__(self, proxy: Proxy, busy: Callable[[], bool]) -> None:
        self.last: Passed | None = None
        self.clean_at = 0.0  # time.time() when the last pass without any difference ended
        self._proxy = proxy
        self._busy = busy
        self._rate = proxy.settings.scrub
        self._verifying = Verifying(proxy)
        self._order: tuple[object, ...] = ()
        self._ahead = 0.0  # trio's clock: when the next keys may be read

    def __repr__(self) -> str:
        return f"<Scrub {self._rate:g}/s {self._verifying.report.state} last={self.last}>"

    def failed(self, problem: str) -> None:
        """It broke: a defect."""
        self._proxy.problems["scrub"] = f"the scrub {problem}: differences are found by `crossfade verify` only"

    async def run(self) -> None:
        """Scrub until cancelled."""
        while self._rate:
            await trio.sleep(REST_KEYS / self._rate)
            await self._may_go_on()
            self._order, self._ahead = self._state, trio.current_time()
            await self._verifying.run(Terms(repair=True, pace=self._pace))
            report = self._verifying.report
            if report.state == Work.DONE.value and self._order == self._state:
                self._passed(report)

    @property
    def _state(self) -> tuple[object, ...]:
        """What has been seen says nothing any more once this changes."""
        proxy = self._proxy
        return proxy.roles.epoch, proxy.refills, proxy.problems.get("watch")

    @property
    def _still(self) -> bool:
        """It has no business now."""
        proxy, hub = self._proxy, self._proxy.hub
        up = hub.lane.link is not None and hub.mirror.link is not None
        filled = proxy.state.durable.backfilled and not hub.repair.frozen
        return not up or not filled or hub.flipping or self._busy() or hub.repair.keys.dirty > MANY_DIRTY

    async def _may_go_on(self) -> None:
        while self._still:
            await trio.sleep(LOOK_SECONDS)

    async def _pace(self, keys: float) -> bool:
        """Before so many keys are read; False when the pass has lost its meaning."""
        await trio.sleep_until(self._ahead)
        await self._may_go_on()
        self._ahead = max(self._ahead, trio.current_time() - 1) + keys / self._rate
        return self._order[:2] == self._state[:2]

    def _passed(self, report: Report) -> None:
        self.last = last = Passed(time.time(), report.seconds, report.checked, report.repaired, report.different)
        if last.clean:
            self.clean_at = last.ended
            self._proxy.problems.pop("scrub", None)
        else:
            self._proxy.problems["scrub"] = (
                f"the scrub found {last.repaired + last.different:,} of {last.checked:,} keys to differ and copied "
                f"{last.repaired:,} of them again (the log names them): somebody writes to one side only"
            )

    def to_json(self) -> dict[str, Any]:
        """For the status."""
        report = self._verifying.report
        return {
            "rate": self._rate,
            "state": "off" if not self._rate else "still" if self._still else report.state,
            "checked": report.checked,
            "total": report.total,
            "last": asdict(self.last) if self.last is not None else None,
            "last_clean": self.clean_at or None,
        }
