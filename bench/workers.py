"""`python -m bench.workers`: what `crossfade proxy --workers N` costs and gives; writes docs/workers.md.

One proxy for each number of workers, each between two servers of its own, measured one right after the other in an
order that turns from round to round. CPU per command is told apart: the owner, which has the lane, and the workers
together. From these two figures follows on paper what more cores give, for a command costs them the same CPU there.
"""

import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from bench import load, machine
from bench.cases import WORKLOADS, Case
from bench.measure import cpu_seconds, own_cpu_seconds, settle
from bench.peers import Kind, Peer, crossfade, started
from bench.processes import ROOT
from bench.runner import SOURCE, TARGET

COUNTS = (0, 1, 2)
CORES = 8  # of the machine on paper: all for the proxy, the servers are elsewhere


@dataclass(frozen=True, slots=True)
class Cost:
    """One measurement: commands per second, and CPU µs per command."""

    rate: float
    owner_us: float
    workers_us: float


Found = dict[str, dict[int, list[Cost]]]  # by case and number of workers


def cases() -> list[Case]:
    return [
        Case(WORKLOADS[name], pipeline=depth, clients=clients)
        for clients in (50, 500)
        for depth in (1, 16)
        for name in ("SET", "GET")
    ]


def measure(rounds: int, seconds: float) -> tuple[Found, dict[str, str]]:
    """Every case, in each round every number of workers."""
    names = {f"workers-{count}": count for count in COUNTS}
    kinds = {
        name: Kind(partial(_start, str(count)), f"w{count}", mirrors=True) for name, count in names.items()
    }  # fmt: skip
    with (
        TemporaryDirectory(prefix="crossfade-bench-") as directory,
        started(list(kinds), (SOURCE, TARGET), Path(directory), kinds) as (peers, skipped),
    ):
        if skipped:
            raise click.ClickException(str(skipped))
        found: Found = {case.label: {count: [] for count in COUNTS} for case in cases()}
        for case in cases():
            click.echo(case.label, err=True)
            commands = {peer.name: _prepare(case, peer, seconds) for peer in peers}
            for number in range(rounds):
                for peer in peers[number % len(peers) :] + peers[: number % len(peers)]:
                    found[case.label][names[peer.name]].append(_sample(case, peer, commands[peer.name]))
        versions = machine.versions(peers[0].setting.source, peers[0].setting.target, peers[:1])
        return found, versions


def _start(count: str, setting, stack):
    return crossfade(setting, stack, "--workers", count)


def _prepare(case: Case, peer: Peer, seconds: float) -> int:
    load.prepare(case, peer.port, peer.prefix)
    commands = load.commands_for(case, peer.port, peer.prefix, seconds)
    settle(_pid(peer))
    return commands


def _pid(peer: Peer) -> int:
    assert peer.pid is not None
    return peer.pid


def _sample(case: Case, peer: Peer, commands: int) -> Cost:
    before = _cpu(_pid(peer))
    found = load.run(case, peer.port, peer.prefix, commands)
    settle(_pid(peer))
    owner, workers = (1e6 * (now - then) / commands for now, then in zip(_cpu(_pid(peer)), before, strict=True))
    return Cost(found.rate, owner, workers)


def _cpu(pid: int) -> tuple[float, float]:
    own = own_cpu_seconds(pid)
    return own, cpu_seconds(pid) - own


def on_paper(cost: Cost, cores: int) -> float:
    """Commands per second when the owner has one core, and the workers all the others."""
    return 1e6 / max(cost.owner_us, cost.workers_us / (cores - 1))


def _median(costs: list[Cost]) -> Cost:
    rate, owner, workers = (
        statistics.median(values) for values in zip(*((c.rate, c.owner_us, c.workers_us) for c in costs), strict=True)
    )
    return Cost(rate, owner, workers)


def _ratio(costs: list[Cost], single: list[Cost]) -> float:
    """Of neighbours in time."""
    return statistics.median(a.rate / b.rate for a, b in zip(costs, single, strict=True))


def report(found: Found, versions: dict[str, str], command: str) -> str:
    """The document."""
    rows, paper = [], []
    for label, by_count in found.items():
        single, most = _median(by_count[0]), _median(by_count[COUNTS[-1]])
        ratios = [f"{_ratio(by_count[count], by_count[0]):.2f}" for count in COUNTS[1:]]
        costs = [_median(by_count[count]) for count in COUNTS]
        cpu = [f"{cost.owner_us:.1f} + {cost.workers_us:.1f}" for cost in costs]
        rows.append(f"| {label} | {single.rate:,.0f} | {' | '.join(ratios)} | {' | '.join(cpu)} |")
        alone, many = 1e6 / single.owner_us, on_paper(most, CORES)
        bound = "owner" if most.owner_us >= most.workers_us / (CORES - 1) else "workers"
        paper.append(f"| {label} | {alone:,.0f} | {many:,.0f} | {many / alone:.1f} | {bound} |")
    facts = [f"| {name} | {value} |" for name, value in [*machine.describe().items(), *versions.items()]]
    counts = [f"{count} worker{'s'[: count != 1]}" for count in COUNTS[1:]]
    return "\n".join(
        [
            "# What workers give",
            "",
            f"Written by `{command}`. The load generator and both servers share the machine's cores with the proxy, so "
            "that more processes of the proxy compete with them here: the throughput shows where workers begin to pay "
            "on so few cores, the CPU per command what they cost anywhere.",
            "",
            f"| | commands/s, no workers | {' | '.join(f'x with {count}' for count in counts)} | "
            + " | ".join(f"CPU µs per command, {count} (owner + workers)" for count in COUNTS)
            + " |",
            "| --- |" + " ---: |" * (2 * len(COUNTS)),
            *rows,
            "",
            f"## On paper: {CORES} cores",
            "",
            f"The proxy alone on {CORES} cores, the owner on one, workers on the others, from the CPU per command "
            f"above with {COUNTS[-1]} workers: the owner does `1e6 / owner µs` commands a second at most, {CORES - 1} "
            f"workers `{CORES - 1}e6 / workers µs`; the less of the two counts. (The servers must keep up, too: one "
            "Redis does some 100,000 to 200,000 commands a second without pipelining.)",
            "",
            f"| | one process, commands/s | {CORES - 1} workers, commands/s | gain | bound by |",
            "| --- | ---: | ---: | ---: | --- |",
            *paper,
            "",
            "| | |",
            "| --- | --- |",
            *facts,
            "",
        ]
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=1.0, show_default=True, help="One measurement.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=ROOT / "docs" / "workers.md")
def main(rounds: int, seconds: float, out: Path) -> None:
    """Throughput and CPU with 0, 1 and 2 workers, in one run."""
    found, versions = measure(rounds, seconds)
    text = report(found, versions, f"python -m bench.workers --rounds {rounds} --seconds {seconds:g}")
    out.write_text(text)
    click.echo(text)


if __name__ == "__main__":
    main()
