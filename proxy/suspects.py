"""Keys that a script might write unseen, while commands write them all the time: the server is asked, script by script.

Owns the question. While scripts run, the watch (watch.py) cannot tell a script's change of an undeclared key from one
by a command of ours, so every key that is written then is copied. Where scripts run all the time, that would be every
write to a busy key, and a copy of a big one would never be good. So the lane gets WATCH of such keys right before a
script, MULTI and EXEC right behind it: EXEC is answered with nil if one of them was changed in between. (Another
connection, or a deadline, may have done that: they are copied without need.) What the watch tells of these keys is a
command's of ours, then.

A key is asked about when it was copied twice in a few seconds for that reason, or while it is copied in pages, as long
as commands write it. Its next copy shows what scripts did that were sent before. A script inside a client's MULTI, or
on a connection of its own, cannot be asked about: the watch's word counts as long as one runs. Where scripts do write
these keys, asking does not pay, and is left for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from resp.frames import is_error, is_null

if TYPE_CHECKING:
    from proxy.dirty import Place
    from proxy.hub import Hub

MAX_SUSPECTS = 64  # named in one WATCH, for every script
REST_SECONDS = 1.0  # without a question after a script did write one; doubled each time
MAX_REST_SECONDS = 60.0
REASON = "a script wrote it without declaring it"


class Suspects:
    """The keys that are asked about."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._places: dict[Place, None] = {}
        self._seen: set[Place] = set()  # copied once, lately, because a script ran
        self._rests_until = float("-inf")
        self._rest = REST_SECONDS

    def __repr__(self) -> str:
        return f"<Suspects {len(self._places)}>"

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, place: Place) -> bool:
        return place in self._places

    def seen(self, place: Place) -> None:
        """The key is to be copied, as it changed while a script ran; commands write it, too."""
        if place in self._seen:
            self.add(place)
        elif len(self._seen) < MAX_SUSPECTS * 100:
            self._seen.add(place)

    def add(self, place: Place) -> None:
        """Ask about this key, of which a copy is about to be read."""
        if len(self._places) < MAX_SUSPECTS and self._hub.clock() >= self._rests_until:
            self._places[place] = None

    def keep(self, written: Callable[[bytes], bool]) -> None:
        """Ask about these no longer that nobody writes: the watch knows better. Called every few seconds."""
        self._seen.clear()
        if self._places:
            self._rest = REST_SECONDS  # nothing went wrong with them
        for place in [place for place in self._places if not written(place[1])]:
            del self._places[place]

    def before(self, db: int, declared: Collection[bytes]) -> list[Place]:
        """A script comes next on the lane. What `behind` must be told; the keys that it declares are copied anyway."""
        asked = [place for place in self._places if place[0] != db or place[1] not in declared]
        for there in dict.fromkeys(place[0] for place in asked):
            keys = [key for at, key in asked if at == there]
            self._hub.lane.ask(there, [b"WATCH", *keys], self._watching)
        return asked

    def behind(self, db: int, resp: int, asked: Sequence[Place]) -> None:
        """The script has been put in the lane."""
        if asked:
            self._hub.lane.call(db, [], lambda frame: self._answered(asked, frame), resp=resp)

    def _watching(self, frame: bytes | None) -> None:
        if frame is not None and is_error(frame):  # an ACL, or a cluster that wants all keys in one slot
            self._doubt(list(self._places))

    def _answered(self, asked: Sequence[Place], frame: bytes | None) -> None:
        if frame is None or is_error(frame):
            self._doubt(asked)
        elif is_null(frame):
            for place in asked:
                self._hub.repair.mark(place, REASON, lag=True)
            self._stop_asking()

    def _doubt(self, places: Sequence[Place]) -> None:
        for place in places:
            self._hub.repair.mark_unordered(place, REASON, lag=True)
        self._stop_asking()

    def _stop_asking(self) -> None:
        if self._places:
            self._places.clear()
            self._rests_until = self._hub.clock() + self._rest
            self._rest = min(MAX_REST_SECONDS, self._rest * 2)
