"""How far a comparison is, what it found so far, and the file from which a killed one goes on.

Owns what makes going on exact: at any moment the counts, the keys that are to be looked at again, the position of the
scan and the length of the findings file belong together. A page of a scan counts as a whole, once each of its keys was
looked at; the keys to be looked at again count once that is done, and are found and told in the same step. So a
checkpoint may be made at any time, and nothing behind it is counted or told twice.

As for a copy, a cursor belongs to one server process: with another `run_id` on either side all begins anew.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

from ..counts import Counts
from ..findings import Finding
from .checkpoint import BROKEN, CheckpointError, CheckpointFile
from .tally import Place, Position

FORMAT = 1
MAX_SHOWN = 100  # findings kept to be shown; all are counted, and told to the findings file


class Stage(Enum):
    """What a comparison is doing; one after the other."""

    SOURCE = "source"  # looking up its keys on the target
    TARGET = "target"  # looking for keys that the source does not have
    FUNCTIONS = "functions"
    DONE = "done"


NEXT = {Stage.SOURCE: Stage.TARGET, Stage.TARGET: Stage.FUNCTIONS, Stage.FUNCTIONS: Stage.DONE}


@dataclass(slots=True)
class Report(Counts):
    """What a comparison found so far."""

    fixed: int = 0  # of those that differed
    total: int = 0
    seconds: float = 0.0
    complete: bool = False
    findings: list[Finding] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        del document["findings"]
        return document


@dataclass(slots=True)
class Page:
    """One step of a scan. `pending`: parts of it that were not looked at yet, the forming of parts being one."""

    db: int
    cursor: bytes
    count: int
    pending: int = 1
    equal: int = 0
    suspects: list[Place] = field(default_factory=list)


@dataclass(slots=True)
class Progress:
    """All that outlives a kill."""

    report: Report = field(default_factory=Report)
    stage: Stage = Stage.SOURCE
    position: Position = field(default_factory=Position)  # of the scan on that stage
    suspects: list[Place] = field(default_factory=list)  # of the pages behind the position: to be looked at again
    mending: list[Place] = field(default_factory=list)  # found, told, and to be copied
    share: float = 1.0  # of the keys that are looked at: a sample
    seed: int = 0
    pages: deque[Page] = field(default_factory=deque)  # beyond the position; not saved

    def __repr__(self) -> str:
        return (
            f"<Progress {self.stage.value} at {self.position} checked={self.report.checked} "
            f"suspects={self.suspected} mending={len(self.mending)}>"
        )

    @property
    def suspected(self) -> int:
        return len(self.suspects) + sum(len(page.suspects) for page in self.pages)

    def begin_page(self, db: int, cursor: bytes, count: int) -> Page:
        page = Page(db, cursor, count)
        self.pages.append(page)
        return page

    def looked_at(self, page: Page) -> None:
        """One part of it."""
        page.pending -= 1
        while self.pages and not self.pages[0].pending:
            done = self.pages.popleft()
            self.report.are_equal(done.equal)
            self.suspects += done.suspects
            self.position.passed(done.db, done.cursor, done.count)

    def judged(self, findings: list[Finding], *, suspects: int = 0, mend: bool) -> None:
        """So many suspects were looked at for the last time, and these are different."""
        report = self.report
        report.are_equal(max(0, suspects - len(findings)))
        for finding in findings:
            report.found(finding.status)
        report.findings += findings[: MAX_SHOWN - len(report.findings)]
        self.suspects = []
        self.mending = [(finding.db, finding.key) for finding in findings] if mend else []

    def mended(self, left: int) -> None:
        """But for so many, those that were to be copied are equal now."""
        self.report.fixed += len(self.mending) - left
        self.mending = []

    @property
    def reached(self) -> tuple[int, ...]:
        """How far it is: more of it is progress."""
        return list(Stage).index(self.stage), self.report.checked, self.position.scanned, self.report.fixed

    def go_back(self) -> None:
        """What was not looked at is to be scanned again."""
        self.pages.clear()

    def go_on(self) -> None:
        """To the next stage."""
        self.stage, self.position = NEXT[self.stage], Position()

    def document(self) -> dict[str, Any]:
        """For the checkpoint."""
        position = self.position
        counts = self.report.to_json()
        return {
            "counts": {name: counts[name] for name in COUNTED},
            "shown": [[each.db, each.key.hex(), each.status, each.detail] for each in self.report.findings],
            "stage": self.stage.value,
            "db": position.db,
            "cursor": position.cursor.decode(),
            "done": sorted(position.done),
            "scanned": position.scanned,
            "suspects": [[db, key.hex()] for db, key in self.suspects],
            "mending": [[db, key.hex()] for db, key in self.mending],
            "share": self.share,
            "seed": self.seed,
        }


COUNTED = (*(each.name for each in fields(Counts)), "fixed", "total")


def _restored(document: dict[str, Any]) -> Progress:
    report = Report()
    for name in COUNTED:
        setattr(report, name, int(document["counts"][name]))
    report.findings = [
        Finding(int(db), bytes.fromhex(key), str(status), str(detail)) for db, key, status, detail in document["shown"]
    ]
    return Progress(
        report,
        Stage(document["stage"]),
        Position(
            int(document["db"]),
            str(document["cursor"]).encode(),
            set(map(int, document["done"])),
            int(document["scanned"]),
        ),
        [(int(db), bytes.fromhex(key)) for db, key in document["suspects"]],
        [(int(db), bytes.fromhex(key)) for db, key in document["mending"]],
        float(document["share"]),
        int(document["seed"]),
    )


@dataclass(slots=True)
class Saved:
    """What the file says."""

    progress: Progress
    run_ids: tuple[str, str]
    client_ids: list[int]  # our connections to the target, to be fenced
    findings_bytes: int  # of the findings file, up to which it belongs to this
    at: float  # when it was written, in seconds since 1970


class ComparisonFile(CheckpointFile):
    """One comparison's checkpoint. `which`: what must be the same for a comparison to be the same."""

    def __init__(self, path: Path, which: dict[str, Any]) -> None:
        super().__init__(path, "comparison")
        self._which = which

    def load(self) -> Saved | None:
        """What was saved by a comparison of the same; None when there is nothing. Errors: CheckpointError."""
        document = self.read()
        if document is None:
            return None
        try:
            if document["format"] != FORMAT:
                raise KeyError
            others = [name for name in self._which if document[name] != self._which[name]]
            first, second = document["run_ids"]
            saved = Saved(
                _restored(document),
                (str(first), str(second)),
                [int(number) for number in document["client_ids"]],
                int(document["findings_bytes"]),
                self.path.stat().st_mtime,
            )
        except BROKEN:
            raise self.not_ours() from None
        if others:
            raise CheckpointError(
                f"the checkpoint {self.path} is of another comparison (with other {' and '.join(others)}): give the "
                "command as it was, begin anew with --restart, or choose another file with --checkpoint"
            )
        return saved

    def document(
        self, progress: Progress, run_ids: tuple[str, str], client_ids: list[int], findings_bytes: int
    ) -> dict[str, Any]:
        """How far it is now, for `write`."""
        return {
            "format": FORMAT,
            **self._which,
            "run_ids": list(run_ids),
            "client_ids": list(client_ids),
            "findings_bytes": findings_bytes,
            **progress.document(),
        }
