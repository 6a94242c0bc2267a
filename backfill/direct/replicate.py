"""`crossfade replicate`: a server's keys onto another, once (snapshot) or until the two are parted (live).

Owns the run: gates, attempts, what is kept between them, the outcome. An attempt has its own connections; when one of
them is lost, or a server is full or loading, the next attempt goes on at the tally's position, and fences what it left
behind. A cursor is never carried over to another server process: with a new `run_id` on either side all begins anew.

Guaranteed of a snapshot: every key that was there from the beginning to the end is on the target as it was at one
point in between, each key at its own. Of a live copy that says `converged`: both sides were equal at that moment.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import trio

from ..errors import BackfillError
from ..url import Url
from .checkpoint import Checkpoint
from .copier import Copier
from .feed import Feed, open_feed
from .limits import Rate
from .live import Following, Known
from .nurseries import open_nursery
from .pages import BigKeys
from .patience import TROUBLE, Patience
from .pipe import Pipe
from .selection import Selection
from .sides import Facts, fence, keyspace, learn, shift_between
from .tally import Tally
from .walking import copy_functions, walk_extras, walk_source

SAVE_S = 1.0
CLOCK_S = 10.0
CHECK_S = 0.1  # how often a live copy looks whether it has converged
QUIET_S = 1.0  # without a change, after which --until-converged ends
FAR_FEWER = 0.5  # a source that comes back with less than this part of its keys: deletions are refused
MAX_SHOWN = 20
WHAT_IT_LOST = {"source": "; what it lost by that may be on the target, which --delete-extra mends"}
EVERYTHING = Selection()


class Mode(Enum):
    SNAPSHOT = "snapshot"
    LIVE = "live"


class State(Enum):
    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to copy, and how. Rates: a second, 0 for as fast as it goes. `patience`: seconds without any progress."""

    source: Url
    target: Url
    mode: Mode = Mode.SNAPSHOT
    selection: Selection = EVERYTHING
    struct: bool = False
    allow_non_empty: bool = False
    delete_extra: bool = False
    until_converged: bool = False
    keys_rate: float = 0.0
    bytes_rate: float = 0.0
    patience: float = 60.0


class Refused(BackfillError):
    """A gate: nothing was changed; the text says what to do."""


