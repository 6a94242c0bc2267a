"""The express way: plain reads and writes that arrive whole, which is nearly all traffic. Clever on purpose, here only.

A chunk is taken when it is one plain command, or a pipeline of plain commands of one shape, and nothing stands in the
way; else `take` says no and has done nothing: session.py and router.py know every case, with the same outcome. What is
taken here is not read argument by argument nor encoded again (`resp/plain.py` proves the chunk canonical, so invariant
10 holds), and a pipeline is one item on the lane and one on the mirror connection, whose replies are counted off
together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.items import Run
from resp.catalog import NOWHERE, Route, Spec
from resp.plain import BIG_BYTES, CRLF, HEAD_BYTES, MANY_LINES, MAX_BYTES, NEAR_BYTES, read_big, read_columns, read_one

if TYPE_CHECKING:
    from proxy.hub import Hub
    from proxy.session import Session

READ, WRITE = Route.READ, Route.WRITE  # a look-up in the class is slow


class Express:
    """Takes what it can; `Session.on_readable` asks for every chunk that begins with a new command."""

    __slots__ = ("_hub",)

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def take(self, session: Session, data: bytes) -> bool:
        """Whether the chunk has been taken. The session is READY, and nothing of it waits.

        Not taken, as more than sending on is due: a write that is rewritten, refused, or may serve somebody who waits.
        """
        hub = self._hub
        lane = hub.lane
        if hub.paused or lane.link is None or not session.authenticated:
            return False
        args = read_big(data) if len(data) >= BIG_BYTES and data.find(b"*", 1, NEAR_BYTES) < 0 else None
        if args is None:
            if len(data) > MAX_BYTES and data.count(CRLF, 0, HEAD_BYTES) < MANY_LINES:
                return False
            pieces = data.split(CRLF)
            args = read_one(pieces)
            if args is None:
                return self._take_run(session, data, pieces)
        spec = hub.router.catalog.by_name.get(args[0])
        if spec is None or session.owed >= session.window:
            return False
        route = spec.route
        if route is READ:
            session.last_at = hub.clock()
            lane.read(session, data)
        elif route is WRITE and not (spec.rewritten or hub.screens_writes or hub.waiters.keys):
            session.last_at = now = hub.clock()
            if spec.one_key and spec.rule is not None and (answers := spec.rule.answers[len(args)]):
                lane.single(session, spec, args, data, now, answers)
            else:
                hub.note(spec, args, session.db)
                lane.write(session, spec, args, data, now)
        else:
            return False
        session.last_command = args
        hub.commands += 1
        return True

    def _take_run(self, session: Session, data: bytes, pieces: list[bytes]) -> bool:
        hub = self._hub
        by_name = hub.router.catalog.by_name
        first = by_name.get(pieces[2]) if len(pieces) > 2 else None
        if first is None or (first.route is WRITE and first.key_columns is NOWHERE):
            return False
        columns = read_columns(pieces)
        if columns is None:
            return False
        count = len(columns[0])
        if session.owed + count > session.window:
            return False
        names = columns[0]
        if first.route is WRITE:
            if (
                names.count(names[0]) < count  # written as the first is, which is nearly always so
                or hub.screens_writes
                or hub.waiters.keys
                or not self._repeats(first, len(columns))
            ):
                return False
            session.last_at = now = hub.clock()
            for keys in columns[first.key_columns]:
                hub.note_keys(keys, session.db)
            hub.lane.writes(session, Run(data, first, columns), now)
        elif all(spec is not None and spec.route is READ for spec in map(by_name.get, set(names))):
            session.last_at = hub.clock()
            hub.lane.reads(session, data, count)
        else:
            return False
        session.last_command = [column[-1] for column in columns]
        hub.commands += count
        return True

    @staticmethod
    def _repeats(spec: Spec, argc: int) -> bool:
        """Whether commands of this shape are mirrored as sent whatever they are answered, with keys that are known by
        where they stand."""
        return spec.rule is not None and spec.rule.answers[argc] is not None
