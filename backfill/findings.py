"""Owns how a difference is told, and the file that gets every one as a line of JSON: for `compare`, and for a proxy's
`verify`.

A line is `db`, `key` (its text; bytes that are no UTF-8 as \\x..), `key_hex` (what the key is), `status`, `detail`.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from io import FileIO
from itertools import chain, count
from pathlib import Path
from typing import Any

from .errors import BackfillError


class FindingsError(BackfillError):
    """The file cannot be written, or is not what it was."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference that is one. db -1: not a key but a library of functions."""

    db: int
    key: bytes
    status: str  # of counts.STATUSES
    detail: str

    def to_json(self) -> dict[str, Any]:
        text = self.key.decode(errors="backslashreplace")
        return {"db": self.db, "key": text, "key_hex": self.key.hex(), "status": self.status, "detail": self.detail}


class FindingsFile:
    """All findings, in the order in which they were told. `size`: the bytes up to which every line is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._file: FileIO | None = None
        self._plain = True  # not a terminal, pipe ..., which can only be written on

    def __repr__(self) -> str:
        return f"<FindingsFile {self.path} {self.size} bytes>"

    def begin(self) -> None:
        """An empty file. Errors: FindingsError."""
        self._open("w")

    def go_on(self, size: int) -> None:
        """Behind the first `size` bytes: what stands there was told after the last checkpoint, and will be again.
        Errors: FindingsError."""
        there = self.path.stat() if self.path.exists() else None
        if there is not None and not stat.S_ISREG(there.st_mode):
            self._open("a")
            return
        if there is None or there.st_size < size:
            raise FindingsError(f"the findings found so far are not in {self.path} any more: begin anew with --restart")
        self._open("r+")
        assert self._file is not None
        self._file.truncate(size)
        self._file.seek(size)
        self.size = size

    def put_aside(self) -> Path | None:
        """Begin anew: nothing of what was found so far counts. It is kept under a name of its own, which this gives;
        None if there is nothing. It stays in the file, too, until `empty`: so a kill in between loses nothing. Errors:
        FindingsError."""
        kept = self._kept() if self.size and self._plain else None
        self.size = 0
        return kept

    def _kept(self) -> Path:
        """A copy, whole or not there at all."""
        new = self.path.with_name(f"{self.path.name}.before.new")
        try:
            with open(self.path, "rb") as source, open(new, "wb") as copy:
                shutil.copyfileobj(source, copy)
                copy.truncate(self.size)
                copy.flush()
                os.fsync(copy.fileno())
            names = chain(["before"], (f"before.{number}" for number in count(2)))
            paths = (self.path.with_name(f"{self.path.name}.{name}") for name in names)
            kept = next(path for path in paths if not path.exists())
            os.rename(new, kept)
        except OSError as problem:
            raise self._trouble(problem) from None
        return kept

    def empty(self) -> None:
        """Nothing that was put aside is in the file any more. Errors: FindingsError."""
        assert self._file is not None
        if self._plain:
            try:
                self._file.truncate(self.size)
                self._file.seek(self.size)
            except OSError as problem:
                raise self._trouble(problem) from None

    def _open(self, mode: str) -> None:
        try:
            self._file = FileIO(self.path, mode)
        except OSError as problem:
            raise self._trouble(problem) from None
        self._plain = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        self.size = 0

    def tell(self, findings: Iterable[Finding]) -> None:
        """Errors: FindingsError; then what was written of them does not count."""
        data = b"".join(json.dumps(finding.to_json()).encode() + b"\n" for finding in findings)
        assert self._file is not None
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as problem:
            raise self._trouble(problem) from None
        self.size += len(data)

    def sync(self) -> None:
        """To the disk. Errors: FindingsError."""
        assert self._file is not None
        try:
            if self._plain:
                os.fsync(self._file.fileno())
        except OSError as problem:
            raise self._trouble(problem) from None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _trouble(self, problem: OSError) -> FindingsError:
        return FindingsError(f"cannot write the findings to {self.path}: {problem.strerror}")
