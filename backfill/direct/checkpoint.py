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


def default_name(which: dict[str, Any]) -> str:
    """A file name of its own for every copy, whatever its mode."""
    text = json.dumps([which["source"], which["target"], which["selection"]], sort_keys=True)
    return f"replicate-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"


@dataclass(slots=True)
class Saved:
    """What the file says."""

    run_ids: tuple[str, str]
    client_ids: list[int] = field(default_factory=list)  # our connections to the target, to be fenced
    position: Position = field(default_factory=Position)
    copied: int = 0
    keys: int = 0  # of the source, when it was last connected to
    failed: dict[tuple[int, bytes], str] = field(default_factory=dict)


class Checkpoint:
    """One copy's file."""

    def __init__(self, path: Path, which: dict[str, Any]) -> None:
        self.path = path
        self._which = which
        self._lock: int | None = None
        self._made_directory = False

    def __repr__(self) -> str:
        return f"<Checkpoint {self.path}>"

    def lock(self) -> None:
        """Errors: CheckpointError."""
        try:
            if not self.path.parent.exists():
                self.path.parent.mkdir(parents=True)
                self._made_directory = True
            self._lock = os.open(self._lock_path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(f"the same copy is running already (it has locked {self._lock_path})") from None
        except OSError as error:
            raise CheckpointError(
                f"cannot write to {self.path.parent}: {error.strerror} (choose another place with --checkpoint FILE)"
            ) from None

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

    def load(self) -> Saved | None:
        """What was saved by a copy of the same; None when there is nothing. Errors: CheckpointError."""
        try:
            document = json.loads(self.path.read_text())
            which = {name: document[name] for name in self._which}
            if document["format"] != FORMAT:
                raise KeyError
            saved = _saved(document)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"cannot read the checkpoint {self.path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, IndexError):
            raise CheckpointError(f"{self.path} is not a checkpoint of this version: remove it to begin anew") from None
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

    def write(self, document: dict[str, Any]) -> None:
        """To the disk: takes its time. Errors: CheckpointError."""
        temporary = self.path.with_name(self.path.name + ".new")
        try:
            with open(temporary, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            raise CheckpointError(f"cannot write the checkpoint {self.path}: {error.strerror}") from None

    def remove(self) -> None:
        """The copy is complete."""
        self.path.unlink(missing_ok=True)


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
