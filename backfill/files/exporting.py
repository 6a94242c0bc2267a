"""Owns an export: every wanted key of a server, once, into a file. Killed at any time, it goes on (`export_progress`).

Keys that change meanwhile are exported as they were when they were read; keys that are there from beginning to end are
exported for sure (SCAN's promise).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import trio

from backfill.client import Client, command_names
from backfill.direct.selection import Selection
from backfill.scan import COUNT, START, databases, scan_page, select

from .export_progress import MAX_NAMED, ExportFile, ExportReport, Progress, Recent
from .formats import Writer
from .opening import Output
from .reading import Found, Keys, NotRead

KEYS_PER_READ = 500
SAVE_S = 1.0
SAVES_SHARE = 20  # saving takes at most one part in so many of the time


async def export(
    client: Client,
    writer: Writer,
    output: Output,
    wanted: Selection,
    progress: Progress,
    *,
    kept: ExportFile | None = None,
    relative: bool = False,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> ExportReport:
    """Write all wanted keys, from where `progress` is on; `output` stands there. `tell` gets the keys looked at and
    their number. Errors: BackfillError."""
    keys = Keys(client, command_names(await client.call(b"COMMAND")), relative=relative)
    counts = {db: count for db, count in (await databases(client)).items() if wanted.has_db(db)}
    total = sum(counts.values())
    run = _Run(client, keys, writer, output, wanted, progress)
    saver = _Saver(progress, output, kept, run_id_of(client))
    if progress.length:
        writer.go_on(progress.report.keys)
    else:
        output.write(writer.head())
    for db in sorted(counts.keys() - progress.position.done):
        await run.begin(db)
        while db not in progress.position.done:
            await run.page(db)
            tell(progress.position.scanned, total)
            await saver.page_is_done()
    output.write(writer.tail())
    progress.report.written_bytes = output.bytes
    return progress.report


def run_id_of(client: Client) -> str:
    """Which process the server is; empty where it does not tell."""
    return client.wire.server.get("run_id", "")


class _Run:
    """The work on an open connection and an open file."""

    def __init__(
        self, client: Client, keys: Keys, writer: Writer, output: Output, wanted: Selection, progress: Progress
    ) -> None:
        self._client, self._keys, self._writer, self._output = client, keys, writer, output
        self._wanted, self._progress = wanted, progress

    async def begin(self, db: int) -> None:
        await select(self._client, db)
        if self._progress.position.db != db:  # not in the middle of it
            self._progress.recent = Recent()

    async def page(self, db: int) -> None:
        """One step of the scan: its keys are written, or told as failed."""
        progress, wanted = self._progress, self._wanted
        cursor = progress.position.cursor if progress.position.db == db else START
        match = wanted.match[0] if len(wanted.match) == 1 else None
        page = await scan_page(self._client, cursor, count=COUNT, match=match)
        fresh = progress.recent.fresh(page.keys)
        for start in range(0, len(fresh), KEYS_PER_READ):
            chosen = wanted.filter(fresh[start : start + KEYS_PER_READ])  # may be none
            async with aclosing(self._keys.read(chosen, wanted.types)) as read:
                async for found in read:
                    self._write(found, db)
        progress.position.passed(db, page.cursor, len(fresh))

    def _write(self, found: Found | NotRead, db: int) -> None:
        report = self._progress.report
        if isinstance(found, NotRead):
            report.fail(found.key, found.reason)
            return
        try:
            found.head.db = db
            for data in self._writer.record(found.head, found.items):
                self._output.write(data)
        finally:
            found.close()
        report.keys += 1
        report.kinds[found.head.kind.decode("utf-8", "replace")] += 1
        if found.changed:
            report.changes += 1
            if len(report.changed) < MAX_NAMED:
                report.changed.append(found.head.key)


class _Saver:
    """Makes a checkpoint at the end of a page, when it is time."""

    def __init__(self, progress: Progress, output: Output, kept: ExportFile | None, run_id: str) -> None:
        self._progress, self._output, self._kept, self._run_id = progress, output, kept, run_id
        self._next = trio.current_time() + SAVE_S

    async def page_is_done(self) -> None:
        """Errors: FileError, CheckpointError."""
        began = trio.current_time()
        if self._kept is None or began < self._next:
            return
        await trio.to_thread.run_sync(self._save, self._kept)
        now = trio.current_time()
        self._next = now + max(SAVE_S, SAVES_SHARE * (now - began))

    def _save(self, kept: ExportFile) -> None:
        """The records first: what the checkpoint says of them must be there."""
        progress = self._progress
        progress.length, progress.report.written_bytes = self._output.sync(), self._output.bytes
        kept.save(progress, self._run_id)
