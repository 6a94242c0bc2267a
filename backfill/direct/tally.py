"""Owns the numbers of a copy, which keys could not be copied and why, and how far it has come for sure. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..compare import show

Place = tuple[int, bytes]  # db, key

MAX_FAILED = 10_000  # named; beyond it the copy stops, as something is wrong with more than single keys
MAX_LOSSY = 1000


@dataclass(slots=True)
class Page:
    """One step of a scan. `cursor`: where the scan goes on once every key of this page is settled."""

    db: int
    cursor: bytes
    pending: int
    count: int  # of its keys


@dataclass(slots=True)
class Position:
    """Everything before it, `scanned` keys, is on the target. `cursor` is in `db`; the dbs of `done` are complete."""

    db: int = -1
    cursor: bytes = b"0"
    done: set[int] = field(default_factory=set)
    scanned: int = 0

    def passed(self, db: int, cursor: bytes, count: int) -> None:
        """Another page of `count` keys is behind us; the next one begins at the cursor."""
        self.scanned += count
        if cursor == b"0":
            self.done.add(db)
            self.db, self.cursor = -1, b"0"
        else:
            self.db, self.cursor = db, cursor


@dataclass(slots=True)
class Tally:
    """What was done so far. Keys are counted each time that they are copied."""

    total: int = 0  # keys on the source when it began
    scanned: int = 0
    copied: int = 0
    deleted: int = 0  # keys on the target that the source does not have
    size: int = 0  # bytes of their values
    big: int = 0  # of the copied, in pages
    rereads: int = 0  # because a key changed under its pages, or changed its type
    failed: dict[Place, str] = field(default_factory=dict)
    lossy: dict[Place, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # for the operator, each once
    position: Position = field(default_factory=Position)
    pages: deque[Page] = field(default_factory=deque)

    def __repr__(self) -> str:
        return f"<Tally scanned={self.scanned} copied={self.copied} failed={len(self.failed)} at {self.position}>"

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def settled(self, db: int, keys: list[bytes], page: Page | None) -> None:
        """These keys are on the target as they should be."""
        if self.failed:
            for key in keys:
                self.failed.pop((db, key), None)
        if page is not None:
            self.done_with(page, len(keys))

    def fail(self, place: Place, why: str, page: Page | None) -> None:
        """This key could not be copied: it is named, and the copy goes on."""
        self.failed[place] = why
        if page is not None:
            self.done_with(page, 1)

    def done_with(self, page: Page, count: int) -> None:
        page.pending -= count
        self.advance()

    def advance(self) -> None:
        """Move the position over every page that is settled."""
        pages = self.pages
        while pages and pages[0].pending <= 0:
            page = pages.popleft()
            self.position.passed(page.db, page.cursor, page.count)

    @property
    def reached(self) -> int:
        """Keys that are as they should be, since the scan began: copied again, a key counts once."""
        return self.position.scanned + sum(page.count - page.pending for page in self.pages) + self.deleted

    def begin_again(self) -> None:
        """What was scanned says nothing any more."""
        self.position = Position()
        self.go_back()

    def go_back(self) -> None:
        """What was not settled is to be scanned again."""
        self.pages.clear()
        self.scanned = self.position.scanned

    def failures(self, most: int) -> list[str]:
        """The first failures, for people."""
        return _told(self.failed, most)

    def losses(self, most: int) -> list[str]:
        """The first keys of which the target cannot hold everything, for people."""
        return _told(self.lossy, most)


def _told(places: Mapping[Place, str], most: int) -> list[str]:
    return [
        f"{'functions' if db < 0 else f'db {db} {show(key)}'}: {why}"
        for (db, key), why in sorted(places.items())[:most]
    ]
