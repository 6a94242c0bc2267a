"""The flip: swap serving and mirror side, atomically for every client.

Owns the gate (why it must not happen now) and the sequence. Takes the shortest way from "no command is taken any more"
to "commands are taken by the other side"; on anything unexpected in between everything goes on as before.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from backfill.client import ConnectionLost, ReplyError
from backfill.compare import show
from proxy import faults
from proxy.finish import FINISHED
from proxy.hub import FLIP
from proxy.moving import Moving
from proxy.roles import Name
from proxy.unheld import warnings

if TYPE_CHECKING:
    from proxy.jobs import Jobs
    from proxy.server import Proxy

MAX_PAUSE_MS = 1000  # default of --max-pause
DIRTY_LIMIT = 1000  # more dirty keys than this are not repaired within a pause
LAG_LIMIT_MS = 500
DIAL_SECONDS = 60.0  # how long the connections for pinned sessions may take before the pause begins
QUIET_SECONDS = 3.0  # how long the last dirty keys may take before the pause begins


@dataclass(slots=True)
class Outcome:
    """What became of a flip. `reasons`: why it did not happen."""

    flipped: bool = False
    serving: str = ""
    epoch: int = 0
    pause_ms: float = 0.0
    drain_ms: float = 0.0
    estimate_ms: float = 0.0  # of a dry run: the pause that a flip would make
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)  # what applications may notice (see unheld.py)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Terms:
    """How the operator wants it."""

    dry_run: bool = False
    force: bool = False
    skip_verify: bool = False
    max_pause_ms: float = MAX_PAUSE_MS


async def gate(proxy: Proxy, jobs: Jobs, terms: Terms) -> list[str]:
    """Every reason against a flip now, with what to do about it."""
    if proxy.finished:
        return [FINISHED + ", and makes a flip possible"]
    reasons = []
    hub, mirror = proxy.hub, proxy.mirror
    if hub.mirror.link is None:
        reasons.append(f"the {mirror.name.value} is not connected: {mirror.problem or 'connecting'}")
    if not proxy.state.durable.backfilled:
        reasons.append("the backfill is not complete: run `crossfade backfill`")
    if hub.repair.frozen:
        reasons.append(hub.repair.frozen)
    if jobs.filling.running:
        reasons.append("a backfill is running: wait for its end")
    if hub.recorder.unmirrored:
        names = ", ".join(f"{name} ({count})" for name, count in hub.recorder.unmirrored.most_common(5))
        reasons.append(f"commands that could not be mirrored: {names}; run `crossfade backfill`, then verify")
    if hub.repair.keys.dirty > DIRTY_LIMIT:
        reasons.append(f"{hub.repair.keys.dirty:,} keys are dirty: wait until they are repaired")
    for (db, key), mark in hub.repair.keys.failing(3):
        reasons.append(f"db {db} {key!r} cannot be copied: {mark.reason}")
    for (db, key), text in hub.repair.losses.first(3):
        reasons.append(f"db {db} {key!r}: {text}")
    if hub.mirror.lag() * 1000 > LAG_LIMIT_MS:
        reasons.append(f"the {mirror.name.value} lags by {hub.mirror.lag() * 1000:.0f} ms: wait until it has caught up")
    if not terms.skip_verify and proxy.verified_epoch != proxy.roles.epoch:
        reasons.append(
            "no clean verify pass since the sides became equal: run `crossfade verify`, or say --skip-verify"
        )
    if hub.mirror.link is not None:
        strangers = [client.db for client in hub.clients() if client.db not in hub.mirror.link.dbs]
        if strangers:
            dbs = ", ".join(map(str, sorted(set(strangers))))
            reasons.append(f"{len(strangers)} clients are in db {dbs}, which the {mirror.name.value} does not have")
    reasons += await _unknown_scripts(proxy)
    return reasons


async def _unknown_scripts(proxy: Proxy) -> list[str]:
    """EVALSHA must go on working after the flip."""
    used = proxy.hub.recorder.scripts.used()
    if not used:
        return []
    try:
        known = await proxy.mirror.control.call(b"SCRIPT", b"EXISTS", *used)
    except ConnectionLost as problem:
        return [problem.text]
    if isinstance(known, ReplyError):
        return [f"cannot ask the {proxy.mirror.name.value} for its scripts: {known}"]
    unknown = [digest.decode() for digest, there in zip(used, known, strict=True) if not there]
    if not unknown:
        return []
    return [
        f"{len(unknown)} scripts in use are not known to the {proxy.mirror.name.value} ({', '.join(unknown[:3])}): "
        "SCRIPT LOAD them through the proxy"
    ]


async def flip(proxy: Proxy, jobs: Jobs, terms: Terms) -> Outcome:
    """Flip, or say why not."""
    outcome = Outcome(serving=proxy.roles.serving.value, epoch=proxy.roles.epoch)
    outcome.reasons = await gate(proxy, jobs, terms)
    await proxy.serving.ask_used()
    outcome.warnings = [] if proxy.finished else warnings(proxy)
    if outcome.reasons and not terms.force:
        return outcome
    hub = proxy.hub
    if hub.mirror.link is None:
        outcome.reasons.append(f"the {proxy.mirror.name.value} cannot serve: it is not connected")
        return outcome
    moving = Moving(hub, proxy.dial_ahead)
    try:
        with trio.move_on_after(DIAL_SECONDS):  # as much as possible before anybody waits
            await moving.dial()
        if terms.force and not terms.dry_run:
            jobs.filling.without_ferry("a flip is forced")
        with trio.move_on_after(QUIET_SECONDS):
            await hub.until(lambda: hub.repair.keys.dirty == 0 and not hub.beside)
        await _within_a_pause(proxy, terms, moving, outcome)
    finally:
        moving.close()
    if terms.dry_run:
        _estimate(proxy, outcome)
    outcome.serving, outcome.epoch = proxy.roles.serving.value, proxy.roles.epoch
    if outcome.flipped:
        proxy.flips.append({"at": time.time(), **outcome.to_json()})
        del proxy.flips[:-20]
    return outcome


def _estimate(proxy: Proxy, outcome: Outcome) -> None:
    """The pause is the drain, and the time that the disk takes for the state: measured, with the state as it is."""
    began = time.monotonic()
    try:
        proxy.state.save()
    except OSError as problem:
        outcome.reasons.append(f"the state cannot be saved: {problem.strerror}")
    outcome.estimate_ms = round(outcome.drain_ms + (time.monotonic() - began) * 1000, 3)


async def _within_a_pause(proxy: Proxy, terms: Terms, moving: Moving, outcome: Outcome) -> None:
    """From "no command is taken any more" to "commands are taken", by whichever side serves then."""
    hub = proxy.hub
    began = time.monotonic()
    faults.reached("flip begins")
    hub.pause(FLIP)
    hub.repair.hurry(True)
    try:
        drained = await _drain(proxy, moving, terms.max_pause_ms / 1000)
        outcome.drain_ms = round((time.monotonic() - began) * 1000, 3)
        if not drained:
            advice = "forced" if terms.force else "nothing has changed; try again, or allow a longer --max-pause"
            outcome.reasons.append(f"not drained within {terms.max_pause_ms:g} ms ({_left(proxy, moving)}): {advice}")
        outcome.reasons += moving.problems()
        if hub.beside:  # what is written there has no place in the order: clients' writes would be lost to it
            outcome.reasons.append("another process copies keys to it and cannot be stopped yet: try again")
        if not terms.dry_run and (not hub.beside if terms.force else not outcome.reasons):
            faults.reached("flip drained")
            _cross(proxy, moving, drained)
            outcome.flipped = True
    except OSError as problem:
        outcome.reasons.append(f"given up, nothing has changed: the state cannot be saved: {problem.strerror}")
    finally:
        hub.repair.hurry(False)
        hub.resume(FLIP)
        outcome.pause_ms = round((time.monotonic() - began) * 1000, 3)


async def _drain(proxy: Proxy, moving: Moving, seconds: float) -> bool:
    """Everything answered, everything repaired, everything acknowledged, every pinned session ready to move, within the
    time; checked at one instant."""
    hub = proxy.hub
    answers: list[bytes | None] = []
    hub.mirror.call(0, [[b"PING"]], answers.append)  # a side that hangs must not become the serving side
    hub.flush()

    def drained() -> bool:
        return bool(answers) and hub.drained and hub.settled

    told: list[bool] = []
    with trio.move_on_after(seconds):
        await hub.until(drained)
        hub.watch.barrier(lambda: told.append(True))  # what scripts and others have changed is known then, and dirty
        await moving.dial()  # for those that came since
        moving.prepare()
        await hub.until(lambda: bool(told) and moving.ready)
        while not drained():  # what a job has sent since the condition held is drained as well
            hub.flush()
            await hub.until(drained)
    return (
        bool(told)
        and moving.ready
        and drained()
        and None not in answers
        and hub.lane.link is not None
        and hub.mirror.link is not None
    )


def _left(proxy: Proxy, moving: Moving) -> str:
    hub = proxy.hub
    big = "".join(f", db {db} {show(key)} is being copied in pages" for db, key in hub.repair.copies_in_pages.places(3))
    return (
        f"{hub.lane.pending} replies awaited from the {proxy.serving.name.value}, {hub.repair.keys.dirty} keys dirty, "
        f"{hub.mirror.queued} replies awaited from the {proxy.mirror.name.value}{big}"
        f"{'' if moving.ready else ', connections of their own not ready there'}"
    )


def _cross(proxy: Proxy, moving: Moving, settled: bool) -> None:
    """Make it durable, swap, bring the pinned sessions along. Unless everything has settled, the old side is not known
    to be equal any more: going back needs a new backfill."""
    serving: Name = proxy.roles.mirror
    proxy.state.save(serving=serving, epoch=proxy.roles.epoch + 1)
    moving.leave_behind()
    faults.reached("flip left behind")
    proxy.swap_roles()
    faults.reached("flip swapped")
    if not settled:
        proxy.hub.repair.frozen = ""
        proxy.state.remember(frozen="")
        proxy.fall_back("the flip was forced: the old side has to be filled from the new one before a flip back")
    moving.hand_over()
    faults.reached("flip handed over")
