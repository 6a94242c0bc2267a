"""The commands of the CLI that need no proxy: replicate, compare.

Owns options, what is printed, and exit codes: 0 done and equal, 1 differences or failed keys, 2 usage, 3 cannot
connect, 4 refused by a gate.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import sys
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from setproctitle import setproctitle

from .cli_types import EXIT_CONNECT, EXIT_DIFFERENT, EXIT_REFUSED, EXIT_USAGE, SizeType, UrlType, choosing_keys, fail
from .compare import show
from .counts import STATUSES
from .direct.checkpoint import Checkpoint, CheckpointError, default_name, identity
from .direct.comparing import ComparePlan, Comparison, Finding
from .direct.feed import CannotFollow
from .direct.nurseries import open_nursery
from .direct.replicate import Mode, Plan, Refused, Replication, State
from .direct.selection import Selection, parse_slots
from .errors import BackfillError, ConnectError, ConnectionLost
from .url import Url, UrlError

PROGRESS_S = 0.25

out = Console(highlight=False)


def code_of(problem: BackfillError) -> int:
    """The exit code that a failure has."""
    match problem:
        case CheckpointError() | UrlError():
            return EXIT_USAGE
        case ConnectError() | ConnectionLost():
            return EXIT_CONNECT
        case Refused() | CannotFollow():
            return EXIT_REFUSED
        case _:
            return EXIT_DIFFERENT


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """The two servers, and the options that choose keys."""
    for decorate in (
        choosing_keys(),
        click.argument("target", type=UrlType(), envvar="CROSSFADE_TARGET"),
        click.argument("source", type=UrlType(), envvar="CROSSFADE_SOURCE"),
    ):
        command = decorate(command)
    return command


def selection_of(source: Url, target: Url, **chosen: tuple[Any, ...]) -> Selection:
    """What the options say. A db in the URLs is as good as --db. Ends the process when they contradict each other."""
    dbs = frozenset(chosen["dbs"])
    if source.db != target.db:
        fail("source and target URL must name the same db: every db is copied to that of the same number", EXIT_USAGE)
    if source.db and dbs - {source.db}:
        fail(f"the URLs name db {source.db}, --db another one", EXIT_USAGE)
    try:
        return Selection(
            tuple(map(os.fsencode, chosen["match"])),
            tuple(map(os.fsencode, chosen["exclude"])),
            frozenset(kind.encode() for kind in chosen["types"]),
            dbs or (frozenset([source.db]) if source.db else dbs),
            parse_slots(chosen["slots"]),
        )
    except BackfillError as problem:
        fail(problem.text, EXIT_USAGE)


# -- replicate ---------------------------------------------------------------------------------------------------------


@click.command()
@selecting
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default=Mode.SNAPSHOT.value,
    show_default=True,
    help="Copy what is there, or go on with what changes.",
)
@click.option("--struct", is_flag=True, help="Rebuild every key by its type, also where DUMP and RESTORE would do.")
@click.option("--rate", type=click.FloatRange(min=0), default=0.0, help="Keys a second at most.")
@click.option("--bandwidth", type=SizeType(), default=0.0, help="Bytes a second at most, as 20MB.")
@click.option(
    "--allow-non-empty",
    "--replace",
    "allow_non_empty",
    is_flag=True,
    help="Take a target that has keys; those of the same name are replaced.",
)
@click.option("--delete-extra", is_flag=True, help="Delete what the source does not have; with --mode live, always.")
@click.option("--until-converged", is_flag=True, help="With --mode live: end when both sides are equal and at rest.")
@click.option(
    "--patience", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds without any progress."
)
@click.option("--checkpoint", type=click.Path(dir_okay=False, path_type=Path), help="Where to go on after a kill.")
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("crossfade-state"),
    envvar="CROSSFADE_STATE_DIR",
    show_default=True,
    help="Where the checkpoint is kept, unless --checkpoint says so.",
)
@click.option("--restart", is_flag=True, help="Begin anew, whatever the checkpoint says.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def replicate(
    source: Url,
    target: Url,
    mode: str,
    struct: bool,
    rate: float,
    bandwidth: float,
    allow_non_empty: bool,
    delete_extra: bool,
    until_converged: bool,
    patience: float,
    checkpoint: Path | None,
    state_dir: Path,
    restart: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Copy the keys of SOURCE to TARGET, without a proxy: once, or (--mode live) on and on.

    URLs may come from the environment (CROSSFADE_SOURCE, CROSSFADE_TARGET), which keeps passwords off the command line.
    Killed at any time, the same command goes on where it was.
    """
    selection = selection_of(source, target, **chosen)
    live = mode == Mode.LIVE.value
    if live and selection.types:
        fail("--type does not go with --mode live: a key may change its type", EXIT_USAGE)
    if until_converged and not live:
        fail("--until-converged is for --mode live; a snapshot ends by itself", EXIT_USAGE)
    setproctitle(f"crossfade replicate {source} {target} --mode {mode}")
    plan = Plan(
        source,
        target,
        Mode(mode),
        selection,
        struct=struct,
        allow_non_empty=allow_non_empty,
        delete_extra=delete_extra,
        until_converged=until_converged,
        keys_rate=rate,
        bytes_rate=bandwidth,
        patience=patience,
    )
    which = identity(source, target, selection, mode)
    file = Checkpoint(checkpoint or state_dir / default_name(which), which)
    replication = Replication(plan, file, lambda text: click.echo(f"crossfade: {text}", err=True))
    try:
        file.lock()
        if restart:
            file.remove()
        problem = run(replication.run, lambda: _replicate_bar(replication))
    except CheckpointError as trouble:
        problem = trouble
    finally:
        file.unlock()
    _tell_replication(replication, as_json)
    if problem is not None:
        fail(problem.text, code_of(problem))
    sys.exit(0 if replication.clean else EXIT_DIFFERENT)


