"""Strings in pages, by offset. Pure.

What is behind `_copied` is left to the page that comes; before it, bytes are stated where they stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from backfill.rebuild import Command
from proxy.bigkeys.pages import PAGE_BYTES, Broken, Pager, Stated, Terms, number

MAX_DOUBTS = 10_000  # ranges of bytes waiting to be asked for
ASKED_RANGES = 100  # in one page

Range = tuple[int, int]  # first and last byte


class StringPager(Pager):
    kind, length = b"string", b"STRLEN"

    def __init__(self, key: bytes, terms: Terms) -> None:
        super().__init__(key, terms)
        self._copied = 0
        self._through = False  # the end was reached once: everything but what is in doubt is exact
        self._todo: dict[Range, None] = {}
        self._asked: list[Range] = []

    def read(self) -> list[Command]:
        self._asked = list(self._todo)[:ASKED_RANGES]
        page = (self._copied, self._copied + PAGE_BYTES - 1)
        return [[b"GETRANGE", self.key, b"%d" % first, b"%d" % last] for first, last in [page, *self._asked]]

    def take(self, size: int, now_ms: int, replies: Sequence[Any]) -> list[Command]:
        data, *told = replies
        statements = (
            [self._put(size - 1, b"\0")] if not self._copied and size > PAGE_BYTES else []
        )  # all its memory at once
        statements += [self._put(self._copied, data)] if data else []
        self._copied += len(data)
        for (first, last), value in zip(self._asked, told, strict=True):
            if value:
                statements.append(self._put(first, value))
            self._todo.pop((first, last), None)
        self._through |= self._copied >= size
        self.complete = self._copied >= size and not self._todo
        return statements

    def state(self, command: Command, expected: bytes | None) -> list[Stated]:
        name = command[0].upper()
        if name == b"APPEND":
            first = number(expected) - len(command[2])
            return self._written(self._put(first, command[2]), first)
        if name == b"SETRANGE":
            return self._written(command, int(command[2]))
        if name == b"SETBIT":
            return self._written(command, int(command[2]) >> 3)
        if name == b"BITFIELD":
            return self._fields(command, expected)
        raise Broken(f"{name.decode(errors='replace')} while it was copied")

    def _written(self, command: Command, first: int) -> list[Stated]:
        return [(command, None)] if first < self._copied else []

    def _fields(self, command: Command, expected: bytes | None) -> list[Stated]:
        touched = [(first, last) for first, last in bit_ranges(command) if first < self._copied]
        if not touched:
            return []
        if self._through and not any(_overlap(one, other) for one in touched for other in self._todo):
            return [(command, expected)]
        self._todo.update(dict.fromkeys(touched))
        if len(self._todo) > MAX_DOUBTS:
            raise Broken(f"more than {MAX_DOUBTS:,} bit fields were changed between two pages")
        return []

    def _put(self, first: int, data: bytes) -> Command:
        return [b"SETRANGE", self.key, b"%d" % first, data]


def _overlap(one: Range, other: Range) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def bit_ranges(command: Command) -> Iterator[Range]:
    """The bytes that the SETs and INCRBYs of a BITFIELD touch."""
    at = 2
    while at < len(command):
        word = command[at].upper()
        if word in (b"SET", b"INCRBY"):
            width, offset = int(command[at + 1][1:]), command[at + 2]
            first = int(offset[1:]) * width if offset[:1] == b"#" else int(offset)
            yield first >> 3, (first + width - 1) >> 3
        at += {b"GET": 3, b"OVERFLOW": 2}.get(word, 4)
