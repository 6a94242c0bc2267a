"""How many keys a comparison has looked at, and what it found: for `compare`, and for a proxy's `verify`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .codec import Unreadable
from .compare import Difference, Status

UNREADABLE = "unreadable"
STATUSES = (*(status.value for status in Status), UNREADABLE)  # of a finding; each is the name of a count


def verdict(outcome: Difference | Unreadable) -> tuple[str, str]:
    """Status and detail of a key that is not equal, or could not be compared."""
    if isinstance(outcome, Difference):
        return outcome.status.value, outcome.detail
    return UNREADABLE, outcome.reason


@dataclass(slots=True)
class Counts:
    """Keys, by what was found. The sum of the statuses is the number of those that are not equal."""

    checked: int = 0
    equal: int = 0
    missing: int = 0
    extra: int = 0
    type: int = 0
    ttl: int = 0
    value: int = 0
    unreadable: int = 0

    @property
    def different(self) -> int:
        """Keys that are not equal, or could not be compared."""
        return sum(getattr(self, status) for status in STATUSES)

    def are_equal(self, keys: int) -> None:
        """So many more were looked at, and are equal."""
        self.checked += keys
        self.equal += keys

    def found(self, status: str) -> None:
        """One more was looked at, and is not."""
        self.checked += 1
        setattr(self, status, getattr(self, status) + 1)
