"""The commands of the CLI for files: export, import.

Owns options, what is printed, and exit codes: 0 done, 1 keys that failed or an import that stopped at a bad record, 2
usage (also: a file that cannot be opened), 3 the server cannot be reached or refuses.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import click
import trio
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from setproctitle import setproctitle

from backfill.cli_types import EXIT_CONNECT, EXIT_DIFFERENT, EXIT_USAGE, KINDS, UrlType, choosing_keys, fail
from backfill.client import Client
from backfill.compare import show
from backfill.direct.checkpoint import CheckpointError
from backfill.direct.selection import Selection, parse_slots
from backfill.errors import BackfillError
from backfill.files.export_progress import ExportFile, ExportReport, export_identity
from backfill.files.export_progress import Progress as Begun
from backfill.files.exporting import export, run_id_of
from backfill.files.formats import FORMATS, Format, format_of
from backfill.files.importing import ImportReport, Policy, Stopped, import_records
from backfill.files.opening import STANDARD, reading, writing
from backfill.files.records import Bad, FileError, Piece
from backfill.files.table_form import key_template
from backfill.files.writing import Existing, Outcome, Ttl
from backfill.url import Url

MAX_SHOWN = 20  # lines about single keys
CLIENT_NAME = "crossfade-files"
GO_ON = "; run the same command to go on"


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """Which keys, and the options that both commands have."""
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
        choosing_keys(types=[*KINDS, *FORMATS], more="; a format here means --format"),
        click.option("--format", "format_name", type=click.Choice(list(FORMATS)), help="By default, as FILE is named."),
    ):
        command = decorate(command)
    return command


def _chosen(
    file: str, format_name: str | None, types: tuple[str, ...], **chosen: tuple[Any, ...]
) -> tuple[Format, Selection]:
    """The format, and the keys. Errors: BackfillError."""
    named = next((name for name in types if name in FORMATS), format_name)
    match, exclude = (tuple(map(os.fsencode, chosen[name])) for name in ("match", "exclude"))
    kinds = frozenset(name.encode() for name in types if name not in FORMATS)
    try:
        slots = parse_slots(chosen["slots"])
    except BackfillError as problem:
        raise FileError(problem.text) from None
    return format_of(file, named), Selection(match, exclude, kinds, frozenset(chosen["dbs"]), slots)


# -- export ------------------------------------------------------------------------------------------------------------


@click.command("export")
@click.argument("source", type=UrlType())
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "--ttl",
    type=click.Choice([Ttl.ABSOLUTE.value, Ttl.RELATIVE.value]),
    default=Ttl.ABSOLUTE.value,
    show_default=True,
    help="Write the instant at which a key expires, or the time that remains; in ms.",
)
@click.option("--restart", is_flag=True, help="Begin anew, whatever the checkpoint says.")
@_filters
def export_command(
    source: Url, file: str, ttl: str, restart: bool, format_name: str | None, as_json: bool, **chosen: tuple[Any, ...]
) -> None:
    """Write the keys of SOURCE to FILE ("-": standard output; gzip if the name ends in .gz).

    Every db is exported, or the one that the URL names. FILE appears when it is whole. Killed at any time, the same
    command goes on where it was, but for standard output.
    """
    setproctitle(f"crossfade export {source} {click.format_filename(file)}")
    begin = time.monotonic()

    async def work() -> ExportReport:
        chosen["dbs"] = chosen["dbs"] or ((source.db,) if source.db else ())
        format, which = _chosen(file, format_name, **chosen)
        kept = ExportFile.of(file, export_identity(source, which, format.name, ttl))
        with _alone(kept, restart):
            async with Client.open(source, name=CLIENT_NAME) as client:
                begun = Begun() if kept is None else kept.begin(run_id_of(client), _note)
                keep = partial(_can_go_on, kept)
                with (
                    writing(file, length=begun.length, before=begun.report.written_bytes, keep=keep) as output,
                    _progress("export", count=True) as tell,
                ):
                    relative = ttl == Ttl.RELATIVE.value
                    return await export(
                        client, format.writer(), output, which, begun, kept=kept, relative=relative, tell=tell
                    )

    report = _run(work)
    _say(_export_document(report, file, time.monotonic() - begin), _export_lines, as_json, err=file == STANDARD)
    sys.exit(EXIT_DIFFERENT if report.failures else 0)


@contextmanager
def _alone(kept: ExportFile | None, restart: bool) -> Iterator[None]:
    """As the only one that writes this file; whoever ends it early is told that the same command goes on."""
    if kept is None:
        yield
        return
    try:
        kept.lock()
        if restart:
            kept.remove()
        yield
        kept.remove()
    except (BackfillError, KeyboardInterrupt) as problem:
        if isinstance(problem, KeyboardInterrupt) and kept.saved:
            _note(f"interrupted{GO_ON}")
        elif isinstance(problem, BackfillError) and kept.saved and not isinstance(problem, CheckpointError):
            problem.text += GO_ON
        raise
    finally:
        kept.unlock()


def _can_go_on(kept: ExportFile | None) -> bool:
    return kept is not None and kept.saved


def _note(text: str) -> None:
    """One line for whoever watches, beside the result."""
    click.echo(f"crossfade: {text}", err=True)


def _export_document(report: ExportReport, file: str, seconds: float) -> dict[str, Any]:
    return {
        "file": file,
        "keys": report.keys,
        "types": dict(sorted(report.kinds.items())),
        "bytes": report.written_bytes,
        "failed": report.failures,
        "failures": [{"key": show(key), "reason": reason} for key, reason in report.failed],
        "changed": report.changes,
        "changed_keys": list(map(show, report.changed)),
        "seconds": round(seconds, 3),
    }


def _export_lines(document: dict[str, Any]) -> Iterator[str]:
    types = ", ".join(f"{count:,} {kind}" for kind, count in document["types"].items())
    yield (
        f"{document['keys']:,} keys exported{f' ({types})' if types else ''}, {document['bytes']:,} bytes, "
        f"{document['seconds']:.1f} s"
    )
    if document["failed"]:
        yield f"{document['failed']:,} keys could not be read:"
        yield from (f"  {one['key']}: {one['reason']}" for one in document["failures"][:MAX_SHOWN])
    if document["changed"]:
        yield f"{document['changed']:,} big keys changed while they were read in pages:"
        yield from (f"  {key}" for key in document["changed_keys"][:MAX_SHOWN])


# -- import ------------------------------------------------------------------------------------------------------------


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.argument("target", type=UrlType())
@click.option("--replace", is_flag=True, help="Replace keys that exist.")
@click.option("--skip-existing", is_flag=True, help="Leave keys that exist as they are.")
@click.option("--skip-bad", is_flag=True, help="Go on behind a record that cannot be imported, and list it at the end.")
@click.option(
    "--ttl",
    type=click.Choice([mode.value for mode in Ttl]),
    default=Ttl.AUTO.value,
    show_default=True,
    help="What the ttls in the file are: instants, or what remains, in ms. auto: an instant from 10^12 on.",
)
@click.option(
    "--key",
    metavar="TEMPLATE",
    help="FILE is a table: make a hash of every row or object, under this key, like 'beer:{id}'.",
)
@_filters
def import_command(
    file: str,
    target: Url,
    replace: bool,
    skip_existing: bool,
    skip_bad: bool,
    ttl: str,
    key: str | None,
    format_name: str | None,
    as_json: bool,
    **chosen: tuple[Any, ...],
) -> None:
    """Write the keys in FILE ("-": standard input) to TARGET.

    A key goes into the db that it came from, or into the one that the URL names. A key that exists, or a record that is
    wrong, ends the import with its line. After an interruption, run the same command with --replace or --skip-existing.
    """
    if replace and skip_existing:
        raise click.UsageError("--replace or --skip-existing: not both")
    setproctitle(f"crossfade import {click.format_filename(file)} {target}")
    existing = Existing.REPLACE if replace else Existing.SKIP if skip_existing else Existing.FAIL
    policy = Policy(existing, Ttl(ttl), skip_bad, target.db or None)
    begin = time.monotonic()
    report = ImportReport()

    async def work() -> None:
        format, which = _chosen(file, format_name, **chosen)
        with reading(file) as found:
            records = _records(format, key, found.chunks())
            async with Client.open(target, name=CLIENT_NAME) as client:
                with _progress("import", total=found.size) as advance:
                    await import_records(
                        client, records, which, policy, report, lambda _: advance(found.done, found.size or 0)
                    )

    stopped = ""
    try:
        _run(work)
    except Stopped as problem:
        stopped = problem.text
    document = _import_document(report, file, stopped, time.monotonic() - begin)
    if as_json or not stopped:
        _say(document, _import_lines, as_json, err=False)
    if stopped:
        done = f"{report.outcomes[Outcome.WRITTEN]:,} keys were imported"
        fail(f"{stopped}; {done}", EXIT_DIFFERENT)
    sys.exit(EXIT_DIFFERENT if report.bad or report.lossy else 0)


def _records(format: Format, key: str | None, chunks: Iterator[bytes]) -> Iterator[Piece | Bad]:
    if key is None:
        return format.read(chunks)
    if format.table is None:
        raise FileError(f"--key is for tables: csv, tsv, psv, json or jsonl, not {format.name}")
    key_template(key)  # what is wrong with it is said before anything is done
    return format.table(chunks, key)


def _import_document(report: ImportReport, file: str, stopped: str, seconds: float) -> dict[str, Any]:
    return {
        "file": file,
        "records": report.records,
        "imported": report.outcomes[Outcome.WRITTEN],
        "existing": report.outcomes[Outcome.EXISTED],
        "expired": report.outcomes[Outcome.EXPIRED],
        "filtered": report.filtered,
        "bad": report.bad,
        "problems": [{"line": one.line, "text": one.text} for one in report.problems],
        "lossy": report.lossy,
        "losses": [{"line": one.line, "text": one.text} for one in report.losses],
        "stopped": stopped,
        "seconds": round(seconds, 3),
    }


def _import_lines(document: dict[str, Any]) -> Iterator[str]:
    names = {"existing": "exist and were left", "expired": "expired", "filtered": "not wanted", "bad": "bad"}
    others = "".join(f", {document[name]:,} {text}" for name, text in names.items() if document[name])
    yield f"{document['imported']:,} keys imported{others}, {document['seconds']:.1f} s"
    for one in document["problems"][:MAX_SHOWN]:
        yield f"  line {one['line']}: {one['text']}"
    if document["bad"] > MAX_SHOWN:
        yield f"  ... and {document['bad'] - MAX_SHOWN:,} more (--json lists 1,000)"
    if document["lossy"]:
        yield f"{document['lossy']:,} keys lost something that the target cannot hold:"
        yield from (f"  line {one['line']}: {one['text']}" for one in document["losses"][:MAX_SHOWN])


# -- both --------------------------------------------------------------------------------------------------------------


def _run(work: Callable[[], Awaitable[Any]]) -> Any:
    """Run it; what was to be expected ends the process with one line. Errors: Stopped."""
    try:
        return trio.run(work)
    except Stopped:
        raise
    except (FileError, CheckpointError) as problem:
        _forget_output()
        fail(problem.text, EXIT_USAGE)
    except BackfillError as problem:
        fail(problem.text, EXIT_CONNECT)


def _forget_output() -> None:
    """When the reader of our standard output has gone, nothing may be written to it at the end, either."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(document: dict[str, Any], lines: Callable[[dict[str, Any]], Iterator[str]], as_json: bool, err: bool) -> None:
    if as_json:
        click.echo(json.dumps(document), err=err)
        return
    for line in lines(document):
        click.echo(line, err=err)


class _Rate(ProgressColumn):
    """Keys, or bytes, a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


@contextmanager
def _progress(what: str, *, total: int | None = None, count: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; nothing elsewhere. Gives what to call with done and total."""
    console = Console(stderr=True)
    amount = MofNCompleteColumn() if count else TaskProgressColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done, of: bar.update(task, completed=done, total=max(done, of) or None)
