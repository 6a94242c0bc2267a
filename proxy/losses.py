"""Keys of which the mirror side cannot hold everything (TTLs of hash fields, say), and what is lost. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.dirty import Place

MAX_KEPT = 10_000


class Losses:
    """What is known by key, up to a number; beyond it only that there are more."""

    def __init__(self) -> None:
        self._texts: dict[Place, str] = {}
        self.more = False

    def __repr__(self) -> str:
        return f"<Losses {self}>"

    def __str__(self) -> str:
        """How many keys."""
        return f"{'more than ' if self.more else ''}{len(self._texts):,}"

    def __len__(self) -> int:
        return len(self._texts)

    def note(self, place: Place, lost: Iterable[str]) -> None:
        """A copy of this key lost that; nothing: it is whole."""
        text = "; ".join(lost)
        if not text:
            self._texts.pop(place, None)
        elif place in self._texts or len(self._texts) < MAX_KEPT:
            self._texts[place] = text
        else:
            self.more = True

    def first(self, count: int) -> list[tuple[Place, str]]:
        """Some of them."""
        return [item for item, _ in zip(self._texts.items(), range(count), strict=False)]

    def turn(self, count: int) -> list[Place]:
        """The first of them, which are the last afterwards."""
        places = [place for place, _ in self.first(count)]
        for place in places:
            self._texts[place] = self._texts.pop(place)
        return places

    def recount(self) -> None:
        """Every key is copied once more: those beyond the number are noted again."""
        self.more = False

    def clear(self) -> None:
        self._texts.clear()
        self.more = False