def _replicate_bar(replication: Replication) -> dict[str, Any]:
    status = replication.status()
    seconds = status["seconds"]
    told = f"{status['copied'] / seconds:,.0f} keys/s" if seconds else ""
    if "dirty" in status:
        word = "converged" if status["converged"] else f"{status['dirty']:,} dirty, lag {status['lag_ms']:,} ms"
        told = f"{told}, {word}"
    if status["failed"]:
        told += f", {status['failed']:,} failed"
    return {"completed": status["scanned"], "total": max(status["total"], status["scanned"]) or None, "told": told}


def _tell_replication(replication: Replication, as_json: bool) -> None:
    status = replication.status()
    if as_json:
        click.echo(json.dumps(status))
        return
    if status["state"] == State.FAILED.value and not status["scanned"]:
        return  # the reason is all there is to say
    seconds = status["seconds"]
    rate = f"{status['copied'] / seconds:,.0f} keys/s" if seconds else ""
    lines = [
        f"{status['copied']:,} keys copied ({status['bytes'] / 1e6:,.1f} MB, {status['big']:,} of them in pages), "
        f"{status['deleted']:,} deleted, {status['failed']:,} failed, {seconds:.1f} s, {rate}"
    ]
    if "converged" in status:
        lines.append("converged: " + ("yes" if status["converged"] else f"no: {status['why']}"))
    if status["state"] == State.INTERRUPTED.value and "converged" not in status:
        lines.append("not complete: run the same command to go on")
    lines += [f"note: {text}" for text in status["notes"]]
    lines += [f"failed: {text}" for text in status["failures"]]
    lines += [f"not all of it: {text}" for text in status["losses"]]
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)


# -- compare -----------------------------------------------------------------------------------------------------------


class SampleType(click.ParamType[tuple[float, int]]):
    """N keys, or P% of them."""

    name = "N|P%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)%", str(value).strip())
        if found is None or (found[2] and not 0 < float(found[2]) <= 100) or found[1] == "0":
            self.fail(f"{value!r} is not a number of keys, nor a percentage: write 10000 or 5%", param, ctx)
        return (float(found[2]) / 100, 0) if found[2] else (1.0, int(found[1]))


