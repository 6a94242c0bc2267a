"""The commands of the CLI that talk to a running proxy: status, backfill, verify, flip, finish, thaw, stop.

Owns options, what is printed, and exit codes: 0 done and equal, 1 differences or failed keys, 2 usage, 3 cannot
connect, 4 refused by a gate. The work is done by the running proxy; these commands talk to its admin socket, and import
nothing of the proxy itself, which would take longer than to ask it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import trio
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from backfill.cli_types import (
    EXIT_CONNECT,
    EXIT_DIFFERENT,
    EXIT_REFUSED,
    EXIT_USAGE,
    Failed,
    SizeType,
    choosing_keys,
    fail,
    state_dir,
)
from backfill.client import Client, ReplyError
from backfill.counts import STATUSES
from backfill.errors import BackfillError, ConnectError
from backfill.url import Url
from proxy.show import finish_lines, flip_lines, force_lines, status_table, verify_lines
from proxy.state import ADMIN_SOCKET

POLL_SECONDS = 0.2  # progress of a job
WATCH_SECONDS = 0.5

out = Console(highlight=False)


state_dir_option = state_dir("Where the running proxy keeps its state and its admin socket.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


# -- talking to it -----------------------------------------------------------------------------------------------------


async def _ask(state_dir: Path, *args: str) -> Any:
    path = os.fspath(state_dir.resolve() / ADMIN_SOCKET)
    text = f"no proxy is running on the state directory {state_dir}: start one, or say --state-dir"
    if not os.path.exists(path):
        raise Failed(text, EXIT_CONNECT)
    try:
        async with Client.open(Url(path=path)) as client:
            reply = await client.call(*map(os.fsencode, args))
    except ConnectError as problem:
        if problem.kind == "refused":  # a socket that a killed proxy left behind
            raise Failed(text, EXIT_CONNECT) from None
        raise Failed(f"the proxy does not answer: {problem.text}", EXIT_CONNECT) from None
    except BackfillError as problem:
        raise Failed(f"the proxy does not answer: {problem.text}", EXIT_CONNECT) from None
    if isinstance(reply, ReplyError):
        raise Failed(str(reply).removeprefix("ERR "), EXIT_USAGE)
    return json.loads(reply) if reply[:1] in b"{[" else reply.decode()


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run what talks to the proxy; a failure ends the process with one line."""
    try:
        return trio.run(work)
    except Failed as problem:
        fail(problem.text, problem.code)


def ask(state_dir: Path, *args: str) -> Any:
    """One admin command. Ends the process when there is no proxy."""
    return run(lambda: _ask(state_dir, *args))


def follow(state_dir: Path, key: str, numbers: Callable[[dict[str, Any]], tuple[int, int]], quiet: bool) -> Any:
    """Show the progress of a job until it ends; its last status."""
    return run(lambda: _follow(state_dir, key, numbers, quiet))


async def _follow(state_dir: Path, key: str, numbers: Callable[[dict[str, Any]], tuple[int, int]], quiet: bool) -> Any:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(key, total=None, rate="")
        while True:
            status = (await _ask(state_dir, "STATUS"))[key]
            done, total = numbers(status)
            rate = f"{done / status['seconds']:,.0f} keys/s" if status["seconds"] else ""
            ended = status["state"] != "running"
            progress.update(task, completed=done, total=done if ended else max(total, done) or None, rate=rate)
            if ended:
                return status
            await trio.sleep(POLL_SECONDS)


async def _gone(path: Path) -> None:
    while path.exists():
        await trio.sleep(POLL_SECONDS)


async def _watch(state_dir: Path) -> None:
    with Live(console=out, refresh_per_second=2) as live:
        while True:
            live.update(status_table(await _ask(state_dir, "STATUS")))
            await trio.sleep(WATCH_SECONDS)


@click.command()
@state_dir_option
@json_option
@click.option("--watch", is_flag=True, help="Go on showing it.")
def status(state_dir: Path, as_json: bool, watch: bool) -> None:
    """What the running proxy is doing, and what is wrong."""
    if watch and not as_json:
        with suppress(KeyboardInterrupt):
            run(lambda: _watch(state_dir))
        return
    document = ask(state_dir, "STATUS")
    if as_json:
        click.echo(json.dumps(document, indent=1))
    else:
        out.print(status_table(document))


@click.command()
@state_dir_option
@json_option
@click.option("--rate", type=click.FloatRange(min=0), default=0.0, help="Keys a second at most; 0: as fast as it goes.")
@click.option("--bandwidth", type=SizeType(), default=0.0, help="Bytes a second at most, as 20MB; 0: no limit.")
@click.option("--impolite", is_flag=True, help="Do not yield to live traffic.")
@choosing_keys()
@click.option("--from-start", is_flag=True, help="Do not go on from where an earlier one was cut short.")
@click.option(
    "--mirror-again",
    is_flag=True,
    help="After `finish`: mirror to the source again; keys that only it has are deleted.",
)
def backfill(
    state_dir: Path,
    as_json: bool,
    rate: float,
    bandwidth: float,
    impolite: bool,
    from_start: bool,
    mirror_again: bool,
    **chosen: tuple[Any, ...],
) -> None:
    """Copy every key of the serving side, exactly, under live traffic.

    It runs inside the proxy: this command follows it, and may be interrupted and given again. One that was cut short
    goes on from its checkpoint. With a selection of keys (--match, --exclude, --type, --db, --slots) the phase stays
    what it is: only a backfill of everything ends `filling`.
    """
    options = ["RATE", str(rate), "BANDWIDTH", str(bandwidth)]
    flags = (("IMPOLITE", impolite), ("ANEW", from_start), ("MIRROR-AGAIN", mirror_again))
    options += [word for word, wanted in flags if wanted]
    for word, name in (
        ("MATCH", "match"),
        ("EXCLUDE", "exclude"),
        ("TYPE", "types"),
        ("DB", "dbs"),
        ("SLOTS", "slots"),
    ):
        options += [part for value in chosen[name] for part in (word, str(value))]
    ask(state_dir, "BACKFILL", *options)
    end = follow(state_dir, "backfill", lambda now: (now["copied"], now["total"]), as_json)
    if as_json:
        click.echo(json.dumps(end))
    else:
        out.print(
            f"{end['copied']:,} keys copied, {end['failed']:,} failed, {end['extra']:,} extra keys removed, "
            f"{end['seconds']:.1f} s"
        )
        if end["resumed"]:
            out.print(f"{end['resumed']:,} of them before it was cut short")
        if end["selection"]:
            text = f"only keys of {end['selection']}: the phase stays what it was until all keys are copied"
            out.print(text, markup=False)
        for line in end["failures"]:
            out.print(f"  {line}", markup=False)
        if end["problem"]:
            out.print(f"not complete: {end['problem']}", markup=False)
    sys.exit(0 if end["state"] == "done" else EXIT_DIFFERENT)


