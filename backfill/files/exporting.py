"""Owns an export: every wanted key of a server, once, into a file.

Keys that change meanwhile are exported as they were when they were read; keys that are there from beginning to end are
exported for sure (SCAN's promise).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

from backfill.client import Client, command_names
from backfill.direct.selection import Selection
from backfill.scan import databases, scan, select

from .formats import Writer
from .opening import Output
from .reading import Found, Keys, NotRead

MAX_NAMED = 100  # of keys in a report
RECENT_KEYS = 100_000  # SCAN repeats a key only when the server's table shrinks, and then soon
RECENT_BYTES = 32 * 1024 * 1024
KEYS_PER_READ = 500


@dataclass(slots=True)
class ExportReport:
    """What was done. `failed` and `changed` name the first keys."""

    keys: int = 0
    written_bytes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    failed: list[tuple[bytes, str]] = field(default_factory=list)
    changes: int = 0
    changed: list[bytes] = field(default_factory=list)

    def fail(self, key: bytes, reason: str) -> None:
        self.failures += 1
        if len(self.failed) < MAX_NAMED:
            self.failed.append((key, reason))


class Recent:
    """Remembers the last keys, within bounds."""

    def __init__(self) -> None:
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()
        self._bytes = 0

    def fresh(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those that were not here lately, once each."""
        found = []
        for key in keys:
            if key in self._new or key in self._old:
                continue
            found.append(key)
            self._new.add(key)
            self._bytes += len(key)
            if len(self._new) >= RECENT_KEYS or self._bytes >= RECENT_BYTES:
                self._new, self._old, self._bytes = set(), self._new, 0
        return found


async def export(
    client: Client,
    writer: Writer,
    output: Output,
    wanted: Selection,
    *,
    relative: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ExportReport:
    """Write all wanted keys. `progress` gets the keys looked at and their number. Errors: BackfillError."""
    report = ExportReport()
    keys = Keys(client, command_names(await client.call(b"COMMAND")), relative=relative)
    counts = {db: count for db, count in (await databases(client)).items() if wanted.has_db(db)}
    looked = 0
    output.write(writer.head())
    for db in sorted(counts):
        await select(client, db)
        async with aclosing(_pages(client, wanted)) as pages:
            async for page in pages:
                chosen = wanted.filter(page)  # may be none
                async with aclosing(keys.read(chosen, wanted.types)) as read:
                    async for found in read:
                        _write(found, db, writer, output, report)
                looked += len(page)
                progress(looked, sum(counts.values()))
    output.write(writer.tail())
    report.written_bytes = output.bytes
    return report


async def _pages(client: Client, wanted: Selection) -> AsyncGenerator[list[bytes], None]:
    recent = Recent()
    async with aclosing(scan(client, match=wanted.match[0] if len(wanted.match) == 1 else None)) as every:
        async for found in every:
            fresh = recent.fresh(found)
            for start in range(0, len(fresh), KEYS_PER_READ):
                yield fresh[start : start + KEYS_PER_READ]


def _write(found: Found | NotRead, db: int, writer: Writer, output: Output, report: ExportReport) -> None:
    if isinstance(found, NotRead):
        report.fail(found.key, found.reason)
        return
    try:
        found.head.db = db
        for data in writer.record(found.head, found.items):
            output.write(data)
    finally:
        found.close()
    report.keys += 1
    report.kinds[found.head.kind.decode("utf-8", "replace")] += 1
    if found.changed:
        report.changes += 1
        if len(report.changed) < MAX_NAMED:
            report.changed.append(found.head.key)
