"""Owns which formats there are, and which one a file's name means. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from . import csv_form, json_read, lossless_form, table_form, xml_read
from .json_form import JsonWriter
from .records import Bad, FileError, Head, Item, Piece
from .xml_form import XmlWriter


class Writer(Protocol):
    """`head()`, then `record()` for each key, then `tail()`. `go_on(keys)` in place of `head()`: as many keys stand in
    the file already."""

    def head(self) -> bytes: ...
    def go_on(self, keys: int) -> None: ...
    def tail(self) -> bytes: ...
    def record(self, head: Head, items: Iterable[Item]) -> Iterator[bytes]: ...


Read = Callable[[Iterable[bytes]], Iterator[Piece | Bad]]


@dataclass(frozen=True, slots=True)
class Format:
    name: str
    suffixes: tuple[str, ...]
    writer: Callable[[], Writer]
    read: Read
    table: Callable[[Iterable[bytes], str], Iterator[Piece | Bad]] | None = None  # with a template for keys


def _csv(name: str, delimiter: str) -> Format:
    return Format(
        name,
        (f".{name}",),
        partial(csv_form.CsvWriter, delimiter),
        partial(csv_form.read, delimiter=delimiter),
        partial(table_form.read_csv, delimiter=delimiter),
    )


FORMATS = {
    format.name: format
    for format in (
        Format(
            "json",
            (".json",),
            partial(JsonWriter, lines=False),
            partial(json_read.read, array=True),
            table_form.read_json,
        ),
        Format("jsonl", (".jsonl", ".ndjson"), partial(JsonWriter, lines=True), json_read.read, table_form.read_json),
        _csv("csv", ","),
        _csv("tsv", "\t"),
        _csv("psv", "|"),
        Format("xml", (".xml",), XmlWriter, xml_read.read),
        Format("lossless", (".crossfade",), lossless_form.LosslessWriter, lossless_form.read),
    )
}


def format_of(file: str, name: str | None) -> Format:
    """The format that was asked for, or that the file's name means. Errors: FileError."""
    if name is not None:
        return FORMATS[name]
    plain = file.lower().removesuffix(".gz")
    for format in FORMATS.values():
        if plain.endswith(format.suffixes):
            return format
    suffixes = " ".join(suffix for format in FORMATS.values() for suffix in format.suffixes)
    raise FileError(f"the name {file} tells no format (it may end in {suffixes}, and .gz): say --format")
