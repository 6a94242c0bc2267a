"""What is wrong, since when, and what is being done: one line for each, for an operator at three in the morning.

Whoever finds something wrong sets it here by topic, and takes it away when it is over; both are logged, once. What can
be read off the proxy itself (a side that is away, keys that cannot be copied) nobody sets: `look` does, every second.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from backfill.compare import show
from proxy.watch import State

if TYPE_CHECKING:
    from proxy.dirty import Place
    from proxy.filling import Progress
    from proxy.server import Proxy
    from proxy.side import Side

log = logging.getLogger("crossfade")

Line = tuple[str, str]
"""What tells it from others of its kind, and the text."""

CALM_SECONDS = 15.0  # a problem that is back within so long is the same one: copies are tried again every few seconds
MANY_FAILING = 1000  # keys looked at
REASONS = 5  # told of them
LAG_SECONDS = 3.0  # of a mirror side that seems well otherwise


class Problems(dict[str, str]):
    """By topic: a line that says what is wrong."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._wall = wall
        self._since: dict[str, float] = {}
        self._over: dict[str, tuple[float, str]] = {}  # when it was taken away, and its text; not logged yet

    def __setitem__(self, topic: str, text: str) -> None:
        if topic not in self and self._over.pop(topic, None) is None:
            self._since[topic] = self._wall()
            log.warning("%s", text)
        super().__setitem__(topic, text)

    def pop(self, topic: str, *default: Any) -> Any:
        if topic in self:
            self._over[topic] = self._wall(), self[topic]
        return super().pop(topic, *default)

    def settle(self) -> None:
        """Log what is over, once it has been for a while."""
        for topic, (ended, text) in list(self._over.items()):
            if self._wall() - ended >= CALM_SECONDS:
                del self._over[topic]
                log.info("over, after %s: %s", duration(ended - self._since.pop(topic)), text)

    def lines(self) -> list[str]:
        """For the status: with since when."""
        return [f"{text} (for {duration(self._wall() - self._since[topic])})" for topic, text in self.items()]


def look(proxy: Proxy, filling: Progress) -> list[str]:
    """Everything that is wrong now."""
    problems = proxy.problems
    found = dict(_found(proxy, filling))
    for topic in [topic for topic in problems if topic.startswith(LOOKED_UP) and topic not in found]:
        problems.pop(topic)
    for topic, text in found.items():
        problems[topic] = text
    problems.settle()
    return [line for side in proxy.sides.values() for line in _side(proxy, side)] + problems.lines()


LOOKED_UP = "now: "  # how the topics begin that `look` sets


def _found(proxy: Proxy, filling: Progress) -> Iterator[tuple[str, str]]:
    for topic, check in CHECKS.items():
        for detail, text in check(proxy):
            yield f"{LOOKED_UP}{topic} {detail}", text
    reason = proxy.refill_reason
    if reason and not proxy.state.durable.backfilled and not proxy.finished:
        yield f"{LOOKED_UP}filling", f"a new backfill is due: {reason}; {_about_filling(proxy, filling)}"


def _about_filling(proxy: Proxy, filling: Progress) -> str:
    durable = proxy.state.durable
    if filling.state == "running":
        return f"the backfill is running again, {filling.copied:,} of {filling.total:,} keys"
    if durable.frozen:
        return "a new backfill waits for your decision"
    if durable.filled or durable.filling:
        return "a new backfill begins by itself when both sides are there"
    return "run `crossfade backfill`"


def _side(proxy: Proxy, side: Side) -> Iterator[str]:
    """A server that is away: what that means, and what is being done."""
    if not side.problem or (proxy.finished and side is proxy.mirror):
        return
    hub = proxy.hub
    if side is not proxy.serving:
        waiting = hub.repair.keys.dirty + hub.mirror.queued
        then = f"clients notice nothing; {waiting:,} writes wait for it"
    elif hub.refusal:
        then = "commands are answered with an error; `crossfade flip --force` if it is lost for good"
    else:
        then = "clients wait"
    since = duration(time.time() - side.since)
    yield f"{side.name.value} {side.url.address}: {_plain(side)} (for {since}; {then}; reconnecting)"


