"""What is known about the two servers, and which of them serves. Pure: somebody else measures and asks.

`source` and `target` never swap; `serving` and `mirror` are the roles they play now. Clock offsets are in milliseconds,
server clock minus this machine's wall clock, with the uncertainty of the measurement (half a round trip).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

UNLIMITED = 2**62  # bytes: what nobody could tell
UNKNOWN_CLOCK_MS = 1000.0  # uncertainty before the first TIME has been answered


class Name(Enum):
    """Which server; these never swap."""

    SOURCE = "source"
    TARGET = "target"

    @property
    def other(self) -> Name:
        return Name.TARGET if self is Name.SOURCE else Name.SOURCE


@dataclass(slots=True)
class Clock:
    """The offset of one server's clock."""

    offset_ms: float = 0.0
    uncertainty_ms: float = UNKNOWN_CLOCK_MS

    def measured(self, sent_ms: float, server_ms: float, received_ms: float) -> None:
        """Take in one TIME: when it was sent and answered (this machine's clock), and what it said.

        A tighter measurement replaces the last; otherwise the last one's uncertainty grows by what clocks may drift
        (100 ppm: 0.1 ms a second of polling), so that a new one wins before long.
        """
        uncertainty = (received_ms - sent_ms) / 2 + 0.5  # TIME is cut, not rounded, to what we use of it
        self.uncertainty_ms += 0.1
        if uncertainty <= self.uncertainty_ms:
            self.offset_ms = server_ms - (sent_ms + received_ms) / 2
            self.uncertainty_ms = uncertainty


@dataclass(slots=True)
class Facts:
    """What one server can do."""

    commands: frozenset[bytes] = frozenset()  # upper names; containers as b"XGROUP CREATE" where the server tells
    version: tuple[str, int, int] = ("redis", 0, 0)
    run_id: str = ""
    max_bulk: int = UNLIMITED  # proto-max-bulk-len: a longer argument costs the connection
    clock: Clock = field(default_factory=Clock)


class Roles:
    """Who serves, under which epoch, and the facts of both."""

    def __init__(self, serving: Name = Name.SOURCE, epoch: int = 0) -> None:
        self.facts = {Name.SOURCE: Facts(), Name.TARGET: Facts()}
        self.serving = serving
        self.epoch = epoch

    def __repr__(self) -> str:
        return f"<Roles serving={self.serving.value} epoch={self.epoch}>"

    @property
    def mirror(self) -> Name:
        return self.serving.other

    @property
    def names(self) -> tuple[str, str]:
        """Who serves, who mirrors."""
        return self.serving.value, self.mirror.value

    @property
    def serving_facts(self) -> Facts:
        return self.facts[self.serving]

    @property
    def mirror_facts(self) -> Facts:
        return self.facts[self.mirror]

    @property
    def shift_ms(self) -> int:
        """What to add to a deadline in the serving side's clock to have it in the mirror's."""
        return round(self.mirror_facts.clock.offset_ms - self.serving_facts.clock.offset_ms)

    @property
    def uncertainty_ms(self) -> float:
        """How wrong `shift_ms` may be, either way."""
        return self.mirror_facts.clock.uncertainty_ms + self.serving_facts.clock.uncertainty_ms

    def mirror_now_ms(self, wall_ms: float) -> int:
        """The mirror's clock when this machine's says `wall_ms`."""
        return round(wall_ms + self.mirror_facts.clock.offset_ms)