class Replication:
    """One run. `status()` at any time; `run()` once."""

    def __init__(self, plan: Plan, checkpoint: Checkpoint, say: Callable[[str], None] = lambda text: None) -> None:
        self.tally = Tally()
        self.following: Following | None = None
        self._plan = plan
        self._checkpoint = checkpoint
        self._say = say
        self._state = State.RUNNING
        self._problem = ""
        self._began = time.monotonic()
        self._seconds: float | None = None
        self._known = Known()
        self._run_ids: tuple[str, str] | None = None
        self._ours = False  # what is on the target was put there by this copy
        self._size = 0  # keys of the source, when an attempt began
        self._shrunk = False  # the source came back with far fewer keys
        self._fences: list[int] = []  # ids of our connections to the target
        self._connected = False
        self._attempts = 0
        self._patience = Patience(plan.patience, say)
        self._scanned = False  # live: this attempt has been through all keys
        self._feed_name = ""

    def __repr__(self) -> str:
        return f"<Replication {self._state.value} {self.tally!r} {self.following!r}>"

    async def run(self) -> None:
        """All of it. Errors: Refused, ConnectError, ConnectionLost, ServerRefuses, CheckpointError, CannotFollow."""
        self._load()
        try:
            await self._attempts_until_done()
        except trio.Cancelled:
            self._end(State.INTERRUPTED, "stopped")
            raise
        except BaseException as problem:
            self._end(State.FAILED, problem.text if isinstance(problem, BackfillError) else repr(problem))
            raise
        self._end(State.DONE, "")

    def _load(self) -> None:
        saved = self._checkpoint.load()
        if saved is not None:
            self.tally.position, self.tally.failed = saved.position, saved.failed
            self.tally.copied, self._size = saved.copied, saved.keys
            self._run_ids, self._fences, self._ours = saved.run_ids, saved.client_ids, True
            self._say(f"going on from the checkpoint {self._checkpoint.path}")

    def _end(self, state: State, problem: str) -> None:
        self._state, self._problem = state, problem
        self._seconds = time.monotonic() - self._began
        if state is State.DONE and not self.tally.failed:
            self._checkpoint.remove()
        else:
            self._save()

    def _save(self) -> None:
        if self._run_ids is not None and self._ours:
            self._checkpoint.save(self.tally, self._run_ids, self._fences, self._size)

    # -- attempts --------------------------------------------------------------------------------------------------

    async def _attempts_until_done(self) -> None:
        while True:
            try:
                return await self._attempt()
            except TROUBLE as problem:
                trouble: BackfillError = problem
            if not self._connected:
                raise trouble
            if self._scanned:
                self._patience.begin_anew()
            await self._patience.again(trouble, (self.tally.reached,))

    async def _attempt(self) -> None:
        plan = self._plan
        self._attempts += 1
        self._scanned = False
        self.tally.go_back()
        async with (
            Pipe.open(plan.source.with_db(0), name="crossfade-source") as source,
            Pipe.open(plan.target.with_db(0), name="crossfade-target") as target,
        ):
            facts = await learn(source), await learn(target)
            await self._same_processes(source, target, facts)
            await self._gate(target)
            self._connected = self._ours = True
            self._fences.append(target.wire.client_id)
            types = plan.selection.types
            big = BigKeys(plan.source, plan.target, facts, self._fences, types=types, live=plan.mode is Mode.LIVE)
            copier = Copier(
                source,
                target,
                facts,
                self.tally,
                big,
                types=types,
                struct=plan.struct,
                ordered=plan.mode is Mode.LIVE,
                keys_rate=Rate(plan.keys_rate),
                bytes_rate=Rate(plan.bytes_rate),
            )
            copier.shift_ms = await shift_between(source, target)
            async with open_nursery() as nursery:
                nursery.start_soon(copier.run)
                nursery.start_soon(self._keep_clock, source, target, copier)
                nursery.start_soon(self._save_regularly)
                if plan.mode is Mode.LIVE:
                    await self._live(source, target, copier)
                else:
                    await self._snapshot(source, target, copier)
                nursery.cancel_scope.cancel()

    async def _same_processes(self, source: Pipe, target: Pipe, facts: tuple[Facts, Facts]) -> None:
        """Fence what earlier connections left behind; begin anew where a server is not the one that it was."""
        run_ids = facts[0].run_id, facts[1].run_id
        if run_ids[0] and run_ids[0] == run_ids[1]:
            raise Refused("source and target are the same server")
        size = sum((await keyspace(source)).values())
        if self._run_ids is not None and self._run_ids != run_ids:
            which = "source" if self._run_ids[0] != run_ids[0] else "target"
            self._say(f"the {which} was restarted, or is another server: the copy begins anew")
            self.tally.note(f"the {which} was restarted meanwhile: the copy began anew{WHAT_IT_LOST.get(which, '')}")
            self._shrunk = self._shrunk or (which == "source" and size < self._size * FAR_FEWER)
            self.tally.begin_again()
            self._patience.begin_anew()
        if self._run_ids is not None and self._run_ids[1] == run_ids[1]:
            for client_id in self._fences:
                await fence(target, client_id)
        self._fences.clear()
        self._run_ids, self._size = run_ids, max(size, 0 if not self._shrunk else self._size)

    async def _gate(self, target: Pipe) -> None:
        plan = self._plan
        if self._ours:
            return
        there = sum(count for db, count in (await keyspace(target)).items() if plan.selection.has_db(db))
        if there and not self._size and self._deletes and not plan.delete_extra:
            raise Refused(
                f"the source has no keys, the target has {there:,}, all of which would be deleted (are the two mixed "
                "up?): should it be so, say --delete-extra"
            )
        if there and not plan.allow_non_empty:
            stay = "are deleted" if self._deletes else "stay, unless you say --delete-extra"
            raise Refused(
                f"the target {plan.target.address} has {there:,} keys: empty it, or say --allow-non-empty (keys of the "
                f"same name are replaced; keys that the source does not have {stay})"
            )

    @property
    def _deletes(self) -> bool:
        return self._plan.delete_extra or self._plan.mode is Mode.LIVE

    async def _keep_clock(self, source: Pipe, target: Pipe, copier: Copier) -> None:
        while True:
            await trio.sleep(CLOCK_S)
            copier.shift_ms = await shift_between(source, target)

    async def _save_regularly(self) -> None:
        while True:
            await trio.sleep(SAVE_S)
            if self._run_ids is not None:
                document = self._checkpoint.document(self.tally, self._run_ids, self._fences, self._size)
                await trio.to_thread.run_sync(self._checkpoint.write, document)

    # -- snapshot --------------------------------------------------------------------------------------------------

    async def _snapshot(self, source: Pipe, target: Pipe, copier: Copier) -> None:
        plan, tally = self._plan, self.tally
        if plan.selection.everything:
            await copy_functions(source, target, tally)
        await walk_source(source, target, copier, tally, plan.selection)
        await copier.wait_idle()
        await self._again(target, copier)
        if plan.delete_extra:
            await self._remove_extras(source, target, copier)

    async def _again(self, target: Pipe, copier: Copier) -> None:
        """Another try for every key that failed."""
        by_db: dict[int, list[bytes]] = {}
        for db, key in self.tally.failed:
            if db >= 0:
                by_db.setdefault(db, []).append(key)
        for db, keys in by_db.items():
            await target.enter(db)
            await copier.look_and_add(db, keys)
        await copier.wait_idle()

    async def _remove_extras(self, source: Pipe, target: Pipe, copier: Copier) -> None:
        if self._shrunk:
            raise Refused(
                "the source was restarted and came back with far fewer keys: nothing is deleted on the target. Should "
                "it be so, run the command again with --delete-extra --allow-non-empty --restart"
            )
        await walk_extras(source, target, copier, self._plan.selection)
        await copier.wait_idle()

    # -- live ------------------------------------------------------------------------------------------------------

    async def _live(self, source: Pipe, target: Pipe, copier: Copier) -> None:
        following = Following(source, target, copier, self.tally, self._plan.selection, self._known)
        self.tally.begin_again()
        async with (
            open_feed(self._plan.source.with_db(0), following.changed, following.flushed) as feed,
            open_nursery() as nursery,
        ):
            self.following, self._feed_name = following, feed.name
            if feed.doubt:
                self.tally.note(feed.doubt)
            await following.begin(feed)
            nursery.start_soon(feed.watch)
            nursery.start_soon(following.pump)
            nursery.start_soon(following.look)
            await self._follow(following, feed, source, target, copier)
            nursery.cancel_scope.cancel()

    async def _follow(self, following: Following, feed: Feed, source: Pipe, target: Pipe, copier: Copier) -> None:
        moved, quiet_since = -1, trio.current_time()  # what expires on both sides by itself moves nothing
        while True:
            if moved != self.tally.copied + self.tally.deleted:
                moved, quiet_since = self.tally.copied + self.tally.deleted, trio.current_time()
            if following.rescan:
                following.rescan = False
                self.tally.begin_again()
                await walk_source(source, target, copier, self.tally, self._plan.selection)
                self._scanned = True
                following.why = "keys are being copied"
            elif following.extras:
                following.extras = False
                await self._remove_extras(source, target, copier)
            else:
                await following.check()
                quiet = trio.current_time() - quiet_since >= QUIET_S
                if self._plan.until_converged and following.settled and quiet:
                    return
                await trio.sleep(CHECK_S)

    # -- what it says ----------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began if self._seconds is None else self._seconds

    @property
    def clean(self) -> bool:
        """Everything was done as it should be: exit code 0."""
        if self.tally.failed or self.tally.lossy:
            return False
        if self._plan.mode is Mode.LIVE:
            return self.following is not None and self.following.converged
        return self._state is State.DONE

    def status(self) -> dict[str, Any]:
        """Everything worth telling, for --json."""
        tally, following = self.tally, self.following
        document: dict[str, Any] = {
            "mode": self._plan.mode.value,
            "state": self._state.value,
            "problem": self._problem,
            "total": tally.total,
            "scanned": tally.scanned,
            "copied": tally.copied,
            "deleted": tally.deleted,
            "failed": len(tally.failed),
            "bytes": tally.size,
            "big": tally.big,
            "rereads": tally.rereads,
            "attempts": self._attempts,
            "seconds": round(self.seconds, 3),
            "failures": tally.failures(MAX_SHOWN),
            "lossy": len(tally.lossy),
            "losses": tally.losses(MAX_SHOWN),
            "notes": list(tally.notes),
        }
        if self._plan.mode is Mode.LIVE:
            document |= {
                "feed": self._feed_name,
                "converged": following is not None and following.converged,
                "why": "not connected yet" if following is None else following.why,
                "dirty": 0 if following is None else following.dirty,
                "lag_ms": 0 if following is None else following.lag_ms,
                "changes": self._known.changes,
                "rescans": self._known.rescans,
            }
        return document
