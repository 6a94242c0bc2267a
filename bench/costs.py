"""`python -m bench.costs`: what the journal costs, a target that hangs or is gone, and thousands of idle clients.

The same proxy again and again, each with servers of its own, in one interleaved run: with each fsync policy and
without a journal; with its target healthy, stopped (SIGSTOP) and killed; with 9,800 more clients that do nothing.
Everything is a ratio to the first, neighbours in time.
"""

import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click
from rich.console import Console

from backfill.embedded import Server, free_port
from bench import latency, load, machine
from bench.cases import WORKLOADS, Case
from bench.measure import cpu_seconds, settle
from bench.processes import ROOT, Running, process
from bench.report import Table
from bench.results import Ratio
from bench.runner import SOURCE, TARGET

CASES = [Case(WORKLOADS["SET"], pipeline=1), Case(WORKLOADS["SET"], pipeline=16), Case(WORKLOADS["GET"], pipeline=1)]
PREFIX = "v"
HUNG, KILLED, IDLE = "hung", "killed", "idle"
IDLE_CLIENTS = 9_800  # as many as 20,000 descriptors allow
QUEUED, PORTION = 150_000, 10_000  # commands that fill the mirror queue; so many in one run
RATE = 2_000  # commands per second of the open loop
GROUPS = {
    "The journal": ("everysec", "never", "always", "none"),
    "The target": ("everysec", HUNG, KILLED),
    "Idle clients": ("everysec", IDLE),
}
NOTES = {
    "The journal": "`--journal-sync`; `everysec` is the default, `none` a proxy that is made to note nothing.",
    "The target": "`hung`: stopped with SIGSTOP, so that its connections stay and nothing is answered; `killed`: it "
    "refuses connections. Writes become dirty keys meanwhile; both are measured once the mirror queue is full.",
    "Idle clients": f"`idle`: {IDLE_CLIENTS:,} more clients are connected, which have said PING once.",
}


@dataclass(frozen=True, slots=True)
class Variant:
    """A proxy and its servers."""

    name: str
    running: Running
    source: Server
    target: Server


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. `cpu`: µs per command in the proxy; `late`: ms at a fixed rate, over all rounds."""

    cpu: float
    rate: float
    p99: float


def start(name: str, stack: ExitStack, directory: Path) -> Variant:
    """In the steady state: backfill done."""
    source, target = (stack.enter_context(Server(flavour)) for flavour in (SOURCE, TARGET))
    own = directory / name
    own.mkdir()
    port, state = free_port(), own / "state"
    sync = name if name in GROUPS["The journal"][:3] else "everysec"
    module = "bench.without_journal" if name == "none" else "crossfade"
    command = [sys.executable, "-m", module, "proxy", "--source", source.url, "--target", target.url]
    command += ["--listen", f"127.0.0.1:{port}", "--state-dir", str(state), "--journal-sync", sync]
    running = stack.enter_context(process(name, command, port, own, ""))
    backfill = [sys.executable, "-m", "crossfade", "backfill", "--state-dir", str(state)]
    subprocess.run(backfill, cwd=ROOT, capture_output=True, timeout=60, check=True)
    return Variant(name, running, source, target)


def spoil(variant: Variant, stack: ExitStack) -> None:
    """Stop or kill its target, and send enough for the mirror queue to be full."""
    if variant.name == HUNG:
        variant.target.pause()
        stack.callback(variant.target.resume)
    elif variant.name == KILLED:
        variant.target.kill()
    elif variant.name == IDLE:
        command = [sys.executable, "-m", "bench.idlers", str(variant.running.port), str(IDLE_CLIENTS)]
        idlers = stack.enter_context(
            subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(idlers.kill)
        assert idlers.stdout is not None
        if idlers.stdout.readline() != "ready\n":
            raise click.ClickException(f"{IDLE_CLIENTS:,} clients cannot be connected")
    if variant.name in (HUNG, KILLED):
        for _ in range(QUEUED // PORTION):
            load.run(CASES[1], variant.running.port, PREFIX, PORTION)


def sample(variant: Variant, case: Case, commands: int) -> Sample:
    before = cpu_seconds(variant.running.pid)
    found = load.run(case, variant.running.port, PREFIX, commands)
    settle(variant.running.pid)
    return Sample((cpu_seconds(variant.running.pid) - before) / commands * 1e6, found.rate, found.p99_ms)


def memory(pid: int) -> float:
    """Resident, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def turned(variants: list[Variant], number: int) -> list[Variant]:
    by = number % len(variants)
    return variants[by:] + variants[:by]


