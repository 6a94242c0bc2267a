"""One run: every case, in each round every peer right after the other, in an order that turns from round to round."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import latency, load, machine
from bench.cases import Case
from bench.load import LoadError, Served
from bench.measure import cpu_seconds, settle
from bench.peers import Peer, started
from bench.results import Results, Sample

SOURCE, TARGET = "redis-6.2", "valkey-9.1"
EQUAL_LIMIT_S = 10.0
ERRORS_PER = 1000  # one error reply in so many commands spoils a figure; a proxy may probe its source now and then


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `mode` is the options in words, `seconds` the length of one measurement.

    After `budget_s` no new case begins.
    """

    mode: str
    cases: list[Case]
    peers: list[str]
    rounds: int
    seconds: float
    latency_s: float
    budget_s: float


def run(plan: Plan, say: Callable[[str], None]) -> Results:
    """Starts everything, measures, stops everything. What could not be measured is in the results, with the reason."""
    began = time.monotonic()
    with (
        TemporaryDirectory(prefix="crossfade-bench-") as name,
        started(plan.peers, (SOURCE, TARGET), Path(name)) as (peers, skipped),
    ):
        servers = peers[0].setting
        versions = machine.versions(servers.source, servers.target, peers)
        results = Results(plan.mode, plan.rounds, machine.describe(), versions)
        results.peers, results.skipped = [p.name for p in peers], skipped
        results.mirroring = {p.name for p in peers if p.mirrors}
        bench = _Bench(plan, results, say)
        for number, case in enumerate(plan.cases, 1):
            if time.monotonic() - began > plan.budget_s:
                results.left_out.append(case.label)
                continue
            say(f"[{number}/{len(plan.cases)}] {case.label}")
            results.cases.append(case.label)
            bench.measure(case, peers)
        bench.measure_latency(peers)
    results.took_s = time.monotonic() - began
    return results


class _Bench:
    def __init__(self, plan: Plan, results: Results, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._results = results
        self._say = say
        self._filled: dict[str, tuple[str, int]] = {}  # by peer: the data set its keys hold

    def measure(self, case: Case, peers: list[Peer]) -> None:
        counts: dict[Peer, int] = {}
        for peer in peers:
            with self._noting(case.label, peer):
                counts[peer] = self._prepare(case, peer)
        for number in range(self._plan.rounds):
            for peer in _turned(self._well(case, peers), number):
                with self._noting(case.label, peer):
                    self._results.samples.append(self._sample(case, peer, number, counts[peer]))
        for peer in self._well(case, peers):
            if peer.mirrors:
                with self._noting(case.label, peer):
                    self._compare(case, peer)

    def measure_latency(self, peers: list[Peer]) -> None:
        self._say("open-loop latency")
        for number in range(self._plan.rounds):
            for peer in _turned(peers, number):
                with self._noting("open loop", peer):
                    found = latency.run(peer.port, peer.prefix, self._plan.latency_s)
                    self._results.latency[peer.name, number] = found

    def _well(self, case: Case, peers: list[Peer]) -> list[Peer]:
        return [peer for peer in peers if (case.label, peer.name) not in self._results.failures]

    @contextmanager
    def _noting(self, label: str, peer: Peer) -> Iterator[None]:
        """What a peer cannot do is a result of the run, not its end."""
        try:
            yield
        except (LoadError, OSError) as error:
            self._results.failures[label, peer.name] = str(error)
            self._say(f"  {peer.name}: {error}")

    def _prepare(self, case: Case, peer: Peer) -> int:
        """Gives the number of commands that fill the time of one measurement."""
        if self._filled.get(peer.name) != case.dataset:
            load.prepare(case, peer.port, peer.prefix)
            self._filled[peer.name] = case.dataset
        load.probe(case, peer.port, peer.prefix)
        commands = load.commands_for(case, peer.port, peer.prefix, self._plan.seconds)
        if peer.pid is not None:
            settle(peer.pid)
        return commands

    def _sample(self, case: Case, peer: Peer, number: int, commands: int) -> Sample:
        served, before = Served.by(peer.setting.source.port), self._cpu(peer)
        found = load.run(case, peer.port, peer.prefix, commands)
        settled = peer.pid is None or settle(peer.pid)
        used = [(now - then) / commands * 1e6 for now, then in zip(self._cpu(peer), before, strict=True)]
        self._check_served(peer, served, commands)
        return Sample(
            peer=peer.name,
            case=case.label,
            round=number,
            rate=found.rate,
            p50_ms=found.p50_ms,
            p99_ms=found.p99_ms,
            proxy_us=used[2] if peer.pid is not None else None,
            source_us=used[0],
            target_us=used[1],
            settled=settled,
        )

    def _cpu(self, peer: Peer) -> list[float]:
        """CPU seconds so far: source, target and, where there is one, proxy."""
        pids = (peer.setting.source.pid, peer.setting.target.pid, peer.pid)
        return [cpu_seconds(pid) for pid in pids if pid is not None]

    def _check_served(self, peer: Peer, before: Served, commands: int) -> None:
        """A figure counts only when the source really served what was sent: a proxy that refuses is fast."""
        now = Served.by(peer.setting.source.port)
        if (now.errors - before.errors) * ERRORS_PER >= commands:
            raise LoadError(f"the source answered {now.errors - before.errors} commands with an error")
        if now.commands - before.commands < commands:
            raise LoadError(f"the source saw {now.commands - before.commands} of {commands} commands")

    def _compare(self, case: Case, peer: Peer) -> None:
        ports = peer.setting.source.port, peer.setting.target.port
        self._results.equality[case.label, peer.name] = load.compare(case, peer.prefix, *ports, EQUAL_LIMIT_S)


def _turned(peers: list[Peer], number: int) -> list[Peer]:
    """No peer always runs right behind the same neighbour, or first."""
    by = number % len(peers) if peers else 0
    return peers[by:] + peers[:by]
