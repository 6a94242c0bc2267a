"""How far an export is, and the file from which a killed one goes on.

Owns what makes going on exact: the position of the scan, the length of the file that is written, and what was counted,
belong together. They are saved at the end of a page of the scan, when all of its records are on the disk; what stands
behind that length was written later: it is cut off, and written again.

As for a copy, a cursor belongs to one server process: with another `run_id` all begins anew, and so it does with other
options. Where a server does not tell its `run_id` nobody knows, and it begins anew, too.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from backfill.direct.checkpoint import BROKEN, CheckpointFile
from backfill.direct.selection import Selection
from backfill.direct.tally import Position
from backfill.url import Url

from .opening import STANDARD, part_of

FORMAT = 1
MAX_NAMED = 100  # of keys in a report
RECENT_KEYS = 100_000  # SCAN repeats a key only when the server's table shrinks, and then soon
RECENT_BYTES = 32 * 1024 * 1024
SAVED_KEYS = 10_000  # of them in a checkpoint, which is written every second
SAVED_BYTES = 1024 * 1024

Say = Callable[[str], None]


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
        self._new: dict[bytes, None] = {}
        self._old: dict[bytes, None] = {}
        self._bytes = 0

    def fresh(self, keys: Iterable[bytes]) -> list[bytes]:
        """Those that were not here lately, once each."""
        found = []
        for key in keys:
            if key in self._new or key in self._old:
                continue
            found.append(key)
            self._new[key] = None
            self._bytes += len(key)
            if len(self._new) >= RECENT_KEYS or self._bytes >= RECENT_BYTES:
                self._new, self._old, self._bytes = {}, self._new, 0
        return found

    def last(self) -> list[bytes]:
        """The very last ones, in their order: what a checkpoint can hold."""
        found: list[bytes] = []
        size = 0
        for keys in (self._new, self._old):
            for key in islice(reversed(keys), SAVED_KEYS - len(found)):
                size += len(key)
                if size > SAVED_BYTES:
                    return found[::-1]
                found.append(key)
        return found[::-1]


@dataclass(slots=True)
class Progress:
    """All that outlives a kill. `length`: of the file, up to which it belongs to this."""

    report: ExportReport = field(default_factory=ExportReport)
    position: Position = field(default_factory=Position)
    recent: Recent = field(default_factory=Recent)  # keys of the db that is scanned
    length: int = 0

    def __repr__(self) -> str:
        return f"<Progress at {self.position} keys={self.report.keys} length={self.length}>"

    def document(self) -> dict[str, Any]:
        """For the checkpoint."""
        report, position = self.report, self.position
        return {
            "keys": report.keys,
            "bytes": report.written_bytes,
            "kinds": dict(report.kinds),
            "failures": report.failures,
            "failed": [[key.hex(), reason] for key, reason in report.failed],
            "changes": report.changes,
            "changed": [key.hex() for key in report.changed],
            "db": position.db,
            "cursor": position.cursor.decode(),
            "done": sorted(position.done),
            "scanned": position.scanned,
            "recent": [key.hex() for key in self.recent.last()],
            "length": self.length,
        }


def _restored(document: dict[str, Any]) -> Progress:
    report = ExportReport(
        int(document["keys"]),
        int(document["bytes"]),
        Counter({str(kind): int(count) for kind, count in document["kinds"].items()}),
        int(document["failures"]),
        [(bytes.fromhex(key), str(reason)) for key, reason in document["failed"]],
        int(document["changes"]),
        [bytes.fromhex(key) for key in document["changed"]],
    )
    position = Position(
        int(document["db"]), str(document["cursor"]).encode(), set(map(int, document["done"])), int(document["scanned"])
    )
    recent = Recent()
    recent.fresh(map(bytes.fromhex, document["recent"]))
    return Progress(report, position, recent, int(document["length"]))


def export_identity(source: Url, wanted: Selection, format_name: str, ttl: str) -> dict[str, Any]:
    """What must be the same for an export to be the same. No secrets."""
    return {
        "source": str(replace(source, user="", password="")),
        "selection": wanted.describe(),
        "--format": format_name,
        "--ttl": ttl,
    }


class ExportFile(CheckpointFile):
    """One export's checkpoint, beside the file that it writes. `which`: what must be the same for it to be the same."""

    elsewhere = ""

    def __init__(self, file: str, which: dict[str, Any]) -> None:
        super().__init__(Path(f"{file}.checkpoint"), "export")
        self._part = Path(part_of(file))
        self._which = which

    @classmethod
    def of(cls, file: str, which: dict[str, Any]) -> ExportFile | None:
        """None where there is nothing to go on with: standard output, a pipe, a place that cannot be written to (which
        is told when it is opened)."""
        if file == STANDARD or (os.path.exists(file) and not os.path.isfile(file)):
            return None
        return cls(file, which) if os.access(os.path.dirname(file) or ".", os.W_OK | os.X_OK) else None

    @property
    def saved(self) -> bool:
        """Whether the same command can go on."""
        return self.path.exists()

    def begin(self, run_id: str, say: Say) -> Progress:
        """Where a killed run of the same export of this server process was, or the beginning; says which. Errors:
        CheckpointError."""
        document = self.read()
        if document is None:
            return Progress()
        try:
            if document["format"] != FORMAT:
                raise KeyError
            others = [name for name in self._which if document[name] != self._which[name]]
            same_process = document["run_id"] == run_id != ""
            progress = _restored(document)
        except BROKEN:
            raise self.not_ours() from None
        if others:
            why = f"{self._part} is of another export (with other {' and '.join(others)})"
        elif not same_process:
            why = "the source was restarted, or is another server"
        elif not self._part.exists() or self._part.stat().st_size < progress.length:
            why = f"what was written is not in {self._part} any more"
        else:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.path.stat().st_mtime))
            told = f"{progress.report.keys:,} keys were exported before (--restart begins anew)"
            say(f"going on from the checkpoint {self.path} of {when}: {told}")
            return progress
        say(f"{why}: the export begins anew")
        self.remove()
        return Progress()

    def save(self, progress: Progress, run_id: str) -> None:
        """To the disk: takes its time. Errors: CheckpointError."""
        self.write({"format": FORMAT, **self._which, "run_id": run_id, **progress.document()})