@click.command()
@state_dir_option
@json_option
@click.option("--repair", is_flag=True, help="Copy what differs, and look again.")
@click.option(
    "--ttl-tolerance",
    "--tolerance",
    "tolerance",
    type=click.IntRange(min=0),
    metavar="MS",
    default=1000,
    show_default=True,
    help="So far apart two deadlines may be.",
)
@click.option("--sample", type=click.IntRange(min=1), metavar="N", help="Look at about N keys, drawn at random, only.")
@click.option(
    "--findings",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write every finding to this file, a line of JSON each (the output shows 20, --json 1,000).",
)
def verify(
    state_dir: Path, as_json: bool, repair: bool, tolerance: int, sample: int | None, findings: Path | None
) -> None:
    """Compare both sides key by key, exactly, under live traffic.

    A sample that finds nothing does not open the gate of the flip: only a whole pass does.
    """
    options = [*(["REPAIR"] if repair else []), *(["SAMPLE", str(sample)] if sample else [])]
    options += ["FINDINGS", os.fspath(findings.resolve())] if findings else []
    ask(state_dir, "VERIFY", "TOLERANCE", str(tolerance), *options)
    end = follow(state_dir, "verify", lambda now: (now["checked"], now["total"]), as_json)
    shown = ask(state_dir, "FINDINGS")
    if as_json:
        click.echo(json.dumps({**end, "findings": shown}))
    else:
        for line in verify_lines(end, shown):
            out.print(line, markup=False)
    different = sum(end[name] for name in STATUSES)
    sys.exit(0 if end["state"] == "done" and not different else EXIT_DIFFERENT)


@click.command()
@state_dir_option
@json_option
@click.option("--dry-run", is_flag=True, help="Only the gate and the drain; nothing changes.")
@click.option("--force", is_flag=True, help="Although the gate says no.")
@click.option("--skip-verify", is_flag=True, help="Without a clean verify pass.")
@click.option("--max-pause", type=click.FloatRange(min=1), default=1000.0, show_default=True, help="In ms.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def flip(
    state_dir: Path, as_json: bool, dry_run: bool, force: bool, skip_verify: bool, max_pause: float, yes: bool
) -> None:
    """Let the other side serve. The same command flips back."""
    if force and not yes and not dry_run:
        gate = ask(state_dir, "FLIP", "DRY-RUN", "MAX-PAUSE", str(max_pause))
        for line in force_lines(gate):
            click.echo(line, err=True)
        click.confirm("Go on?", abort=True, err=True)
    flags = [("DRY-RUN", dry_run), ("FORCE", force), ("SKIP-VERIFY", skip_verify)]
    outcome = ask(state_dir, "FLIP", "MAX-PAUSE", str(max_pause), *(name for name, wanted in flags if wanted))
    if as_json:
        click.echo(json.dumps(outcome))
    else:
        for line in flip_lines(outcome, dry_run):
            out.print(line, markup=False)
    sys.exit(0 if outcome["flipped"] or (dry_run and not outcome["reasons"]) else EXIT_REFUSED)


@click.command()
@state_dir_option
@json_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def finish(state_dir: Path, as_json: bool, yes: bool) -> None:
    """End mirroring to the source, when you are content with the target. The proxy serves on as a plain proxy."""
    before = ask(state_dir, "STATUS")
    if not yes and not before["finished"] and before["serving"] == "target":
        click.confirm(
            f"What is written from now on will not be on the source ({before['source']['url']}): a flip back then "
            "needs a new backfill. Go on?",
            abort=True,
            err=True,
        )
    end = ask(state_dir, "FINISH")
    if as_json:
        click.echo(json.dumps(end))
    else:
        for line in finish_lines(end, before["target"]["url"]):
            out.print(line, markup=False)
    sys.exit(0 if end["finished"] else EXIT_REFUSED)


@click.command()
@state_dir_option
def thaw(state_dir: Path) -> None:
    """Accept that the serving side has lost keys: they are deleted on the mirror side, too."""
    thawed = ask(state_dir, "THAW")["thawed"]
    click.echo("deletions go on; a new backfill begins" if thawed else "nothing was frozen")


@click.command()
@state_dir_option
def stop(state_dir: Path) -> None:
    """Stop the running proxy, once everything has settled."""
    ask(state_dir, "STOP")
    run(lambda: _gone(state_dir / ADMIN_SOCKET))
