"""Chaos: hostile traffic while everything fails at random, and at rest both sides are compared.

    python -m tests.soak --seed 7 --faults 200 --seconds 300

A run is rounds: traffic with faults on top, then everything is healed, the traffic ends, and when the proxy says that
it has settled both servers are compared by `tests.equality`, which knows nothing of the proxy. The schedule (what
fails, when, for how long) comes from the seed alone; what the machine makes of it does not. Servers write their files
before they answer, so even a killed one has what it acknowledged.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.equality import compare_servers
from tests.promises import Promises
from tests.proxies import AdminError, DidNotStart, RunningProxy, until
from tests.relay import Relay, Way
from tests.servers import Server, make_server
from tests.traffic import Traffic, preload

MIRROR = {"source": "target", "target": "source"}  # by the serving side
PAIR = ("redis-6.2", "valkey-9.1")
KEYS = 2000
FAULTS_PER_ROUND = 8
ROUND_S = 6.0  # of faults, on average
LONGEST_S = 1.5  # of one fault; commands wait for longer than that, so no client sees an error
SETTLE_S = 60.0
OPERATOR_S = 8.0  # a flip that cannot be made gives up before
HOLD_S = 0.05  # so that there is something to strand
DURABLE = {"appendonly": "yes", "appendfsync": "no", "auto-aof-rewrite-percentage": "0"}
# What a client may be told while its server starts, besides what the traffic itself expects.
TOLERATED = ("LOADING",)


@dataclass(frozen=True, slots=True)
class Fault:
    """`at` and `seconds` count from the round's beginning, and from `at`."""

    at: float
    name: str
    side: str  # "source" or "target"; of no meaning to some
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:5.2f} s {self.name} {self.side} for {self.seconds:.2f} s"


# name -> weight
KINDS = {
    "kill proxy": 4,
    "pause server": 3,
    "kill server": 3,
    "restart server": 2,
    "empty mirror": 1,
    "cut links": 4,
    "refuse links": 2,
    "stop links": 3,
    "delay links": 2,
    "throttle links": 2,
    "close links one way": 2,
    "strand links": 3,
    "lose replies": 3,
    "backfill": 2,
    "verify": 1,
    "flip": 4,
}
# After these the keys of the last minute, or all, are copied again, which mends what went wrong before. So each of them
# is left out of half of the rounds.
HEALING = frozenset(["kill proxy", "kill server", "restart server", "empty mirror", "backfill"])


