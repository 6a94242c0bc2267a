"""What has to be looked at again and again: the journal, the durable state, dead links, copies that failed.

Owns these loops of the slow floor, and nothing else: each asks somebody else to do what is due.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from proxy.journal import WhenFull

if TYPE_CHECKING:
    from proxy.hub import Hub
    from proxy.lane import Lane
    from proxy.link import Link
    from proxy.mirror import Mirror
    from proxy.server import Proxy

log = logging.getLogger("crossfade")

RETRY_SECONDS = 0.1  # how often it is looked whether a failed copy is due again
JOURNAL_SECONDS = 1.0  # between two looks at it, and between two fsyncs with "everysec"
WEIGH_SECONDS = 1.0  # between two looks at what clients make us keep
WATCH_SECONDS = 1.0  # how often it is looked whether a link is still alive
DEAD_SECONDS = 5.0  # without any reply, while replies are awaited and the server answers others
HUNG_SECONDS = 120.0  # without any reply from a mirror side that answers nobody: what is awaited becomes dirty keys


class Upkeep:
    """The loops of one proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        proxy.journal.failed = self._note_journal_problem

    async def run(self) -> None:
        """All of them, until cancelled."""
        async with trio.open_nursery() as nursery:
            for loop in (
                self._retry_copies,
                self._keep_journal,
                self._rotate_journal,
                self._watch_links,
                self._weigh_clients,
            ):
                nursery.start_soon(loop)

    async def _watch_links(self) -> None:
        """Give up a link that is silently dead: nothing comes back on it, although its server answers and is not
        holding it up itself (BUSY, CLIENT PAUSE)."""
        seen: dict[Link, tuple[int, float]] = {}
        while True:
            await trio.sleep(WATCH_SECONDS)
            now = trio.current_time()
            for order, side in (
                (self._proxy.hub.lane, self._proxy.serving),
                (self._proxy.hub.mirror, self._proxy.mirror),
            ):
                link = order.link
                if link is None:
                    continue
                if order.idle:
                    seen.pop(link, None)
                    continue
                answered, since = seen.get(link, (-1, now))
                if order.answered != answered:
                    seen = {one: mark for one, mark in seen.items() if one is not link and one.fileno() >= 0}
                    seen[link] = order.answered, now
                elif now - since > DEAD_SECONDS and await side.holds_nothing_of(link.wire) and order.link is link:
                    link.lose(f"no reply for {now - since:.0f} s, though the server answers")
                elif now - since > HUNG_SECONDS and order is self._proxy.hub.mirror and order.link is link:
                    # It may hang for hours: nothing is gained by waiting, and the journal could not be cut meanwhile.
                    link.lose(f"no reply for {now - since:.0f} s")

    async def _weigh_clients(self) -> None:
        while True:
            await trio.sleep(WEIGH_SECONDS)
            self._proxy.hub.weigh()

    async def _retry_copies(self) -> None:
        while True:
            await trio.sleep(RETRY_SECONDS)
            if self._proxy.hub.repair.retry():
                self._proxy.hub.flush()

    async def _keep_journal(self) -> None:
        """Sync it, and make durable what has changed, off the hot path."""
        while True:
            await trio.sleep(JOURNAL_SECONDS)
            try:
                await trio.to_thread.run_sync(self._proxy.journal.sync)
                self._proxy.problems.pop("fsync", None)
            except OSError as problem:
                self._proxy.problems["fsync"] = f"the journal cannot be fsynced: {problem.strerror}"
            self._proxy.hub.watch.age()
            self._note_journal_problem()
            self._remember()

    def _note_journal_problem(self) -> None:
        """Called by the journal at once when it fails, and every second to see that it has recovered."""
        problem = self._proxy.journal.problem
        refuse = problem and self._proxy.settings.journal_full is WhenFull.REFUSE
        self._proxy.hub.read_only = f"crossfade: writes are refused, {problem}" if refuse else ""
        if problem:
            self._proxy.problems["journal"] = (
                f"{problem} ({'writes are refused' if refuse else 'a crash now costs a backfill'})"
            )
        else:
            self._proxy.problems.pop("journal", None)

    async def _rotate_journal(self) -> None:
        """Retire segments that have served: what was sent before their end is answered and acknowledged."""
        hub, journal = self._proxy.hub, self._proxy.journal
        while True:
            await trio.sleep(JOURNAL_SECONDS)
            if hub.journal is None or not journal.due:
                continue
            try:
                last = journal.rotate()
            except OSError as problem:
                log.warning("journal: %s", problem)
                continue
            await _reached(hub, hub.lane)
            await _reached(hub, hub.mirror)
            try:
                self._proxy.state.flush()  # what the old segments led to must be durable before they go
            except OSError:
                continue
            for _ in journal.carry(list(hub.repair.keys.places())):
                await trio.lowlevel.checkpoint()  # clients first: there may be hundreds of thousands
            journal.retire(last)

    def _remember(self) -> None:
        """Make durable what has changed, off the hot path."""
        run_ids = {name.value: side.facts.run_id for name, side in self._proxy.sides.items()}
        sizes = {name.value: side.size for name, side in self._proxy.sides.items()}
        if (run_ids, sizes) != (self._proxy.state.durable.run_ids, self._proxy.state.durable.sizes):
            self._proxy.state.remember(run_ids=run_ids, sizes=sizes)
        try:
            self._proxy.state.flush()
            self._proxy.problems.pop("state", None)
        except OSError as problem:
            self._proxy.problems["state"] = f"the state cannot be saved: {problem.strerror}"


async def _reached(hub: Hub, order: Lane | Mirror) -> None:
    """Until everything that has been sent there by now is answered, or lost."""
    asked = order.asked
    await hub.until(lambda: order.answered >= asked)
