"""A front's shared connection: a lane whose upstream is the owner.

Owns what differs from a lane to a server: the context is told without a reply, effects are not recorded (the owner
does), and of a pipeline nothing is remembered but how many answers are due. Whose write is in flight when the
connection is lost is disconnected, reads are sent again: as on any lane.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import TYPE_CHECKING, Any

from proxy.front.guests import CONTEXT, GROUP_BYTES, HEADER
from proxy.items import FORWARD
from proxy.lane import Lane, LaneLoss
from resp.catalog import Route, Spec
from resp.encode import encode
from resp.plain import CRLF, MAX_BYTES, read_big, read_columns, read_one

if TYPE_CHECKING:
    from proxy.front.hub import FrontHub
    from proxy.link import Link
    from proxy.session import Session


class NoRecorder:
    """Nothing is mirrored from here."""

    def tick(self) -> None:
        """Time passes for the owner's recorder."""


class Trunk(Lane):
    """The order in which this front's guests reach the owner."""

    recorder: Any = NoRecorder()

    def __init__(self, on_lost: Callable[[LaneLoss], None], on_full: Callable[[bool], None]) -> None:
        super().__init__(on_lost, on_full)
        self._groups: list[bytes] = []  # ready to be sent, with their headers

    def forward(self, session: Session, payload: bytes, count: int = 1) -> None:
        """So many commands of which one at least may change data."""
        if session.db != self._db or session.resp != self._resp:
            self._context(session.db, session.resp)
        self._out.append(payload)
        item = (FORWARD, session)
        if count == 1:
            self._pending.append(item)
        else:
            self._pending.extend(repeat(item, count))
        session.owed += count

    def _context(self, db: int, resp: int) -> None:
        if db != self._db or resp != self._resp:
            self._close_group()
            self._out.append(encode([CONTEXT, b"%d" % db, b"%d" % resp]))
            self._close_group()
            self._db, self._resp = db, resp

    def attach(self, link: Link) -> None:
        """As a lane; what was not sent on the former connection is not sent on this one."""
        self._groups.clear()
        super().attach(link)

    def flush(self) -> None:
        """Send what has gathered, at once."""
        self._close_group()
        if self._groups and self.link is not None:
            data = b"".join(self._groups)
            self._groups.clear()
            self.link.send(data)

    def _close_group(self) -> None:
        """What has gathered is a group, or several: no payload is cut."""
        group: list[bytes] = []
        size = 0
        for payload in self._out:
            if group and size + len(payload) > GROUP_BYTES:
                self._groups += (HEADER.pack(size), *group)
                group, size = [], 0
            group.append(payload)
            size += len(payload)
        if group:
            self._groups += (HEADER.pack(size), *group)
        self._out.clear()


class FrontExpress:
    """Plain commands that arrive whole, as `proxy/express.py` takes them: neither taken apart further nor encoded
    again. Nothing is asked here but whether they may share the trunk, and whether all of them are reads."""

    __slots__ = ("_hub",)

    def __init__(self, hub: FrontHub) -> None:
        self._hub = hub

    def take(self, session: Session, data: bytes) -> bool:
        """Whether the chunk has been taken. The session is READY, and nothing of it waits."""
        hub = self._hub
        if hub.paused or not session.authenticated:
            return False
        big = len(data) > MAX_BYTES
        pieces = [] if big else data.split(CRLF)
        args = read_big(data) if big else read_one(pieces)
        if args is None and big:
            return False
        if args is not None:
            spec = hub.router.plain.get(args[0])
            if spec is None or session.owed >= session.window:
                return False
            if spec.route is READ:
                hub.lane.read(session, data)
            else:
                hub.lane.forward(session, data)
            return True
        columns = read_columns(pieces)
        if columns is None:
            return False
        count = len(columns[0])
        specs: list[Spec | None] = [hub.router.plain.get(name) for name in set(columns[0])]
        if None in specs or session.owed + count > session.window:
            return False
        if all(spec is not None and spec.route is READ for spec in specs):
            hub.lane.reads(session, data, count)
        else:
            hub.lane.forward(session, data, count)
        return True


READ = Route.READ  # a look-up in the class is slow
