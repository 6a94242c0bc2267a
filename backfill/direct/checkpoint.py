"""Owns the file from which a killed copy goes on: what it copies, how far it came for sure, which keys failed.

A cursor belongs to one server process, and what was written to one: both `run_id`s are in the file, and with another
one on either side the copy begins anew. Written to a new file, synced, renamed: there is always a whole one. Locked
while a copy runs: two of the same would undo each other's work.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import BackfillError
from ..url import Url
from .selection import Selection
from .tally import MAX_FAILED, Position, Tally

FORMAT = 1
BROKEN = (ValueError, KeyError, TypeError, IndexError)  # what a document of another making leads to


class CheckpointError(BackfillError):
    """The file cannot be used; the text says what to do."""


def identity(source: Url, target: Url, selection: Selection, mode: str) -> dict[str, Any]:
    """What must be the same for a copy to be the same. No secrets."""
    return {
        "source": str(replace(source, user="", password="")),
        "target": str(replace(target, user="", password="")),
        "selection": selection.describe(),
        "mode": mode,
    }


def default_name(which: dict[str, Any], command: str = "replicate") -> str:
    """A file name of its own for every copy, whatever its mode."""
    text = json.dumps([which["source"], which["target"], which["selection"]], sort_keys=True)
    return f"{command}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"


@dataclass(slots=True)
class Saved:
    """What the file says."""

    run_ids: tuple[str, str]
    client_ids: list[int] = field(default_factory=list)  # our connections to the target, to be fenced
    position: Position = field(default_factory=Position)
    copied: int = 0
    keys: int = 0  # of the source, when it was last connected to
    failed: dict[tuple[int, bytes], str] = field(default_factory=dict)


class CheckpointFile:
    """A file that is always whole, and whose owner is alone. `what` it is of: a word for people."""

    elsewhere = " (choose another place with --checkpoint FILE)"

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what
        self._lock: int | None = None
        self._made_directory = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def lock(self) -> None:
        """Errors: CheckpointError."""
        try:
            if not self.path.parent.exists():
                self.path.parent.mkdir(parents=True)
                self._made_directory = True
            lock = os.open(self._lock_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                raise
            self._lock = lock
        except BlockingIOError:
            raise CheckpointError(
                f"the same {self.what} is running already (it has locked {self._lock_path})"
            ) from None
        except OSError as error:
            raise CheckpointError(f"cannot write to {self.path.parent}: {error.strerror}{self.elsewhere}") from None

    @property
    def _new_path(self) -> Path:
        return self.path.with_name(self.path.name + ".new")

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(self.path.name + ".lock")

    def unlock(self) -> None:
        """Let go, and leave nothing behind that says nothing."""
        if self._lock is None:
            return
        if not self.path.exists():
            self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None
        if self._made_directory:
            with suppress(OSError):  # not empty
                self.path.parent.rmdir()

    def read(self) -> dict[str, Any] | None:
        """What the file says; None when there is none. Errors: CheckpointError."""
        try:
            document = json.loads(self.path.read_text())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"cannot read the checkpoint {self.path}: {error.strerror}") from None
        except ValueError:
            raise self.not_ours() from None
        if not isinstance(document, dict):
            raise self.not_ours()
        return document

    def not_ours(self) -> CheckpointError:
        return CheckpointError(f"{self.path} is not a checkpoint of this version: remove it to begin anew")

    def write(self, document: dict[str, Any]) -> None:
        """To the disk: takes its time. Errors: CheckpointError."""
        temporary = self._new_path
        try:
            with open(temporary, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(json.dumps(document))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            raise CheckpointError(f"cannot write the checkpoint {self.path}: {error.strerror}") from None

    def remove(self) -> None:
        """Nothing is left to be done."""
        self._new_path.unlink(missing_ok=True)  # of a run that was killed
        self.path.unlink(missing_ok=True)


class Checkpoint(CheckpointFile):
    """One copy's file."""

    def __init__(self, path: Path, which: dict[str, Any]) -> None:
        super().__init__(path, "copy")
        self._which = which

    def load(self) -> Saved | None:
        """What was saved by a copy of the same; None when there is nothing. Errors: CheckpointError."""
        document = self.read()
        if document is None:
            return None
        try:
            which = {name: document[name] for name in self._which}
            if document["format"] != FORMAT:
                raise KeyError
            saved = _saved(document)
        except BROKEN:
            raise self.not_ours() from None
        if {**which, "mode": ""} != {**self._which, "mode": ""}:
            raise CheckpointError(
                f"the checkpoint {self.path} is of another copy ({which['source']} to {which['target']}, or other "
                "filters): choose another file, or remove it"
            )
        if which["mode"] != self._which["mode"]:  # a live copy does not trust what another run has copied
            saved.position = Position()
        return saved

    def save(self, tally: Tally, run_ids: tuple[str, str], client_ids: list[int], keys: int) -> None:
        """Errors: CheckpointError."""
        self.write(self.document(tally, run_ids, client_ids, keys))

    def document(self, tally: Tally, run_ids: tuple[str, str], client_ids: list[int], keys: int) -> dict[str, Any]:
        """How far it is now, for `write`."""
        position = tally.position
        failed = list(tally.failed.items())[:MAX_FAILED]
        return {
            "format": FORMAT,
            **self._which,
            "run_ids": list(run_ids),
            "client_ids": list(client_ids),
            "keys": keys,
            "db": position.db,
            "cursor": position.cursor.decode(),
            "done": sorted(position.done),
            "scanned": position.scanned,
            "copied": tally.copied,
            "failed": [[db, key.hex(), why] for (db, key), why in failed],
        }


def _saved(document: dict[str, Any]) -> Saved:
    position = Position(
        int(document["db"]),
        str(document["cursor"]).encode(),
        set(map(int, document["done"])),
        int(document["scanned"]),
    )
    first, second = document["run_ids"]
    return Saved(
        (str(first), str(second)),
        [int(number) for number in document["client_ids"]],
        position,
        int(document["copied"]),
        int(document["keys"]),
        {(int(db), bytes.fromhex(key)): str(why) for db, key, why in document["failed"]},
    )
