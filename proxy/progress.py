"""How far a backfill is, and from where it can go on. Pure, but for the file of the checkpoint.

A backfill walks db after db, page after page of a SCAN. A page is *settled* once each of its keys was copied since it
was found: what is done to them later is mirrored, or makes them dirty. The checkpoint is the end of the last page
before which every page is settled: what is found again behind it is copied twice at worst. It belongs to one process of
each server (their `run_id`), for a cursor means nothing to another process, and a server that restarted may lack what
was settled.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

from proxy.dirty import Place

FILES = {False: "backfill.json", True: "backfill-partial.json"}  # by whether it copies some keys only
FORMAT = 1


class Work(Enum):
    """What a backfill or a verify is doing."""

    IDLE = "idle"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(slots=True)
class Progress:
    """What `status` shows of the backfill."""

    state: str = Work.IDLE.value
    scanned: int = 0  # keys found on the serving side
    copied: int = 0  # of them acknowledged by the mirror side
    failed: int = 0  # of them not copied when it ended
    total: int = 0  # keys when it began
    extra: int = 0  # keys only the mirror side had
    bytes: int = 0  # read so far, about
    seconds: float = 0.0
    problem: str = ""
    complete: bool = False  # it covered everything: the phase may leave `filling`
    selection: str = ""  # which keys only; empty: all of them
    aside: int = 0  # of the copied: by a process of its own, without the proxy
    resumed: int = 0  # keys that were copied before it went on from a checkpoint
    window: int = 0  # keys read or queued at once: fewer while it yields to live traffic
    yielding: bool = False  # the serving side answers late: it does
    failures: list[str] = field(default_factory=list)  # some of what failed, with the reason

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the walk: `cursor` is where the next page of `db` begins; the dbs in `done` are behind us."""

    db: int = -1  # before the first
    cursor: str = "0"
    done: tuple[int, ...] = ()
    scanned: int = 0  # keys found up to here


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the next start must know."""

    plan: dict[str, Any]
    run_ids: tuple[str, str]  # of the serving and the mirror side
    epoch: int
    position: Position

    def trusted(self, other: Checkpoint) -> bool:
        """Whether a backfill that would write `other` can go on from here."""
        same = (self.plan, self.run_ids, self.epoch) == (other.plan, other.run_ids, other.epoch)
        return same and all(self.run_ids)

    def save(self, directory: Path, partial: bool) -> None:
        """Durably. Errors: OSError."""
        path = directory / FILES[partial]
        temporary = path.with_suffix(".new")
        with open(temporary, "w") as file:
            json.dump({"format": FORMAT, **asdict(self)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def load(directory: Path, *, partial: bool) -> Checkpoint | None:
    """The checkpoint that was left there; None when there is none that can be read."""
    try:
        found = json.loads((directory / FILES[partial]).read_text())
        if found.pop("format") != FORMAT:
            return None
        position = found.pop("position")
        if set(position) != {one.name for one in fields(Position)}:
            return None
        position["done"] = tuple(position["done"])
        return Checkpoint(**{**found, "run_ids": tuple(found["run_ids"])}, position=Position(**position))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def forget(directory: Path, *, partial: bool) -> None:
    """Nothing goes on from there any more. Errors: OSError."""
    (directory / FILES[partial]).unlink(missing_ok=True)


class Pages:
    """The pages that were found and are not settled, in order."""

    def __init__(self, settled: Position) -> None:
        self.settled = settled  # everything before it is
        self._pages: deque[tuple[int, Position]] = deque()  # number, end
        self._left: dict[int, int] = {}  # number: keys that are not settled
        self._page_of: dict[Place, int] = {}
        self._number = 0

    def __repr__(self) -> str:
        return f"<Pages {len(self._page_of)} keys in {len(self._pages)} pages, settled up to {self.settled}>"

    def __len__(self) -> int:
        """Keys that are not settled."""
        return len(self._page_of)

    def __contains__(self, place: Place) -> bool:
        return place in self._page_of

    def places(self) -> list[Place]:
        """Keys that are not settled."""
        return sorted(self._page_of)

    def found(self, place: Place) -> bool:
        """A key of the page that is being taken; False when it waits already."""
        if place in self._page_of:
            return False
        self._page_of[place] = self._number
        self._left[self._number] = self._left.get(self._number, 0) + 1
        return True

    def end(self, position: Position) -> None:
        """All keys of the page have been named."""
        self._pages.append((self._number, position))
        self._number += 1
        self._advance()

    def open(self, position: Position) -> int:
        """A page whose keys are copied elsewhere: it is not settled before it is closed. Its number."""
        number = self._number
        self._left[number] = 1
        self.end(position)
        return number

    def add(self, number: int, place: Place) -> None:
        """A key of an open page that has to be copied here."""
        if place not in self._page_of:
            self._page_of[place] = number
            self._left[number] += 1

    def close(self, number: int) -> None:
        """The page waits for nothing but the keys that were added."""
        self._left[number] -= 1
        self._advance()

    def copied(self, places: Iterable[Place]) -> int:
        """A copy of each of these keys was acknowledged; how many were waited for."""
        found = 0
        for place in places:
            number = self._page_of.pop(place, None)
            if number is not None:
                self._left[number] -= 1
                found += 1
        self._advance()
        return found

    def _advance(self) -> None:
        while self._pages and not self._left.get(self._pages[0][0]):
            number, self.settled = self._pages.popleft()
            self._left.pop(number, None)
