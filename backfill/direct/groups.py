"""What travels through the copier: groups of keys, and the reads and writes of them that are under way. Pure values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ..codec import Believed, Form
from .pipe import Ticket
from .tally import Page


@dataclass(slots=True)
class Group:
    """Keys of one db that travel together. `names`: the keys encoded; `sizes`: expected bytes of each."""

    db: int
    keys: list[bytes]
    names: list[bytes]
    sizes: list[int]
    page: Page | None = None
    form: Form | None = None  # None: what the copier believes to be right
    believed: list[Believed] = field(default_factory=list)  # form STRUCT: types, as far as they are known
    attempts: int = 0
    cost: int = 0  # bytes of the budget

    def part(self, start: int, end: int) -> Group:
        return Group(
            self.db,
            self.keys[start:end],
            self.names[start:end],
            self.sizes[start:end],
            self.page,
            self.form,
            self.believed[start:end],
        )

    def chosen(self, indexes: Iterable[int]) -> Group:
        """Some of them, with the page and the cost of all."""
        return Group(
            self.db,
            [self.keys[index] for index in indexes],
            [self.names[index] for index in indexes],
            [self.sizes[index] for index in indexes],
            self.page,
            attempts=self.attempts,
            cost=self.cost,
        )


@dataclass(frozen=True, slots=True)
class Probe:
    """What to ask the source about keys before they are copied: `data` gets `count` replies."""

    db: int
    keys: list[bytes]
    names: list[bytes]
    data: bytes
    count: int


@dataclass(slots=True)
class Reading:
    """A group whose read is under way: the ends of its blocks, and how many replies each of them gets."""

    group: Group
    form: Form
    ticket: Ticket
    ends: list[int]
    counts: list[int]


@dataclass(slots=True)
class Asking:
    """A group whose types are asked for, as it is none to be copied."""

    group: Group
    ticket: Ticket


@dataclass(slots=True)
class Writing:
    """Keys whose write is under way. `counts`: the replies of each key, or empty for one each."""

    group: Group
    form: Form
    ticket: Ticket
    counts: list[int]
    nothing: list[int]  # where a key was deleted, as the source has none
