"""Owns files: reading and writing them in chunks, gzip by name, standard streams for `-`.

A door. A file that is written appears under its name only when it is whole: until then it is `NAME.part`, which a later
run overwrites, or goes on with.
"""

from __future__ import annotations

import gzip
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, BinaryIO, cast

from .records import FileError

CHUNK_BYTES = 64 * 1024
GZIP_MAGIC = b"\x1f\x8b"
STANDARD = "-"


class Input:
    """A file that is read. `size` and `done` count its bytes as they lie on the disk, for the progress."""

    def __init__(self, name: str, raw: BinaryIO) -> None:
        self._name = name
        self._raw = raw
        self.done = 0
        self.size: int | None = None
        with suppress(OSError):
            status = os.fstat(raw.fileno())
            self.size = status.st_size if stat.S_ISREG(status.st_mode) else None

    def chunks(self) -> Iterator[bytes]:
        """What is in it, decompressed if its name ends in .gz or it comes from standard input and is gzip. Errors:
        FileError."""
        try:
            first = self._read()
            packed = first.startswith(GZIP_MAGIC) if self._name == STANDARD else self._name.lower().endswith(".gz")
            if packed and not first.startswith(GZIP_MAGIC[: len(first)]):
                raise FileError("not gzip, though its name ends in .gz")
            # An empty chunk, such as a header unpacks to, would be taken for the end.
            yield from filter(None, self._unpacked(first) if packed else self._plain(first))
        except OSError as problem:
            raise FileError(f"cannot read {self._name}: {problem.strerror or problem}") from None

    def _read(self) -> bytes:
        data = self._raw.read(CHUNK_BYTES)
        self.done += len(data)
        return data

    def _plain(self, data: bytes) -> Iterator[bytes]:
        while data:
            yield data
            data = self._read()

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        """Of every member: gzip files may be put one behind the other."""
        while data := data.lstrip(b"\0"):  # padding, as tar and tapes leave it
            unpacker = zlib.decompressobj(wbits=31)
            try:
                while data and not unpacker.eof:
                    yield unpacker.decompress(data, CHUNK_BYTES * 16)
                    while unpacker.unconsumed_tail:
                        yield unpacker.decompress(unpacker.unconsumed_tail, CHUNK_BYTES * 16)
                    data = unpacker.unused_data or self._read()
            except zlib.error:
                raise FileError("the gzip data are damaged") from None
            if not unpacker.eof:
                raise FileError("the gzip data are cut off")


@contextmanager
def reading(name: str) -> Iterator[Input]:
    """A file to read. Errors: FileError."""
    if name == STANDARD:
        yield Input(name, sys.stdin.buffer)
        return
    try:
        raw = open(name, "rb", buffering=0)  # noqa: SIM115  closed below
    except OSError as problem:
        raise FileError(f"cannot read {name}: {problem.strerror}") from None
    with raw:
        yield Input(name, raw)


class Output:
    """A file that is written. `before`: bytes that an earlier run wrote, before compression. Errors: FileError."""

    def __init__(self, name: str, raw: IO[bytes], *, before: int = 0) -> None:
        self._name = name
        self._raw = raw
        self._packed = name.lower().endswith(".gz")
        self._file = self._begin()
        self.bytes = before  # before compression

    def _begin(self) -> IO[bytes]:
        if not self._packed:
            return self._raw
        member = gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=self._raw, mtime=0)
        return cast("IO[bytes]", member)

    def write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as problem:
            raise _cannot_write(self._name, problem) from None
        self.bytes += len(data)

    def sync(self) -> int:
        """What was written is on the disk and stands by itself, as a gzip member of its own; the length of the file up
        to there. Takes its time."""
        try:
            self.end()
            os.fsync(self._raw.fileno())
            length = self._raw.tell()
            self._file = self._begin()
        except OSError as problem:
            raise _cannot_write(self._name, problem) from None
        return length

    def end(self) -> None:
        """All of it is given to the system. Errors: OSError."""
        if self._packed:
            self._file.close()
        self._raw.flush()


def _cannot_write(name: str, problem: OSError) -> FileError:
    target = "standard output" if name == STANDARD else name
    return FileError(f"cannot write {target}: {problem.strerror or problem}")


def part_of(name: str) -> str:
    """The file's name until it is whole."""
    return f"{name}.part"


@contextmanager
def writing(
    name: str, *, length: int = 0, before: int = 0, keep: Callable[[], bool] = lambda: False
) -> Iterator[Output]:
    """A file to write, there only once the block has ended well. `length`: go on behind so many bytes of what an
    earlier run has left, which were `before` bytes before compression. `keep`: whether what is written is left to a
    later run when the block ends otherwise. Errors: FileError."""
    if name == STANDARD:
        yield Output(name, sys.stdout.buffer)
        try:
            sys.stdout.buffer.flush()
        except OSError as problem:
            raise _cannot_write(name, problem) from None
        return
    special = os.path.exists(name) and not os.path.isfile(name)  # a pipe, /dev/null: there is nothing to rename
    part = name if special else part_of(name)
    try:
        raw = open(part, "r+b" if length else "wb")  # noqa: SIM115  closed below
    except OSError as problem:
        raise _cannot_write(name, problem) from None
    try:
        with raw:
            if length:
                raw.truncate(length)
                raw.seek(length)
            output = Output(name, raw, before=before)
            yield output
            output.end()
            if not special:
                os.fsync(raw.fileno())
        if not special:
            os.replace(part, name)
    except BaseException as problem:
        if not special and not keep():
            with suppress(OSError):
                os.unlink(part)
        if isinstance(problem, OSError):
            raise _cannot_write(name, problem) from None
        raise
