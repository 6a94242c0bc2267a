"""`crossfade replicate`, and what it shares with `compare`: which keys are meant, how a run is shown and ended.

Owns options, what is printed, and exit codes: 0 done and equal, 1 differences or failed keys, 2 usage, 3 cannot
connect, 4 refused by a gate.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import trio
from setproctitle import setproctitle

from .cli_types import (
    EXIT_CONNECT,
    EXIT_DIFFERENT,
    EXIT_REFUSED,
    EXIT_USAGE,
    SizeType,
    UrlType,
    choosing_keys,
    fail,
    state_dir,
)
from .direct.checkpoint import Checkpoint, CheckpointError, CheckpointFile, default_name, identity
from .direct.feed import CannotFollow
from .direct.nurseries import open_nursery
from .direct.replicate import Mode, Plan, Refused, Replication, State
from .direct.selection import Selection, parse_slots
from .errors import BackfillError, ConnectError, ConnectionLost
from .findings import FindingsError
from .url import Url, UrlError

PROGRESS_S = 0.25


def code_of(problem: BackfillError) -> int:
    """The exit code that a failure has."""
    match problem:
        case CheckpointError() | FindingsError() | UrlError():
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


def checkpointing(command: Callable[..., None]) -> Callable[..., None]:
    """Where it goes on after a kill, and whether it does."""
    for decorate in (
        click.option("--restart", is_flag=True, help="Begin anew, whatever the checkpoint says."),
        state_dir("Where the checkpoint is kept, unless --checkpoint says so."),
        click.option(
            "--checkpoint", type=click.Path(dir_okay=False, path_type=Path), help="Where to go on after a kill."
        ),
    ):
        command = decorate(command)
    return command


def waiting(command: Callable[..., None]) -> Callable[..., None]:
    """How long it tries again when a server is away."""
    return click.option(
        "--patience",
        type=click.FloatRange(min=0),
        default=60.0,
        show_default=True,
        help="Seconds without any progress.",
    )(command)


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
@waiting
@checkpointing
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

    With --type a key of another type on SOURCE is as good as none there: with --mode live (or --delete-extra) it is
    deleted on TARGET, if it is of a wanted type there. What is of another type on TARGET stays.
    """
    selection = selection_of(source, target, **chosen)
    live = mode == Mode.LIVE.value
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
    replication = Replication(plan, file, say)
    problem = run_locked(file, restart, replication.run, lambda: _replicate_bar(replication))
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
        click.echo(line)


def say(text: str) -> None:
    """One line for whoever watches, beside the result."""
    click.echo(f"crossfade: {text}", err=True)


# -- running -----------------------------------------------------------------------------------------------------------


def run_locked(
    file: CheckpointFile, restart: bool, work: Callable[[], Awaitable[None]], bar: Callable[[], dict[str, Any]]
) -> BackfillError | None:
    """As `run`, as the only one with this checkpoint; with `restart` as if there were none."""
    try:
        file.lock()
        if restart:
            file.remove()
        return run(work, bar)
    except CheckpointError as trouble:
        return trouble
    finally:
        file.unlock()


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
    if not sys.stderr.isatty():
        return
    from rich.console import Console  # only where it is seen: it takes a fifth of the time until a command begins
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None, told="")
        while True:
            progress.update(task, **bar())
            await trio.sleep(PROGRESS_S)