def _plain(side: Side) -> str:
    """Its problem without its address, which stands before it."""
    text = side.problem
    for words in (f" by {side.url.address}", f" to {side.url.address}", f" from {side.url.address}"):
        text = text.replace(words, "")
    return text.removeprefix(f"{side.url.address} ")


# -- what can be looked up -------------------------------------------------------------------------------------------


def _copies(proxy: Proxy) -> Iterator[Line]:
    """Keys that cannot be copied, by reason."""
    counts: Counter[str] = Counter()
    examples: dict[str, Place] = {}
    for place, mark in proxy.hub.repair.keys.failing(MANY_FAILING):
        if mark.reason != proxy.hub.repair.frozen:
            counts[mark.reason] += 1
            examples.setdefault(mark.reason, place)
    more = " or more" if sum(counts.values()) >= MANY_FAILING else ""
    for reason, count in counts.most_common(REASONS):
        db, key = examples[reason]
        who = f"db {db} {show(key)}" if count == 1 else f"{count:,}{more} keys (as db {db} {show(key)})"
        text = f"{who} cannot be copied to the {proxy.mirror.name.value}: {reason}; tried again every few seconds"
        yield reason, text


def _lag(proxy: Proxy) -> Iterator[Line]:
    mirror, lag = proxy.hub.mirror, proxy.hub.mirror.lag()
    if lag > LAG_SECONDS:
        text = (
            f"the {proxy.mirror.name.value} has not acknowledged the oldest of {mirror.queued:,} effects "
            f"({mirror.queued_bytes:,} bytes) for {lag:.0f} s; clients notice nothing"
        )
        yield "", text


def _unmirrored(proxy: Proxy) -> Iterator[Line]:
    unmirrored = proxy.hub.recorder.unmirrored
    if unmirrored:
        names = ", ".join(f"{name} ({count:,})" for name, count in unmirrored.most_common(REASONS))
        yield "", f"commands that could not be mirrored: {names}; run `crossfade backfill`, then `crossfade verify`"


def _lossy(proxy: Proxy) -> Iterator[Line]:
    found = proxy.hub.repair.losses
    for (db, key), text in found.first(1):
        yield "", f"{found} keys have what the {proxy.mirror.name.value} cannot hold (as db {db} {show(key)}: {text})"


def _watch(proxy: Proxy) -> Iterator[Line]:
    if proxy.hub.watch.state is State.REFUSED:
        text = (
            f"the {proxy.roles.serving.value} does not allow CLIENT TRACKING: undeclared script keys, evictions "
            "and writers that bypass the proxy are found by the scrub and by `crossfade verify` only"
        )
        yield "", text


def _frozen(proxy: Proxy) -> Iterator[Line]:
    if proxy.hub.repair.frozen:
        yield "", proxy.hub.repair.frozen


def _clients(proxy: Proxy) -> Iterator[Line]:
    if proxy.turned_away and proxy.hub.client_count >= proxy.max_clients:
        text = (
            f"{proxy.turned_away:,} clients were turned away: {proxy.max_clients:,} are connected, as many as may be "
            "(10,000, or what `ulimit -n` allows)"
        )
        yield "", text


def _workers(proxy: Proxy) -> Iterator[Line]:
    yield from proxy.fronts.problems()


def _pausing(proxy: Proxy) -> Iterator[Line]:
    if proxy.hub.pausing.kind:
        yield "", f"{proxy.hub.pausing}"


def _fences(proxy: Proxy) -> Iterator[Line]:
    for side in proxy.sides.values():
        if side.unfenced:
            text = (
                f"the {side.name.value} does not allow CLIENT KILL: what a lost connection still carries may run "
                "later; run `crossfade verify` before a flip"
            )
            yield "", text


CHECKS: dict[str, Callable[[Proxy], Iterator[Line]]] = {
    "workers": _workers,
    "frozen": _frozen,
    "copies": _copies,
    "lag": _lag,
    "unmirrored": _unmirrored,
    "lossy": _lossy,
    "clients": _clients,
    "fences": _fences,
    "pausing": _pausing,
    "watch": _watch,
}


def duration(seconds: float) -> str:
    """In the two units that matter."""
    seconds = max(0, int(seconds))
    for size, unit, smaller, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = seconds % size // smaller
            return f"{seconds // size} {unit}" + (f" {rest} {part}" if rest else "")
    return f"{seconds} s"
