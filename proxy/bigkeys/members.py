"""Hashes, sets and sorted sets in pages: every page and every write is about elements that have names. Pure.

Elements that a write left in doubt wait in `_todo`, and are asked for by name with the next page.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any, ClassVar

from backfill.rebuild import Command, chunked, field_deadlines
from backfill.values import Hash
from proxy.bigkeys.pages import ASKED_ELEMENTS, MAX_NAMED, Broken, Pager, Stated, Terms, number
from resp.numbers import integer

START = b"0"
MAX_TODO = 100_000  # elements in doubt; more, and the copy begins again rather than take more memory

Names = Callable[[Command], Sequence[bytes] | None]  # the elements named; None: it is a statement as it is


class Members(Pager):
    """What the three types have in common."""

    scan: ClassVar[bytes]
    statements: ClassVar[frozenset[bytes]]  # effects that are statements as they are
    named: ClassVar[Mapping[bytes, Names]]  # effects that build on the old value of the elements they name

    def __init__(self, key: bytes, terms: Terms) -> None:
        super().__init__(key, terms)
        self._cursor = START
        self._scanned = False
        self._todo: dict[bytes, None] = {}
        self._asked: list[bytes] = []

    def read(self) -> list[Command]:
        self._asked = list(islice(self._todo, ASKED_ELEMENTS))
        commands = self._by_name(self._asked) if self._asked else []
        if not self._scanned:
            commands.append(
                [self.scan, self.key, self._cursor, b"COUNT", b"%d" % self._elements, *self._scan_options()]
            )
        return commands

    def take(self, size: int, now_ms: int, replies: Sequence[Any]) -> list[Command]:
        if not self._scanned:
            self._cursor, items = replies[-1]
            self._scanned = self._cursor == START
            replies = replies[:-1]
            self._adapt(len(items), sum(map(len, items)))
        else:
            items = []
        statements = list(self._told(self._asked, replies)) if self._asked else []
        for name in self._asked:
            self._todo.pop(name, None)
        statements += self._found(items)
        self.complete = self._scanned and not self._todo
        return statements

    def state(self, command: Command, expected: bytes | None) -> list[Stated]:
        name = command[0].upper()
        if name in self.statements:
            return [(command, None)]
        names = self.named.get(name)
        if names is None:
            raise Broken(f"{name.decode(errors='replace')} while it was copied")
        elements = names(command)
        if elements is None:
            return [(command, None)]
        if self._scanned and self._todo.keys().isdisjoint(elements):
            return [(command, expected)]  # they are exact by now
        self._doubt(elements)
        return []

    def _doubt(self, elements: Iterable[bytes]) -> None:
        self._todo.update(dict.fromkeys(elements))
        if len(self._todo) > MAX_TODO:
            raise Broken(f"more than {MAX_TODO:,} elements were changed between two pages")

    def _scan_options(self) -> list[bytes]:
        return []

    @abstractmethod
    def _by_name(self, names: list[bytes]) -> list[Command]:
        """The commands that read these elements."""

    @abstractmethod
    def _told(self, names: list[bytes], replies: Sequence[Any]) -> Iterable[Command]:
        """Statements about the elements asked for."""

    @abstractmethod
    def _found(self, items: Sequence[bytes]) -> Iterable[Command]:
        """Statements about the elements that a scan returned."""


def _pairs(items: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(items[::2], items[1::2], strict=True)


# -- hashes -----------------------------------------------------------------------------------------------------------


def _fields(command: Command, width: int = 1) -> Sequence[bytes]:
    """The names behind FIELDS n."""
    words = [word.upper() for word in command]
    at = words.index(b"FIELDS", 2)
    return command[at + 2 : at + 2 + int(command[at + 1]) * width : width]


class HashPager(Members):
    """Where fields may have deadlines, a scan only tells the names; values and deadlines are asked for by name."""

    kind, length, scan = b"hash", b"HLEN", b"HSCAN"
    statements = frozenset([b"HSET", b"HMSET", b"HDEL"])
    named: ClassVar[Mapping[bytes, Names]] = {
        b"HGETEX": _fields,
        b"HINCRBY": lambda command: command[2:3],
        b"HINCRBYFLOAT": lambda command: command[2:3],
        b"HPERSIST": _fields,
        b"HPEXPIREAT": _fields,
        b"HSETEX": lambda command: _fields(command, 2),
    }

    def __init__(self, key: bytes, terms: Terms) -> None:
        super().__init__(key, terms)
        self._timed = b"HPEXPIRETIME" in terms.serving

    def _scan_options(self) -> list[bytes]:
        return [b"NOVALUES"] if self._timed else []

    def _by_name(self, names: list[bytes]) -> list[Command]:
        commands: list[Command] = [[b"HMGET", self.key, *names]]
        if self._timed:
            commands.append([b"HPEXPIRETIME", self.key, b"FIELDS", b"%d" % len(names), *names])
        return commands

    def _told(self, names: list[bytes], replies: Sequence[Any]) -> Iterable[Command]:
        values = dict(zip(names, replies[0], strict=True))
        there = {name: value for name, value in values.items() if value is not None}
        yield from chunked([b"HSET", self.key], there.items())
        yield from chunked([b"HDEL", self.key], ((name,) for name in values if name not in there))
        if self._timed:
            yield from self._timing(there, dict(zip(names, replies[1], strict=True)))

    def _timing(self, fields: Mapping[bytes, bytes], moments: Mapping[bytes, int]) -> Iterable[Command]:
        deadlines = {name: moments[name] for name in fields if moments[name] >= 0}
        if not deadlines:
            return
        self.countable = False  # HLEN counts fields that have expired and are not yet removed
        if b"HPEXPIREAT" in self.terms.mirror:
            yield from field_deadlines(self.key, Hash(fields, deadlines), self.terms.shift_ms)
        else:
            self.lost["hash fields lose their TTL: the target does not know HPEXPIREAT"] = None

    def _found(self, items: Sequence[bytes]) -> Iterable[Command]:
        if not self._timed:
            return chunked([b"HSET", self.key], _pairs(items))
        self._doubt(items)
        return ()


# -- sets -------------------------------------------------------------------------------------------------------------


class SetPager(Members):
    kind, length, scan = b"set", b"SCARD", b"SSCAN"
    statements = frozenset([b"SADD", b"SREM"])
    named: ClassVar[Mapping[bytes, Names]] = {}

    def _by_name(self, names: list[bytes]) -> list[Command]:
        return [[b"SMISMEMBER", self.key, *names]]

    def _told(self, names: list[bytes], replies: Sequence[Any]) -> Iterable[Command]:
        there = [name for name, found in zip(names, replies[0], strict=True) if found]
        gone = [name for name, found in zip(names, replies[0], strict=True) if not found]
        return chain(self._found(there), chunked([b"SREM", self.key], ((name,) for name in gone)))

    def _found(self, items: Sequence[bytes]) -> Iterable[Command]:
        return chunked([b"SADD", self.key], ((item,) for item in items))


# -- sorted sets ------------------------------------------------------------------------------------------------------

ZADD_HARMLESS = frozenset([b"CH"])
ZADD_DEPENDS = frozenset([b"NX", b"XX", b"GT", b"LT", b"INCR"])


def _added(width: int) -> Names:
    """ZADD and GEOADD: the members named, unless no option makes them depend on the old scores."""

    def names(command: Command) -> Sequence[bytes] | None:
        at, depends = 2, False
        while (word := command[at].upper()) in ZADD_DEPENDS or word in ZADD_HARMLESS:
            depends |= word in ZADD_DEPENDS
            at += 1
        return command[at + width - 1 :: width] if depends else None

    return names


def score(value: Any) -> bytes:
    """As every version reads it: some write 17 digits, some the shortest text."""
    return repr(float(value)).encode()


class SortedSetPager(Members):
    kind, length, scan = b"zset", b"ZCARD", b"ZSCAN"
    # ZREMRANGEBYSCORE: what is copied has its exact score, or waits to be asked for; what is not copied is not there
    statements = frozenset([b"ZREM", b"ZREMRANGEBYSCORE"])
    named: ClassVar[Mapping[bytes, Names]] = {
        b"GEOADD": _added(3),
        b"ZADD": _added(2),
        b"ZINCRBY": lambda command: command[3:4],
    }

    def __init__(self, key: bytes, terms: Terms) -> None:
        super().__init__(key, terms)
        self._size = 0

    def take(self, size: int, now_ms: int, replies: Sequence[Any]) -> list[Command]:
        self._size = size
        return super().take(size, now_ms, replies)

    def ask(self, command: Command) -> Command | None:
        name = command[0].upper()
        if name == b"ZREMRANGEBYLEX" and len(command) == 4:
            return [b"ZRANGEBYLEX", *command[1:], b"LIMIT", b"0", b"%d" % (MAX_NAMED + 1)]
        if name == b"ZREMRANGEBYRANK" and len(command) == 4:
            first, last = (integer(word) for word in command[2:])
            if first is not None and last is not None and self._between(first, last) <= MAX_NAMED:
                return [b"ZRANGE", *command[1:]]
        return None

    def _between(self, first: int, last: int) -> int:
        """How many members are there between two ranks, about."""
        first, last = (rank + self._size if rank < 0 else rank for rank in (first, last))
        return min(last, self._size) - max(first, 0) + 1

    def state(self, command: Command, expected: bytes | None) -> list[Stated]:
        if command[0].upper() not in (b"ZREMRANGEBYLEX", b"ZREMRANGEBYRANK"):
            return super().state(command, expected)
        members = self._answer(command)
        if len(members) != number(expected):
            raise Broken("it is not known which members were removed")
        return [([b"ZREM", self.key, *members], None)]

    def _by_name(self, names: list[bytes]) -> list[Command]:
        return [[b"ZMSCORE", self.key, *names]]

    def _told(self, names: list[bytes], replies: Sequence[Any]) -> Iterable[Command]:
        scores = dict(zip(names, replies[0], strict=True))
        there = ((score(value), name) for name, value in scores.items() if value is not None)
        gone = ((name,) for name, value in scores.items() if value is None)
        return chain(chunked([b"ZADD", self.key], there), chunked([b"ZREM", self.key], gone))

    def _found(self, items: Sequence[bytes]) -> Iterable[Command]:
        return chunked([b"ZADD", self.key], ((score(value), name) for name, value in _pairs(items)))
