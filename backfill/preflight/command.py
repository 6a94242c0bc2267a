"""`crossfade preflight`: looks at both servers before anything starts, and says what stands in the way."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from backfill.cli_types import EXIT_CONNECT, EXIT_REFUSED, fail, source_and_target
from backfill.errors import BackfillError
from backfill.url import Url

from .judge import judge
from .look import look
from .model import Check, Look, Verdict
from .sample import look_at_keys

SAMPLE_SECONDS = 5.0

COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "red"}

out = Console(highlight=False)


@click.command()
@source_and_target
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=SAMPLE_SECONDS,
    show_default=True,
    help="For how long the source's keys are looked at.",
)
@click.option("--all-keys", is_flag=True, help="Look at every key of the source, however long it takes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def preflight(source: Url, target: Url, seconds: float, all_keys: bool, as_json: bool) -> None:
    """Look at both servers before anything starts, and say what stands in the way.

    Nothing is written to the source; on the target a key with a random name is set and deleted. Exit code 0: no
    problem; 4: there is one; 3: one of the servers cannot be reached.
    """
    try:
        checks, looks, took = trio.run(examine, source, target, seconds, all_keys, as_json)
    except BackfillError as problem:
        fail(problem.text, EXIT_CONNECT)
    bad = any(check.verdict is Verdict.PROBLEM for check in checks)
    if as_json:
        click.echo(json.dumps(_document(checks, looks, took), indent=1))
    else:
        out.print(_table(checks))
        out.print(_summary(checks, took))
    sys.exit(EXIT_REFUSED if bad else 0)


async def examine(
    source: Url, target: Url, seconds: float = SAMPLE_SECONDS, whole: bool = False, quiet: bool = True
) -> tuple[list[Check], list[Look], float]:
    """The verdicts, what they are drawn from, and how long it took (seconds). Errors: ConnectError, ConnectionLost."""
    began = time.monotonic()
    ours = await look(source, "source")
    theirs = await look(target, "target", used=ours.used, dbs=ours.sizes)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as progress:
        task = progress.add_task("keys", total=None)
        sample = await look_at_keys(
            ours,
            theirs,
            seconds=seconds,
            whole=whole,
            progress=lambda seen, total: progress.update(task, completed=seen, total=max(seen, total)),
        )
    return judge(ours, theirs, sample), [ours, theirs], time.monotonic() - began


def _document(checks: list[Check], looks: list[Look], took: float) -> dict[str, Any]:
    worst = max((check.verdict for check in checks), key=list(Verdict).index)
    sides = {side.role: {"url": str(side.url), "version": ".".join(map(str, side.version))} for side in looks}
    return {
        "verdict": worst.value,
        **sides,
        "checks": [check.to_json() for check in checks],
        "seconds": round(took, 3),
    }


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "check", "what was found", "what to do"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        colour = COLOURS[check.verdict]
        table.add_row(f"[{colour}]{check.verdict.value}[/]", check.name, _plain(check.fact), _plain(check.advice))
    return table


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _summary(checks: list[Check], took: float) -> str:
    counts = {verdict: sum(check.verdict is verdict for check in checks) for verdict in Verdict}
    problems, warnings = counts[Verdict.PROBLEM], counts[Verdict.WARNING]
    if problems:
        return f"\n{problems} problems to mend first, {warnings} warnings ({took:.1f} s)"
    return f"\nnothing stands in the way; {warnings} warnings ({took:.1f} s)"