@click.command()
@selecting
@click.option("--tolerance", type=click.IntRange(min=0), default=1000, show_default=True, help="Between TTLs, in ms.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Looks at a key that differs.")
@click.option("--pause", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Between them, in seconds.")
@click.option("--sample", type=SampleType(), help="Only so many keys, or this part of them, by chance.")
@click.option("--rate", type=click.FloatRange(min=0), default=0.0, help="Keys a second at most.")
@click.option("--fix", is_flag=True, help="Copy what differs to TARGET, delete what only TARGET has.")
@click.option("--findings", type=click.Path(dir_okay=False, writable=True), help="All differences as JSON lines.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(
    source: Url,
    target: Url,
    tolerance: int,
    rounds: int,
    pause: float,
    sample: tuple[float, int] | None,
    rate: float,
    fix: bool,
    findings: str | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Compare SOURCE and TARGET key by key, both ways, without a proxy.

    A key that differs is looked at again after a pause, as it may have changed between the two reads. The exit code is
    0 when all is equal (with --fix: by now), 1 when not.
    """
    selection = selection_of(source, target, **chosen)
    share, count = sample or (1.0, 0)
    setproctitle(f"crossfade compare {source} {target}")
    plan = ComparePlan(
        source,
        target,
        selection,
        tolerance_ms=tolerance,
        rounds=rounds,
        pause=pause,
        sample=share,
        sample_keys=count,
        seed=secrets.randbits(32),
        fix=fix,
        keys_rate=rate,
    )
    with ExitStack() as stack:
        tell = _findings_file(stack, findings)
        comparison = Comparison(plan, tell)
        problem = run(comparison.run, lambda: _compare_bar(comparison))
    _tell_comparison(comparison, as_json)
    if problem is not None:
        fail(problem.text, code_of(problem))
    report = comparison.report
    sys.exit(0 if report.complete and report.different == report.fixed else EXIT_DIFFERENT)


def _findings_file(stack: ExitStack, path: str | None) -> Callable[[Finding], None]:
    if path is None:
        return lambda finding: None
    try:
        file = stack.enter_context(Path(path).open("w"))  # noqa: SIM115 - the stack closes it
    except OSError as error:
        fail(f"cannot write the findings to {path}: {error.strerror}", EXIT_USAGE)
    return lambda finding: print(json.dumps(finding_json(finding)), file=file, flush=True)


def finding_json(finding: Finding) -> dict[str, Any]:
    """A key that is no text is told in base64."""
    document: dict[str, Any] = {"db": finding.db, "status": finding.status, "detail": finding.detail}
    try:
        document["key"] = finding.key.decode()
    except UnicodeDecodeError:
        document["key_base64"] = b64encode(finding.key).decode()
    return document


def _compare_bar(comparison: Comparison) -> dict[str, Any]:
    report = comparison.report
    told = f"{report.different:,} differ" if report.different else ""
    return {"completed": report.checked, "total": max(report.total, report.checked) or None, "told": told}


def _tell_comparison(comparison: Comparison, as_json: bool) -> None:
    report = comparison.report
    document = report.to_json()
    if as_json:
        click.echo(json.dumps({**document, "findings": [finding_json(finding) for finding in report.findings]}))
        return
    if not report.complete and not report.checked:
        return  # the reason is all there is to say
    lines = [f"{report.checked:,} keys compared, {report.equal:,} equal, {report.seconds:.1f} s"]
    named = [f"{document[name]:,} {name}" for name in STATUSES if document[name]]
    lines += [", ".join(named)] if named else []
    lines += [f"{report.fixed:,} of them fixed"] if report.fixed else []
    lines += [f"db {each.db} {each.status} {show(each.key)}: {each.detail}" for each in report.findings]
    if report.different > len(report.findings):
        lines.append(f"... and {report.different - len(report.findings):,} more (--findings FILE has all)")
    lines += [] if report.complete else ["not complete"]
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)


# -- running -----------------------------------------------------------------------------------------------------------


def run(work: Callable[[], Awaitable[None]], bar: Callable[[], dict[str, Any]]) -> BackfillError | None:
    """Run the work under a progress bar (on a terminal only), until it ends or SIGINT or SIGTERM ends it. The expected
    failure that ended it, if one did."""
    try:
        trio.run(_run, work, bar)
    except BackfillError as problem:
        return problem
    return None


async def _run(work: Callable[[], Awaitable[None]], bar: Callable[[], dict[str, Any]]) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_nursery() as nursery:

            async def stop() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            nursery.start_soon(_show, bar)
            await work()
            nursery.cancel_scope.cancel()


async def _show(bar: Callable[[], dict[str, Any]]) -> None:
    console = Console(stderr=True)
    if not console.is_terminal:
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None, told="")
        while True:
            progress.update(task, **bar())
            await trio.sleep(PROGRESS_S)


COMMANDS = [replicate, compare]
