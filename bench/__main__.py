"""`python -m bench`: measures crossfade beside direct access, Envoy and twemproxy, and writes docs/performance.md."""

import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from backfill.embedded import EmbeddedError
from bench import cases, report, runner
from bench.peers import KINDS
from bench.processes import ROOT
from bench.runner import Plan

QUICK_S, FULL_S = 0.7, 1.0  # of one measurement
QUICK_BUDGET_S, FULL_BUDGET_S = 75.0, 18 * 60.0  # no new case begins after this

PIPE_WIDTH = 120  # columns of the tables when nobody's terminal says


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--quick", "mode", flag_value="quick", default="quick", help="SET and GET, P1 and P16: a minute [default]."
)
@click.option("--full", "mode", flag_value="full", help="All commands, sizes and client counts: below 20 minutes.")
@click.option("--peer", "peers", multiple=True, type=click.Choice(list(KINDS)), help="Only these (again and again).")
@click.option("--only", metavar="TEXT", default="", help='Only cases whose name has this in it, as in "SET 64 B, P16".')
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), help=f"One measurement [default: {QUICK_S} or {FULL_S}].")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=ROOT / "docs", help="[default: docs]")
@click.option("--raw", type=click.Path(path_type=Path, dir_okay=False), help="Every sample, as JSON.")
def main(
    mode: str, peers: tuple[str, ...], only: str, rounds: int, seconds: float | None, out: Path, raw: Path | None
) -> None:
    """Crossfade beside its peers, in one run: every figure a ratio of neighbours in time, median of the rounds.

    Needs redis-benchmark (Debian: redis-tools). Peers that are not installed are left out, and the report says so.
    """
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process and directory is cleaned up
    chosen = [case for case in (cases.full() if mode == "full" else cases.quick()) if only in case.label]
    if not chosen:
        raise click.UsageError(f"No case has {only!r} in its name.")
    wanted = [name for name in KINDS if name in peers or not peers]
    length, budget = (FULL_S, FULL_BUDGET_S) if mode == "full" else (QUICK_S, QUICK_BUDGET_S)
    options = [f"--{mode}", *(f"--peer {name}" for name in peers), *([f'--only "{only}"'] if only else [])]
    plan = Plan(" ".join(options), chosen, wanted, rounds, seconds or length, seconds or length, budget)
    try:
        results = runner.run(plan, lambda text: console.print(text, style="dim", highlight=False, markup=False))
    except EmbeddedError as error:
        raise click.ClickException(error.text) from None
    for table in report.tables(results):
        console.print(table.rich())
    for line in (*report.verdicts(results), *report.gaps(results)):
        console.print(line.replace("**", ""), markup=False, highlight=False)
    console.print(f"\nWritten: {report.write(results, out, raw)} ({results.took_s:.0f} s)", markup=False)


if __name__ == "__main__":
    main()