def schedule(seed: int, faults: int, without: Collection[str] = ()) -> list[list[Fault]]:
    """The rounds of a run; the same for the same arguments, always."""
    rng = Random(f"soak {seed}")
    kinds = {name: weight for name, weight in KINDS.items() if name not in without}
    rounds = []
    while faults > 0:
        count = min(faults, rng.randint(FAULTS_PER_ROUND // 2, FAULTS_PER_ROUND * 3 // 2))
        faults -= count
        drawn = {name: weight for name, weight in kinds.items() if rng.random() < 0.5 or name not in HEALING} or kinds
        span = ROUND_S * count / FAULTS_PER_ROUND
        moments = sorted(rng.uniform(0, span) for _ in range(count))
        names = rng.choices(list(drawn), list(drawn.values()), k=count)
        rounds.append(
            [
                Fault(round(at, 3), name, rng.choice(["source", "target"]), round(rng.uniform(0.02, LONGEST_S), 3))
                for at, name in zip(moments, names, strict=True)
            ]
        )
    return rounds


class Soak:
    """The servers, the proxy, and what is wrong with them at the moment."""

    def __init__(self, stack: ExitStack, seed: int, pair: tuple[str, str] = PAIR, keys: int = KEYS) -> None:
        self.seed = seed
        self.servers: dict[str, Server] = {}
        self.relays: dict[str, Relay] = {}
        for side, name in zip(("source", "target"), pair, strict=True):
            self.servers[side] = stack.enter_context(make_server(name, config=DURABLE))
            self.relays[side] = stack.enter_context(Relay(self.servers[side]))
        preload(self.servers["source"], keys, seed=seed, short_ttls=False)
        self.proxy = stack.enter_context(RunningProxy(self.relays["source"], self.relays["target"]))
        self.done: Counter[str] = Counter()
        self.commands = self.acknowledged = self.disconnects = self.comparisons = 0
        self.problems: list[str] = []
        self._undo: list[tuple[float, Callable[[], object]]] = []
        self._operators: list[threading.Thread] = []
        self._emptied = False
        self._begin: dict[str, Callable[[Fault], None]] = {
            "kill proxy": self._kill_proxy,
            "pause server": self._pause_server,
            "kill server": self._kill_server,
            "restart server": self._restart_server,
            "empty mirror": self._empty_mirror,
            "cut links": lambda fault: void(self.relays[fault.side].cut()),
            "refuse links": self._refuse_links,
            "stop links": self._stop_links,
            "delay links": self._delay_links,
            "throttle links": self._throttle_links,
            "close links one way": self._close_links_one_way,
            "strand links": self._strand_links,
            "lose replies": self._lose_replies,
            "backfill": lambda fault: self._operate("BACKFILL"),
            "verify": lambda fault: self._operate("VERIFY"),
            "flip": self._flip,
        }

    # -- one round -----------------------------------------------------------------------------------------------

    def round(self, number: int, faults: Sequence[Fault]) -> None:
        """Traffic and faults, then rest, then the comparison."""
        say(f"round {number}: {len(faults)} faults")
        before = len(self.problems)
        mirror = self.servers[MIRROR[self._serving()]]  # after a flip, clients go on with the same commands
        options: dict[str, Any] = {"clients": 12, "rate": 500.0, "also_known_to": mirror}
        traffic = Traffic(self.proxy, seed=self.seed * 1000 + number, tolerate_disconnects=True, **options)
        promises = Promises(self.proxy, clients=4, prefix=f"promise:{number}")
        with self._noting("the traffic"), traffic, promises:
            traffic.wait_for(50)
            self._under(faults)
            self.heal()
            with self._noting("after the faults"):
                traffic.wait_for(100)
        found = traffic.statistics()
        self.commands += found.commands
        self.disconnects += found.disconnects + promises.disconnects
        self.acknowledged += promises.kept
        # What a client was told, and what it found later: an error reply, a lost job, a counter that does not add up.
        self.problems += [text for text in found.findings if not any(part in text for part in TOLERATED)]
        with self._noting("at rest"):
            self._compare(promises)
        say(f"  {found.commands} commands, {promises.kept} promises, {len(self.problems) - before} problems")

    def _under(self, faults: Sequence[Fault]) -> None:
        began = time.monotonic()
        for fault in faults:
            self._wait_until(began + fault.at)
            say(f"  {fault}")
            self.done[fault.name] += 1
            self._begin[fault.name](fault)
        self._wait_until(began + max((fault.at + fault.seconds for fault in faults), default=0.0))

    def _wait_until(self, moment: float) -> None:
        """Faults end meanwhile."""
        while True:
            self._undo.sort(key=lambda entry: entry[0])
            if not self._undo or self._undo[0][0] > moment:
                break
            due, undo = self._undo.pop(0)
            time.sleep(max(0.0, due - time.monotonic()))
            undo()
        time.sleep(max(0.0, moment - time.monotonic()))

    def heal(self) -> None:
        """Everything works again, as far as that is not the proxy's business."""
        for _, undo in self._undo:
            undo()
        self._undo.clear()
        self._mend()
        self._start_proxy()
        self._join_operators()

    def _mend(self) -> None:
        for side, server in self.servers.items():
            server.start()
            server.resume()
            self.relays[side].heal()

    def _compare(self, promises: Promises) -> None:
        self._settle()
        self.comparisons += 1
        differences = compare_servers(self.servers["source"], self.servers["target"])
        self.problems += [f"different at rest: {difference}" for difference in differences]
        promises.check(self.servers[self._serving()])

    def _settle(self) -> None:
        """What an operator has to do is done, and the rest waited for."""
        self.until(lambda now: now["mirror"]["connected"] and now["lane"]["connected"], "both links")
        self.until(lambda now: now["verify"]["state"] != "running", "the end of the verify")
        if self._emptied or self.proxy.status()["phase"] == "filling":
            self.done["backfill at rest"] += 1
            say(f"  a backfill is due: {self.proxy.status()['problems']}")
            self.backfill()
            self._emptied = False
        self.until(lambda now: now["backfill"]["state"] != "running", "the end of the backfill")
        self.proxy.wait_settled(SETTLE_S)
        self.until(lambda now: now["phase"] == "in-sync", "phase in-sync")

    def backfill(self) -> None:
        """A complete one."""

        def complete() -> bool:
            self._ask("BACKFILL")  # it may run already
            self.until(lambda now: now["backfill"]["state"] != "running", "the end of a backfill")
            return bool(self.proxy.status()["backfill"]["state"] == "done")

        until(complete, "a complete backfill", SETTLE_S)

    def until(self, condition: Callable[[dict[str, Any]], Any], what: str) -> None:
        until(lambda: condition(self.proxy.status()), what, SETTLE_S)

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """A failure is noted with what the proxy says, and the run goes on."""
        try:
            yield
        except (AssertionError, OSError, RuntimeError, TimeoutError) as error:
            self.problems.append(f"{what}: {error!r}; status {self._ask('STATUS')}")

    # -- faults --------------------------------------------------------------------------------------------------

    def _later(self, fault: Fault, undo: Callable[[], object]) -> None:
        self._undo.append((time.monotonic() + fault.seconds, undo))

    def _kill_proxy(self, fault: Fault) -> None:
        self.proxy.kill()
        self._later(fault, self._start_proxy)

    def _start_proxy(self) -> None:
        """As a supervisor does it: again, should it end because its serving side is not there."""
        if not self.proxy.running:
            try:
                self.proxy.start()
            except DidNotStart:
                self._mend()
                self.proxy.start()

    def _pause_server(self, fault: Fault) -> None:
        server = self.servers[fault.side]
        if server.running:
            server.pause()
            self._later(fault, lambda: server.resume() if server.running else None)

    def _kill_server(self, fault: Fault) -> None:
        self.servers[fault.side].kill()
        self._later(fault, self.servers[fault.side].start)

    def _restart_server(self, fault: Fault) -> None:
        self.servers[fault.side].restart()

    def _empty_mirror(self, fault: Fault) -> None:
        """The mirror side comes back as its first start would find it."""
        self._join_operators()  # a flip under way would make it the serving side
        server = self.servers[MIRROR[self._serving()]]
        server.kill()
        for path in server.directory.rglob("*.aof*"):
            path.unlink()
        self._emptied = True
        self._later(fault, server.start)

    def _refuse_links(self, fault: Fault) -> None:
        relay = self.relays[fault.side]
        relay.refuse()
        relay.cut()
        self._later(fault, relay.heal)

    def _stop_links(self, fault: Fault) -> None:
        self.relays[fault.side].stop()
        self._later(fault, self.relays[fault.side].heal)

    def _delay_links(self, fault: Fault) -> None:
        self.relays[fault.side].delay(fault.seconds / 10)
        self._later(fault, self.relays[fault.side].heal)

    def _throttle_links(self, fault: Fault) -> None:
        self.relays[fault.side].throttle(30_000)
        self._later(fault, self.relays[fault.side].heal)

    def _close_links_one_way(self, fault: Fault) -> None:
        self.relays[fault.side].close_way(Way.TO_CLIENT if fault.seconds > LONGEST_S / 2 else Way.TO_SERVER)

    def _strand_links(self, fault: Fault) -> None:
        relay = self.relays[fault.side]
        relay.hold_these(Way.TO_SERVER)
        time.sleep(HOLD_S)
        relay.strand()
        self._later(fault, relay.deliver)

    def _lose_replies(self, fault: Fault) -> None:
        """The server did what it was told, and nobody will hear of it."""
        self.relays[fault.side].hold_these(Way.TO_CLIENT)
        time.sleep(HOLD_S)
        self.relays[fault.side].cut()

    # -- the operator --------------------------------------------------------------------------------------------

    def _flip(self, fault: Fault) -> None:
        if not self._emptied:
            self._operate("FLIP", "SKIP-VERIFY", "MAX-PAUSE", "800")

    def _operate(self, *args: str) -> None:
        """Without waiting for the answer: the next fault may come in the middle."""

        def operator() -> None:
            answer = self._ask(*args)
            if isinstance(answer, dict) and answer.get("flipped"):
                self.done["flip that happened"] += 1

        thread = threading.Thread(target=operator, name=" ".join(args), daemon=True)
        thread.start()
        self._operators.append(thread)

    def _join_operators(self) -> None:
        """A hanging server makes an operator wait; so everything is mended then."""
        for thread in self._operators:
            thread.join(OPERATOR_S)
            if thread.is_alive():
                self._mend()
                thread.join(SETTLE_S)
        self._operators.clear()

    def _ask(self, *args: str) -> Any:
        """A refusal, or no answer, is fine."""
        with suppress(AdminError, OSError):
            return self.proxy.admin(*args)
        return None

    def _serving(self) -> str:
        """As the state directory has it: the proxy need not run."""
        return str(json.loads((self.proxy.state_dir / "state.json").read_text())["serving"])


def void(_: object) -> None:
    """For what is called for its effect."""


def say(text: str) -> None:
    print(text, flush=True)


def soak(
    seed: int,
    faults: int,
    seconds: float,
    pair: tuple[str, str] = PAIR,
    keys: int = KEYS,
    without: Collection[str] = (),
) -> Soak:
    """A whole run; no further round begins after so many seconds. What was found is in `problems`."""
    began = time.monotonic()
    with ExitStack() as stack:
        run = Soak(stack, seed, pair, keys)
        run.backfill()
        for number, planned in enumerate(schedule(seed, faults, without)):
            if time.monotonic() - began > seconds:
                break
            run.round(number, planned)
        say(report(run, time.monotonic() - began))
        if run.problems:
            say(f"the proxy's log ends with:\n{run.proxy.log[-6000:]}")
    return run


def report(run: Soak, seconds: float) -> str:
    """What was done, and what came of it."""
    kinds = ", ".join(f"{name} {count}" for name, count in run.done.most_common())
    total = sum(run.done[name] for name in KINDS)
    lines = [
        f"seed {run.seed}: {total} faults ({kinds}) in {seconds:.0f} s",
        f"{run.commands} commands, {run.acknowledged} acknowledged writes written down, {run.disconnects} disconnects",
        f"compared at rest {run.comparisons} times: {len(run.problems)} problems",
        *(problem[:1500] for problem in run.problems[:20]),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Chaos on real servers; 0 differences are expected.")
    parser.add_argument("--seed", type=int, default=None, help="of the schedule and the traffic (drawn if not given)")
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=600.0, help="no new round is begun after so long")
    parser.add_argument("--source", default=PAIR[0])
    parser.add_argument("--target", default=PAIR[1])
    parser.add_argument("--keys", type=int, default=KEYS, help="on the source before the start")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        choices=list(KINDS),
        help="no such faults",
    )
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else Random().randrange(1_000_000)
    say(f"seed {seed}")
    run = soak(seed, args.faults, args.seconds, (args.source, args.target), args.keys, args.without)
    return 1 if run.problems else 0


if __name__ == "__main__":
    sys.exit(main())
