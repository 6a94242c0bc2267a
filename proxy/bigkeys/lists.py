"""Lists in pages. Pure.

The mirror side has the list of the serving side up to `_copied`. It and `_size` are those of the point of the order
that has been reached: every effect moves them, every page shows the length anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backfill.rebuild import Command, chunked
from proxy.bigkeys.pages import Broken, Pager, Stated, Terms, number
from resp.frames import elements, is_null
from resp.numbers import integer

MARGIN = 16  # elements read again, once elements were popped between the sending of a read and its reply


class ListPager(Pager):
    kind, length = b"list", b"LLEN"

    def __init__(self, key: bytes, terms: Terms) -> None:
        super().__init__(key, terms)
        self._copied = 0
        self._size = 0
        self._asked = 0
        self._margin = 0

    def read(self) -> list[Command]:
        self._asked = max(0, self._copied - self._margin)
        last = self._copied + self._elements - 1
        return [[b"LRANGE", self.key, b"%d" % self._asked, b"%d" % last]]

    def take(self, size: int, now_ms: int, replies: Sequence[Any]) -> list[Command]:
        items = replies[0]
        self._size = size
        self._adapt(len(items), sum(map(len, items)))
        if self._copied < self._asked:  # elements were popped: there is a gap in front of this page
            self._margin = min(max(MARGIN, 4 * self._margin), 4 * self._elements)
            return []
        fresh = items[self._copied - self._asked :]
        self._copied += len(fresh)
        self.complete = self._copied >= size
        return list(chunked([b"RPUSH", self.key], ((item,) for item in fresh)))

    def state(self, command: Command, expected: bytes | None) -> list[Stated]:
        rule = EFFECTS.get(command[0].upper())
        if rule is None:
            raise Broken(f"{command[0].decode(errors='replace')} while it was copied")
        return [(one, None) for one in rule(self, command, expected)]

    def ask(self, command: Command) -> Command | None:
        """Where the elements are that LREM removes; where the pivot of LINSERT is."""
        name = command[0].upper()
        if name == b"LREM" and len(command) == 4 and (count := integer(command[2])) is not None:
            rank = b"-1" if count < 0 else b"1"
            return [b"LPOS", self.key, command[3], b"RANK", rank, b"COUNT", b"%d" % abs(count)]
        if name == b"LINSERT" and len(command) == 5:
            return [b"LPOS", self.key, command[3], b"COUNT", b"1"]
        return None

    # -- effects -------------------------------------------------------------------------------------------------

    def pushed_left(self, command: Command, expected: bytes | None) -> list[Command]:
        self._grow(command, expected)
        self._copied += len(command) - 2
        return [[b"LPUSH", *command[1:]]]  # not LPUSHX: perhaps nothing is copied yet

    def pushed_right(self, command: Command, expected: bytes | None) -> list[Command]:
        """Behind what is copied: a later page shows it."""
        self._grow(command, expected)
        return []

    def _grow(self, command: Command, expected: bytes | None) -> None:
        """A push tells the length; the second half of a move does not."""
        self._size = self._size + len(command) - 2 if expected is None else number(expected)

    def popped_left(self, command: Command, expected: bytes | None) -> list[Command]:
        count = _popped(expected)
        there = min(count, self._copied)
        self._size -= count
        self._copied -= there
        return [[b"LPOP", self.key, b"%d" % there]] if there else []

    def popped_right(self, command: Command, expected: bytes | None) -> list[Command]:
        self._size -= _popped(expected)
        there = self._copied - self._size
        if there <= 0:
            return []
        self._copied = self._size
        return [[b"RPOP", self.key, b"%d" % there]]

    def replaced(self, command: Command, expected: bytes | None) -> list[Command]:
        index = int(command[2])
        index += self._size if index < 0 else 0
        return [[b"LSET", self.key, b"%d" % index, command[3]]] if 0 <= index < self._copied else []

    def removed(self, command: Command, expected: bytes | None) -> list[Command]:
        """As many of them as are in the prefix; from its end, if that is the side from which they were counted."""
        there = sum(position < self._copied for position in self._answer(command))
        self._size -= number(expected)
        self._copied -= there
        count = -there if int(command[2]) < 0 else there
        return [[b"LREM", self.key, b"%d" % count, command[3]]] if there else []

    def inserted(self, command: Command, expected: bytes | None) -> list[Command]:
        (position,) = self._answer(command)
        self._size = number(expected)
        if position >= self._copied:
            return []
        self._copied += 1
        return [command]

    def trimmed(self, command: Command, expected: bytes | None) -> list[Command]:
        first, last = (max(0, end + self._size if end < 0 else end) for end in map(int, command[2:4]))
        if int(command[3]) < -self._size or first > last or first >= self._size:
            raise Broken("LTRIM left nothing of it")
        last = min(last, self._size - 1)
        kept = min(last + 1, self._copied) - first
        self._size = last - first + 1
        self._copied = max(0, kept)
        return [[b"LTRIM", self.key, b"%d" % first, b"%d" % (first + kept - 1)]] if kept > 0 else [[b"DEL", self.key]]


def _popped(expected: bytes | None) -> int:
    if expected is None or is_null(expected):
        raise Broken("a pop whose reply does not tell how much it took")
    return len(elements(expected)) if expected[:1] in b"*~>" else 1


EFFECTS: Mapping[bytes, Callable[[ListPager, Command, bytes | None], list[Command]]] = {
    b"LINSERT": ListPager.inserted,
    b"LPOP": ListPager.popped_left,
    b"LPUSH": ListPager.pushed_left,
    b"LPUSHX": ListPager.pushed_left,
    b"LREM": ListPager.removed,
    b"LSET": ListPager.replaced,
    b"LTRIM": ListPager.trimmed,
    b"RPOP": ListPager.popped_right,
    b"RPUSH": ListPager.pushed_right,
    b"RPUSHX": ListPager.pushed_right,
}
