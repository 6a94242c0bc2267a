"""The backfill through a running proxy: every key of the serving side is copied in the lane, under live traffic.

Owns the walk over the keys. A found key is merely marked for a state copy; the copy itself is the repair's, which makes
it exact (see DESIGN, "The one idea"). Before the serving side is walked through, and behind it, the mirror side is:
what it has and the serving side does not becomes dirty, so that it is deleted. Begins again when the whole order was
lost meanwhile (SWAPDB, a barrier that failed); goes on from its checkpoint when it or the proxy was cut short
(`progress.py`).

A backfill of some keys only (a pattern, a type, a db, slots) never makes the phase leave `filling`.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import trio

from backfill.client import Client, ConnectionLost, ReplyError
from backfill.direct.selection import Selection
from backfill.errors import BackfillError, ConnectError, ScanError
from backfill.scan import START, databases, scan, scan_page, select
from proxy.courtesy import Courtesy
from proxy.dirty import Place
from proxy.ferry.ferrying import Ferrying, FerryLost
from proxy.functions import copy_functions
from proxy.progress import Checkpoint, Pages, Position, Progress, Work, load

if TYPE_CHECKING:
    from proxy.server import Proxy

__all__ = ["Filling", "Plan", "Progress", "Work"]

log = logging.getLogger("crossfade")

WINDOW = 2000  # keys found but not yet copied; more would only be memory
PAGE = 200  # keys of one SCAN: their sizes are asked for in one go, which holds the server for 0.2 ms
EXTRAS = 1000  # keys of the mirror side looked for on the serving side in one go
PORTION = 100  # keys marked in one go
SETTLE_SECONDS = 0.2  # how often the end of the last copies is looked at
AGAIN_SECONDS = 1.0  # after a lost connection
SAVE_SECONDS = 1.0  # between two checkpoints
GIVE_UP_SECONDS = 30.0  # without any progress at the end, what is left has failed


@dataclass(frozen=True, slots=True)
class Plan:
    """What to copy, how fast."""

    selection: Selection = field(default_factory=Selection)
    rate: float = 0.0  # keys a second; 0: as fast as it goes
    bandwidth: float = 0.0  # bytes a second; 0: as many as it gets
    polite: bool = True  # yield to live traffic
    anew: bool = False  # although there is a checkpoint

    @property
    def partial(self) -> bool:
        """Not every key: what is equal afterwards is not known of the others."""
        return not self.selection.everything

    def same(self, other: Plan) -> bool:
        """Whether both copy the same keys."""
        return self.selection.describe() == other.selection.describe()


class Filling:
    """One backfill at a time."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.progress = Progress()
        self.plan = Plan()
        self._pages = Pages(Position())
        self._courtesy = Courtesy(proxy.hub, polite=False, bandwidth=0)
        self._began = 0.0
        self._restarted = False  # the walk began (again) since a checkpoint was saved
        self._sized = True  # MEMORY USAGE is allowed there
        self._ferries = True  # none was lost in this run
        self._ferrying: Ferrying | None = None
        proxy.hub.repair.copied = self._copied

    def __repr__(self) -> str:
        return f"<Filling {self.progress.state} scanned={self.progress.scanned} {self._pages!r}>"

    @property
    def running(self) -> bool:
        return self.progress.state == Work.RUNNING.value

    def failed(self, problem: str) -> None:
        """It broke."""
        self.progress.state, self.progress.problem = Work.FAILED.value, problem

    def _copied(self, places: list[Place]) -> None:
        """Whatever was done to the keys since they were read is mirrored, or known by their marks: they need not be
        clean."""
        self.progress.copied += self._pages.copied(places)

    # -- the whole of it -----------------------------------------------------------------------------------------

    async def run(self, plan: Plan) -> None:
        """Copy everything that is wanted. The outcome is in `progress`."""
        self.plan = plan
        self._courtesy = Courtesy(self._proxy.hub, polite=plan.polite, bandwidth=plan.bandwidth)
        unmirrored = self._proxy.hub.recorder.unmirrored.copy()
        self._began = time.monotonic()
        problem = ""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._courtesy.run)
            nursery.start_soon(self._keep_checkpoint)
            problem = await self._run(plan)
            nursery.cancel_scope.cancel()
        if problem:
            self._end(Work.FAILED, problem)
        else:
            self._finish(plan, unmirrored)  # nobody writes a checkpoint any more

    async def _run(self, plan: Plan) -> str:
        """The walk, as often as it takes; why it failed."""
        start = self._start(plan)
        self._ferries = True
        while True:
            order, run_ids = self._order(), self._run_ids
            aside = min(self.progress.aside, start.scanned)
            self.progress = Progress(state=Work.RUNNING.value, selection=_words(plan.selection), aside=aside)
            self.progress.scanned = self.progress.copied = self.progress.resumed = start.scanned
            self._pages = Pages(start)
            self._restarted = True
            if not plan.partial and not start.scanned:
                self._proxy.hub.repair.losses.recount()
            try:
                await self._fill(plan, start)
            except (ConnectionLost, ConnectError) as problem:
                self.progress.problem = problem.text
                await self._both_there()
                same = run_ids == self._run_ids and all(run_ids) and order == self._order()
                start = self._pages.settled if same else Position()
                how = "goes on" if same else "begins again"
                log.warning("backfill: %s; it %s with %d keys copied", problem.text, how, start.scanned)
                continue
            except FerryLost as problem:
                log.warning("backfill: goes on without the ferry: %s", problem.text)
                self._ferries, start = False, self._pages.settled if order == self._order() else Position()
                continue
            except BackfillError as problem:
                return problem.text
            start = Position()
            if order[0] == self._proxy.refills:
                return ""

    def _finish(self, plan: Plan, unmirrored: Any) -> None:
        left = self._pages.places()
        self.progress.failed = len(left)
        reasons = {place: mark.reason for place, mark in self._proxy.hub.repair.keys.failing(1000)}
        self.progress.failures = [
            f"db {db} {key!r}: {reasons.get((db, key), 'not copied yet')}" for db, key in left[:20]
        ]
        self._pages = Pages(Position())
        if left:
            self._end(Work.FAILED, f"{len(left):,} keys could not be copied")
            return
        if not plan.partial:
            self.progress.complete = True
            self._proxy.remember_now(backfilled=True, filled=True, filling=False)
            self._proxy.hub.recorder.copied_all(unmirrored)
        self._proxy.forget_checkpoint(partial=plan.partial)
        self._end(Work.DONE, "")

    async def _both_there(self) -> None:
        hub = self._proxy.hub
        await trio.sleep(AGAIN_SECONDS)
        await hub.until(lambda: hub.lane.link is not None and hub.mirror.link is not None)

    def _end(self, work: Work, problem: str) -> None:
        self.progress.state = work.value
        self.progress.problem = problem
        self._note_pace()
        self.progress.yielding = False

    def _note_pace(self) -> None:
        self.progress.seconds = round(time.monotonic() - self._began, 3)
        self.progress.bytes = self._courtesy.bytes
        self.progress.window = self._proxy.hub.repair.window
        self.progress.yielding = self._courtesy.late

    # -- the checkpoint ------------------------------------------------------------------------------------------

    @property
    def _run_ids(self) -> tuple[str, str]:
        roles = self._proxy.roles
        return roles.serving_facts.run_id, roles.mirror_facts.run_id

    def _checkpoint(self) -> Checkpoint:
        plan = self.plan.selection.describe()
        return Checkpoint(plan, self._run_ids, self._proxy.roles.epoch, self._pages.settled)

    def _start(self, plan: Plan) -> Position:
        """Where to begin: where a former run was cut short, if that can be trusted."""
        found = None if plan.anew else load(self._proxy.state.path, partial=plan.partial)
        if found is not None and found.trusted(self._checkpoint()):
            log.info("backfill: goes on with %d keys copied", found.position.scanned)
            return found.position
        return Position()

    async def _keep_checkpoint(self) -> None:
        """Save it whenever it has advanced."""
        saved, began = Position(), self._order()
        while True:
            await trio.sleep(SAVE_SECONDS)
            self._note_pace()
            if self._restarted:
                self._restarted, began = False, self._order()
            checkpoint = self._checkpoint()
            if checkpoint.position == saved or not self.running or self._order() != began:
                continue
            try:
                await trio.to_thread.run_sync(checkpoint.save, self._proxy.state.path, self.plan.partial)
                saved = checkpoint.position
            except OSError as problem:
                log.warning("backfill: the checkpoint cannot be saved: %s", problem.strerror)
            if self._order() != began:  # it lost its meaning while it was written
                self._proxy.forget_checkpoint()

    # -- the walk ------------------------------------------------------------------------------------------------

    async def _fill(self, plan: Plan, start: Position) -> None:
        proxy = self._proxy
        refills = proxy.refills
        if not plan.partial:
            await copy_functions(proxy)
        async with Client.open(proxy.serving.url.with_db(0)) as client:
            sizes = {db: size for db, size in (await databases(client)).items() if plan.selection.has_db(db)}
            self.progress.total = sum(sizes.values())
            at = start
            if not plan.partial and start == Position() and not proxy.hub.repair.frozen:
                await self._extras(client)
            if self._may_ferry(sum(sizes.values())):
                await self._ferry(plan, at, list(sizes))
                at = replace(at, done=tuple(sizes))
                if refills != proxy.refills:
                    return
            for db in sizes:
                if db not in at.done:
                    await select(client, db)
                    at = await self._walk(client, db, plan, at)
                    if refills != proxy.refills:
                        return
            await self._finish_copies()
            if not plan.partial and not len(self._pages):
                if proxy.hub.repair.frozen:
                    raise BackfillError(proxy.hub.repair.frozen)
                await self._extras(client)
                await self._finish_copies()

    def _may_ferry(self, count: int) -> bool:
        """Whether a process of its own is worth its start, and may write there: while the sides are equal nothing may
        be there that is older than the order says, not even for a moment."""
        proxy = self._proxy
        least = proxy.settings.ferry
        takes = proxy.hub.repair.takes_payloads and not proxy.journal.problem
        return self._ferries and takes and not proxy.state.durable.backfilled and 0 < least <= count

    async def _ferry(self, plan: Plan, start: Position, dbs: list[int]) -> None:
        """All keys of these dbs, from a position on; those that are not copied when it returns are marked."""
        order, epoch = self._order(), self._proxy.roles.epoch

        def in_vain() -> bool:
            return self._order() != order or self._proxy.roles.epoch != epoch

        self._ferrying = Ferrying(self._proxy, self._pages, self.progress, leave=self._leave, in_vain=in_vain)
        try:
            await self._ferrying.run(plan.selection, start, dbs)
        finally:
            self._ferrying = None
        if in_vain() and order[0] == self._proxy.refills:
            # Dbs were swapped: the keys behind our back are in another one now. Or the sides were.
            self._proxy.refill()

    def without_ferry(self, why: str) -> None:
        """No process but this one writes on the mirror side any more in this run, once `hub.beside` is 0."""
        self._ferries = False
        if self._ferrying is not None:
            self._ferrying.give_up(why)

    async def _leave(self, count: int, size: int) -> None:
        """Before so many keys are copied by the ferry."""
        await self._courtesy.leave(size)
        await self._keep_rate(count)

    async def _walk(self, client: Client, db: int, plan: Plan, start: Position) -> Position:
        """All keys of one db; the position behind them."""
        proxy = self._proxy
        refills, swaps = self._order()
        at = start if start.db == db else replace(start, db=db, cursor="0")
        while True:
            page = await scan_page(client, at.cursor.encode(), count=PAGE, options=plan.selection.scan_options())
            keys = plan.selection.filter(page.keys)
            sizes = await self._look(client, keys, plan.selection)
            await self._take(db, sizes, plan)
            at = replace(at, cursor=page.cursor.decode(), scanned=self.progress.scanned)
            last = page.cursor == START
            if last:
                at = replace(at, done=(*at.done, db), db=-1)
            self._pages.end(at)
            if swaps != proxy.hub.repair.swaps and refills == proxy.refills:
                proxy.refill()  # the keys behind our back are in another db now
            if last or refills != proxy.refills:
                return at

    async def _look(self, client: Client, keys: list[bytes], selection: Selection) -> dict[bytes, int]:
        """The bytes of each key that is wanted; 0 where nobody knows."""
        if len(selection.types) > 1:
            kinds = await client.pipeline([[b"TYPE", key] for key in keys])
            names = [kind if isinstance(kind, bytes) else str(kind).encode() for kind in kinds]
            keys = [key for key, name in zip(keys, names, strict=True) if name in selection.types]
        found: list[Any] = []
        if self._sized:
            found = await client.pipeline([[b"MEMORY", b"USAGE", key] for key in keys])
            self._sized = not any(isinstance(size, ReplyError) for size in found)
        if not self._sized:
            return dict.fromkeys(keys, 0)
        return {key: size or 1 for key, size in zip(keys, found, strict=True)}

    def _order(self) -> tuple[int, int]:
        """Changes when what has been scanned says nothing any more."""
        return self._proxy.refills, self._proxy.hub.repair.swaps

    async def _take(self, db: int, sizes: dict[bytes, int], plan: Plan) -> None:
        """Mark the keys of one page, in portions that the window has room for."""
        hub, progress, pages = self._proxy.hub, self.progress, self._pages
        order = self._order()
        keys = list(sizes)
        for start in range(0, len(keys), PORTION):
            portion = keys[start : start + PORTION]
            await hub.until(lambda: not hub.flipping and (len(pages) < WINDOW or self._order() != order))
            small = sum(size for key in portion if (size := sizes[key]) <= hub.repair.big_bytes)
            await self._courtesy.wait(small)  # pages of big keys are counted when they are read
            for key in portion:
                place = (db, key)
                if pages.found(place):
                    progress.scanned += 1
                    hub.repair.expect(place, sizes[key])
                    hub.repair.want(place, "backfill")
            hub.flush()
            await trio.lowlevel.checkpoint()  # clients are served in between
            await self._keep_rate()

    async def _keep_rate(self, more: int = 0) -> None:
        """Not sooner than the rate allows so many keys more."""
        if self.plan.rate:
            found = self.progress.scanned + more - self.progress.resumed
            await trio.sleep(max(0.0, found / self.plan.rate - (time.monotonic() - self._began)))

    async def _finish_copies(self) -> None:
        """Until every found key has been copied, or nothing moves any more."""
        hub = self._proxy.hub
        pages = hub.repair.copies_in_pages
        last, since = (-1, -1), time.monotonic()
        refills = self._proxy.refills
        while len(self._pages) and refills == self._proxy.refills:
            now = (self.progress.copied, pages.pages)
            held = not pages.may_read() or hub.lane.link is None or hub.mirror.link is None
            if now != last or held:
                last, since = now, time.monotonic()
            if time.monotonic() - since > GIVE_UP_SECONDS:
                return
            await trio.sleep(SETTLE_SECONDS)

    async def _extras(self, serving: Client) -> None:
        """Keys that only the mirror side has: expired, evicted or deleted meanwhile, or there from the start. Those are
        looked for at the beginning, too: made anew on the serving side behind the scan, by a command that builds on
        what is there (SADD), such a key is found by neither scan, and its effect is answered on both sides alike."""
        proxy = self._proxy
        most = len(proxy.hub.repair.keys) + WINDOW
        try:
            async with Client.open(proxy.mirror.url.with_db(0)) as mirror:
                for db in await databases(mirror):
                    await select(mirror, db)
                    await select(serving, db)
                    async for keys in scan(mirror, count=EXTRAS):
                        for key in await _missing(serving, keys):
                            self.progress.extra += 1
                            proxy.hub.repair.mark_unordered((db, key), "only on the mirror side", lag=True)
                        proxy.hub.flush()
                        await proxy.hub.until(lambda: len(proxy.hub.repair.keys) < most)
        except (ConnectionLost, ScanError) as problem:
            raise type(problem)(f"looking for extra keys on the {proxy.mirror.name.value}: {problem.text}") from None


async def _missing(client: Client, keys: list[bytes]) -> list[bytes]:
    """Those that are not there; asked for all at once first, as none is missing nearly always. Errors: ScanError,
    ConnectionLost."""
    together = await client.call(b"EXISTS", *keys)
    if together == len(keys):
        return []
    there = (
        [together] if isinstance(together, ReplyError) else await client.pipeline([[b"EXISTS", key] for key in keys])
    )
    if problem := next((reply for reply in there if isinstance(reply, ReplyError)), None):
        raise ScanError(f"EXISTS: {problem}")
    return [key for key, found in zip(keys, there, strict=True) if found == 0]


def _words(selection: Selection) -> str:
    """Which keys only, for people; empty for all."""
    words = [f"--match {pattern.decode(errors='backslashreplace')}" for pattern in selection.match]
    words += [f"--exclude {pattern.decode(errors='backslashreplace')}" for pattern in selection.exclude]
    words += [f"--type {kind.decode()}" for kind in sorted(selection.types)]
    words += [f"--db {db}" for db in sorted(selection.dbs)]
    words += [f"--slots {first}-{last}" for first, last in selection.slots]
    return " ".join(words)
