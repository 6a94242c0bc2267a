"""What a run found, and the arithmetic on it: ratios within one round, then the median of the rounds.

Absolute figures of a shared machine drift by tens of percent within minutes; two neighbours of the same second do not.
Pure: no I/O.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import Enum
from statistics import median
from typing import Any

from bench.latency import Latency
from bench.load import Equality

MARGIN = 0.05  # a median nearer to 1 than this is called even


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one peer in one round. CPU in microseconds per command; `proxy_us` is None without a proxy process."""

    peer: str
    case: str
    round: int
    rate: float
    p50_ms: float
    p99_ms: float
    proxy_us: float | None
    source_us: float
    target_us: float
    settled: bool


Reading = Callable[[Sample], float | None]


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    of: Reading
    more_is_better: bool


RATE = Metric("commands per second", lambda s: s.rate, True)
PATH = Metric(
    "CPU time of proxy and servers per command", lambda s: (s.proxy_us or 0) + s.source_us + s.target_us, False
)
CPU = Metric("CPU time in the proxy per command", lambda s: s.proxy_us, False)
P50 = Metric("median latency", lambda s: s.p50_ms, False)
P99 = Metric("p99 latency", lambda s: s.p99_ms, False)
METRICS = (CPU, RATE, P50, P99)  # those on which a verdict is given


class Verdict(Enum):
    AHEAD = "ahead"
    EVEN = "even"
    BEHIND = "behind"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of the rounds' ratios, and their range."""

    median: float
    low: float
    high: float

    def verdict(self, metric: Metric) -> Verdict:
        """Ahead or behind only when every round says so and the median is beyond the margin."""
        if self.low > 1 and self.median > 1 + MARGIN:
            return Verdict.AHEAD if metric.more_is_better else Verdict.BEHIND
        if self.high < 1 and self.median < 1 - MARGIN:
            return Verdict.BEHIND if metric.more_is_better else Verdict.AHEAD
        return Verdict.EVEN


@dataclass(slots=True)
class Results:
    """Filled by the run; `failures` and `skipped` say why a figure is missing, by (case, peer) and by peer."""

    mode: str
    rounds: int
    machine: dict[str, str]
    versions: dict[str, str]
    peers: list[str] = field(default_factory=list)
    mirroring: set[str] = field(default_factory=set)
    cases: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    equality: dict[tuple[str, str], Equality] = field(default_factory=dict)
    latency: dict[tuple[str, int], Latency] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    took_s: float = 0.0

    def values(self, case: str, peer: str, metric: Metric) -> dict[int, float]:
        """By round."""
        if (case, peer) in self.failures:
            return {}
        samples = (s for s in self.samples if s.case == case and s.peer == peer)
        return {s.round: value for s in samples if (value := metric.of(s)) is not None}

    def middle(self, case: str, peer: str, metric: Metric) -> float | None:
        values = self.values(case, peer, metric)
        return median(values.values()) if values else None

    def ratio(self, case: str, peer: str, other: str, metric: Metric) -> Ratio | None:
        return _ratio(self.values(case, peer, metric), self.values(case, other, metric))

    def latency_ratio(self, peer: str, other: str, of: Callable[[Latency], float]) -> Ratio | None:
        by_peer = [{r: of(found) for (name, r), found in self.latency.items() if name == who} for who in (peer, other)]
        return _ratio(*by_peer)

    def as_json(self) -> dict[str, Any]:
        whole = asdict(self)
        for name in ("failures", "equality", "latency"):
            whole[name] = [{"of": list(key), "is": value} for key, value in whole[name].items()]
        return whole | {"mirroring": sorted(self.mirroring)}


def _ratio(mine: dict[int, float], theirs: dict[int, float]) -> Ratio | None:
    ratios = [mine[r] / theirs[r] for r in mine if theirs.get(r)]
    return Ratio(median(ratios), min(ratios), max(ratios)) if ratios else None
