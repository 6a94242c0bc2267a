"""What a pager is: the page after page of one key, and what becomes of its effects meanwhile. Pure.

`__init__.py` has the theory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from backfill.rebuild import Command

BIG_BYTES = 1024 * 1024  # above it a key is paged; below it is read in one go, in a few milliseconds
PAGE_BYTES = 256 * 1024  # aimed at, for a page
PAGE_ELEMENTS = 1000  # at most: our own work for a reply goes by elements, not by bytes (1,000: 2 ms, measured)
FIRST_ELEMENTS = 100  # in the first page, which tells how long an element is
ASKED_ELEMENTS = 500  # by name, in one page
MAX_NAMED = 2000  # elements that a command by rank or value may touch for it to be asked which


class Broken(Exception):
    """The copy under way cannot go on; `reason` says why. It begins again."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Terms:
    """What a pager must know of the two servers."""

    serving: frozenset[bytes] = frozenset()  # upper-case names of the serving side's commands
    mirror: frozenset[bytes] = frozenset()
    mirror_version: tuple[str, int, int] = ("redis", 6, 2)
    shift_ms: int = 0  # the mirror's clock minus the serving side's


Stated = tuple[Command, bytes | None]  # a command and the reply expected; None: any but an error


class Pager(ABC):
    """One copy of one key."""

    kind: ClassVar[bytes]  # as TYPE has it
    length: ClassVar[bytes]  # the command that tells how many elements there are
    shown: ClassVar[frozenset[bytes]] = (
        frozenset()
    )  # commands of which a later page shows everything they may have done

    def __init__(self, key: bytes, terms: Terms) -> None:
        self.key = key
        self.terms = terms
        self.complete = False  # everything is stated: what was taken last was the last page
        self.countable = True  # the lengths of both sides must be equal then
        self.lost: dict[str, None] = {}  # what the mirror side cannot hold
        self._elements = FIRST_ELEMENTS
        self._answers: deque[tuple[Command, Any]] = deque()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key!r}{' complete' if self.complete else ''}>"

    @abstractmethod
    def read(self) -> list[Command]:
        """The next page, to be read in one MULTI/EXEC."""

    @abstractmethod
    def take(self, size: int, now_ms: int, replies: Sequence[Any]) -> list[Command]:
        """The statements in the decoded replies to `read`. `size`: the key's length at that point. Errors: Broken."""

    @abstractmethod
    def state(self, command: Command, expected: bytes | None) -> list[Stated]:
        """What to put in the mirror queue for this effect on the key. Errors: Broken."""

    def ask(self, command: Command) -> Command | None:
        """What must be read right before this command is executed, for its effect to be known; usually nothing."""
        return None

    def tell(self, command: Command, reply: Any) -> None:
        """The reply to `ask(command)`. An empty one is none: a command that finds nothing has no effect. Every other
        effect takes its own out again, in order."""
        if reply:
            self._answers.append((command, reply))

    def _answer(self, command: Command) -> Any:
        """What was told for the effect of this command. Errors: Broken."""
        if not self._answers or self._answers[0][0] != command:
            raise Broken(f"{command[0].decode(errors='replace')} while it was copied")
        return self._answers.popleft()[1]

    def _adapt(self, elements: int, size: int) -> None:
        """So many elements had so many bytes: ask for as many as a page should have."""
        if elements:
            per_element = max(1, size // elements)
            self._elements = max(1, min(PAGE_ELEMENTS, PAGE_BYTES // per_element, 4 * self._elements))


def number(expected: bytes | None) -> int:
    """An integer reply. Errors: Broken."""
    if expected is None or expected[:1] != b":":
        raise Broken(f"a reply that does not tell the length: {expected!r}")
    return int(expected[1:-2])