Measured = dict[tuple[str, str], list[Sample]]
Late = dict[str, list[latency.Latency]]
Memory = dict[str, float]  # MB, at the end


def measure(rounds: int, seconds: float, say: Console) -> tuple[Measured, Late, Memory, dict[str, str]]:
    names = list(dict.fromkeys(name for group in GROUPS.values() for name in group))
    found: Measured = {}
    late: Late = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="crossfade-bench-")))
        variants = [start(name, stack, directory) for name in names]
        for variant in variants:
            load.prepare(CASES[0], variant.running.port, PREFIX)
            spoil(variant, stack)
        for case in CASES:
            commands = {one.name: load.commands_for(case, one.running.port, PREFIX, seconds) for one in variants}
            say.print(case.label, style="dim", highlight=False)
            for number in range(rounds):
                for variant in turned(variants, number):
                    found.setdefault((case.label, variant.name), []).append(
                        sample(variant, case, commands[variant.name])
                    )
        say.print("open-loop latency", style="dim")
        for number in range(rounds):
            for variant in turned(variants, number):
                late.setdefault(variant.name, []).append(latency.run(variant.running.port, PREFIX, seconds, RATE))
        resident = {variant.name: memory(variant.running.pid) for variant in variants}
        versions = machine.versions(variants[0].source, variants[0].target, [])
    return found, late, resident, versions


def ratio(mine: list[float], base: list[float]) -> Ratio:
    """Round by round."""
    each = [one / other for one, other in zip(mine, base, strict=True)]
    return Ratio(median(each), min(each), max(each))


def show(found: Ratio) -> str:
    return f"{found.median:.2f} ({found.low:.2f}..{found.high:.2f})"


def tables(found: Measured, late: Late, resident: Memory) -> list[Table]:
    """One for each group."""
    return [_table(title, names, found, late, resident) for title, names in GROUPS.items()]


def _table(title: str, names: tuple[str, ...], found: Measured, late: Late, resident: Memory) -> Table:
    base, *others = names
    columns = ["", f"{base}, absolute", *(f"{name} ÷ {base}" for name in others)]
    rows = []
    for case in CASES:
        for label, unit, of in (
            ("CPU", "µs", lambda s: s.cpu),
            ("throughput", "/s", lambda s: s.rate),
            ("p99, closed loop", "ms", lambda s: s.p99),
        ):
            values = {name: [of(one) for one in found[case.label, name]] for name in names}
            absolute = f"{median(values[base]):,.3g} {unit}" if unit != "/s" else f"{median(values[base]):,.0f} {unit}"
            ratios = [show(ratio(values[name], values[base])) for name in others]
            rows.append([f"{case.label}: {label}", absolute, *ratios])
    for label, pick in (("p50", lambda one: one.p50), ("p99", lambda one: one.p99)):
        ms = {name: [pick(one) for one in late[name]] for name in names}
        rows.append(
            [
                f"{label} at {RATE:,}/s, open loop",
                f"{median(ms[base]):.3g} ms",
                *(show(ratio(ms[name], ms[base])) for name in others),
            ]
        )
    rows.append(["memory at the end", f"{resident[base]:.0f} MB", *(f"{resident[name]:.0f} MB" for name in others)])
    return Table(title, columns, rows, NOTES[title])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=1.0, show_default=True, help="One measurement.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=ROOT / "docs" / "costs.md")
def main(rounds: int, seconds: float, out: Path) -> None:
    """What the journal, a target that hangs and idle clients cost."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    began = time.monotonic()
    found, late, resident, versions = measure(rounds, seconds, console)
    shown = tables(found, late, resident)
    for table in shown:
        console.print(table.rich())
    facts = "\n".join(f"| {name} | {value} |" for name, value in [*machine.describe().items(), *versions.items()])
    text = "\n\n".join(
        [
            "# What the journal costs, a target that hangs, and idle clients",
            f"Written by `python -m bench.costs --rounds {rounds} --seconds {seconds:g}` "
            f"({time.monotonic() - began:.0f} s). All variants run in turns, each with servers of its own; a figure is "
            "the median of the rounds' ratios to the variant named first, in brackets their extremes. CPU is that of "
            "the proxy process, per command.",
            *(table.markdown() for table in shown),
            f"| | |\n| --- | --- |\n{facts}\n",
        ]
    )
    out.write_text(text)
    console.print(f"Written: {out}", markup=False, highlight=False)


if __name__ == "__main__":
    main()
