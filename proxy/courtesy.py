"""Courtesy: a backfill that watches how soon the serving side answers, and yields to live traffic.

Every PROBE_SECONDS a PING goes down the lane, between the clients' commands. Its round trip is compared with what it
was before the backfill began. When it becomes late, fewer keys are read at once, and pages of big keys wait; when it is
as it was, more and more are. (TCP's rule: half as many at once, then a few more every time.) Never more than are copied
in a round trip: what comes back together is worked off in one go, and clients wait for that. Also holds the backfill to
a bandwidth. Owns nothing but the pace.
"""

from __future__ import annotations

import statistics
from collections import deque
from typing import TYPE_CHECKING

import trio

from proxy.repair import READS_UNDER_WAY

if TYPE_CHECKING:
    from proxy.hub import Hub

PROBE_SECONDS = 0.02
IDLE_PROBES = 15  # before the backfill begins
RECENT = 5  # probes whose median is compared
LATE_FACTOR = 2.0  # times the round trip without a backfill
LATE_SECONDS = 0.001  # and by so much at least: below it nobody minds, and probes are not that exact
FEWEST = 4  # keys at once, however late the replies are
NEAR = 16  # keys at once where the servers are near: with 32, 1.2 times the speed and 1.3 times the p99 (bench.beside)
KEYS_PER_SECOND = 40_000  # about what the proxy can copy: where the servers are far, so many are under way
MORE = 8  # keys more at once after every probe that came in time
LONGEST_PAUSE = 0.25  # seconds between two pages


class Courtesy:
    """Sets the pace of the repair while a backfill runs."""

    def __init__(self, hub: Hub, *, polite: bool, bandwidth: float) -> None:
        self.late = False
        self.baseline = 0.0  # seconds
        self.bytes = 0  # that the backfill has read
        self._hub = hub
        self._polite = polite
        self._bandwidth = bandwidth
        self._began = 0.0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._pause = 0.0
        self._page_at = 0.0

    def __repr__(self) -> str:
        return f"<Courtesy {'late' if self.late else 'in time'} window={self._hub.repair.window} bytes={self.bytes}>"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the pace until cancelled; started once it is known how soon an idle serving side answers."""
        repair = self._hub.repair
        pages = repair.copies_in_pages
        try:
            if self._polite:
                await self._measure_idle()
                repair.window = self._most
            self._began = trio.current_time()
            pages.may_read, pages.read_bytes = self._may_read, self._count
            task_status.started()
            while True:
                await trio.sleep(PROBE_SECONDS)
                if self._polite:
                    await self._probe()
                self._hub.flush()  # pages that may be read now
        finally:
            repair.window = READS_UNDER_WAY
            pages.may_read, pages.read_bytes = (lambda: True), (lambda size: None)

    async def wait(self, size: int) -> None:
        """Before keys of so many bytes are marked."""
        self.bytes += size
        if self._bandwidth:
            await trio.sleep(self._ahead())

    async def leave(self, size: int) -> None:
        """Before keys of so many bytes are copied elsewhere: as pages, they wait while replies are late."""
        while not self._may_read():
            await trio.sleep(PROBE_SECONDS / 4)
        self._count(size)

    def _count(self, size: int) -> None:
        self.bytes += size
        self._page_at = trio.current_time()

    def _ahead(self) -> float:
        """By how many seconds the bandwidth has been used in advance."""
        return max(0.0, self.bytes / self._bandwidth - (trio.current_time() - self._began))

    def _may_read(self) -> bool:
        if self._bandwidth and self._ahead() > 0:
            return False
        return not self._pause or trio.current_time() - self._page_at >= self._pause

    @property
    def _most(self) -> int:
        """Keys at once while nobody has to wait for them."""
        return min(READS_UNDER_WAY, max(NEAR, round(self.baseline * KEYS_PER_SECOND)))

    async def _measure_idle(self) -> None:
        times = []
        for _ in range(IDLE_PROBES):
            times.append(await self._round_trip())
            await trio.sleep(PROBE_SECONDS / 4)
        self.baseline = statistics.median(times)

    async def _probe(self) -> None:
        self._recent.append(await self._round_trip())
        now = statistics.median(self._recent)
        self.baseline = min(self.baseline, now)
        self.late = now > max(self.baseline * LATE_FACTOR, self.baseline + LATE_SECONDS)
        repair = self._hub.repair
        if self.late:
            repair.window = max(FEWEST, repair.window // 2)
            self._pause = min(LONGEST_PAUSE, max(now, self._pause * 2))
            self._recent.clear()  # what comes next has seen the smaller window
        else:
            repair.window = min(self._most, repair.window + MORE)
            self._pause = self._pause / 2 if self._pause > LATE_SECONDS else 0.0

    async def _round_trip(self) -> float:
        """Of a PING in the lane; a lost lane answers at once."""
        hub = self._hub
        await hub.until(lambda: not hub.flipping)
        answered = trio.Event()
        sent = trio.current_time()
        times: list[float] = []

        def on_reply(frame: bytes | None) -> None:
            times.append(trio.current_time() - sent)
            answered.set()

        link = hub.lane.link
        hub.lane.call(0 if link is None else link.db, [[b"PING"]], on_reply)
        hub.flush()
        await answered.wait()
        return times[0]
