"""Which server gave which cursor. A SCAN that began on one side is finished on that side: its cursor means nothing on
the other. Pure.

Pooled clients continue a SCAN over another connection, so the table is the proxy's, not a session's.
"""

from __future__ import annotations

from collections import OrderedDict

from proxy.roles import Name

MAX_CURSORS = 20_000  # remembered; older ones are taken for the serving side's
END = b"0"


def position(name: bytes, args: list[bytes]) -> int:
    """Where the cursor stands in the arguments."""
    return 1 if name == b"SCAN" else 2


class Cursors:
    """The cursors that clients may come back with."""

    def __init__(self) -> None:
        self._sides: OrderedDict[tuple[int, bytes, bytes], Name] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Cursors {len(self._sides)}>"

    def given(self, db: int, name: bytes, args: list[bytes], cursor: bytes, side: Name) -> None:
        """`side` answered a scan command with this cursor."""
        if cursor == END:
            return
        key = (db, args[1] if name != b"SCAN" else b"", cursor)
        self._sides[key] = side
        self._sides.move_to_end(key)
        if len(self._sides) > MAX_CURSORS:
            self._sides.popitem(last=False)

    def side(self, db: int, name: bytes, args: list[bytes]) -> Name | None:
        """Who gave the cursor that this command continues; None when it begins, or nobody remembers."""
        at = position(name, args)
        if len(args) <= at or args[at] == END:
            return None
        return self._sides.get((db, args[1] if name != b"SCAN" else b"", args[at]))
