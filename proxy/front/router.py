"""Where a front sends a command: down the trunk, to the client's own connection to the owner, or it answers itself.

Owns the decision. What a front answers is what nearly every client says when it connects (who it is, which protocol and
db), with the owner's own functions; everything that is not plain makes the client leave the trunk for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.local import OK, Local, answer
from proxy.router import NOAUTH, OPEN_TO_ALL
from proxy.session import LAST, Command, Mode, Session
from resp.catalog import Catalog, Route, Spec, blocks
from resp.encode import encode, error
from resp.numbers import integer

if TYPE_CHECKING:
    from proxy.front.hub import FrontHub

ANSWERED = frozenset([b"AUTH", b"HELLO", b"QUIT", b"CLIENT SETNAME", b"CLIENT GETNAME", b"CLIENT SETINFO"])
READ = Route.READ  # a look-up in the class is slow


class FrontRouter:
    """Decides for every command of every guest."""

    def __init__(self, hub: FrontHub, catalog: Catalog, local: Local) -> None:
        self._hub = hub
        self._catalog = catalog
        self._local = local
        self._shared: frozenset[bytes] = frozenset()
        self.plain: dict[bytes, Spec] = {}  # what goes down the trunk, by its usual spellings

    def share(self, names: frozenset[bytes]) -> None:
        """The owner sends these down its lane: the serving side has nothing else under their names."""
        self._shared = names
        specs = self._catalog.by_name.items()
        self.plain = {
            name: spec for name, spec in specs if spec.name in names and spec.route in (Route.READ, Route.WRITE)
        }

    def dispatch(self, session: Session, commands: list[Command]) -> None:
        """Take a client's commands in order, as far as his mode allows; the rest is parked."""
        lane, plain = self._hub.lane, self.plain
        index, count = 0, len(commands)
        while index < count:
            if session.owed >= session.window or session.choked:
                session.park(commands[index:])
                return
            args = commands[index]
            index += 1
            spec = plain.get(args[0])
            if spec is None or not session.authenticated:
                index += self._slowly(session, args, commands[index:])
            elif spec.route is READ:
                lane.read(session, encode(args))
            else:
                lane.forward(session, encode(args))
            if session.mode is not Mode.READY:
                if session.mode is not Mode.CLOSED:
                    session.park(commands[index:])
                return

    def _slowly(self, session: Session, args: Command, rest: list[Command]) -> int:
        """Everything that is not a plain read or write; how many commands of `rest` were taken along."""
        if args is LAST:
            session.end()
            return 0
        spec = self._catalog.lookup(args)
        if not session.authenticated and spec.name not in OPEN_TO_ALL:
            session.when_idle(lambda: session.put(NOAUTH))
        elif spec.name in self._shared and not blocks(args):
            if spec.writes:
                self._hub.lane.forward(session, encode(args))
            else:
                self._hub.lane.read(session, encode(args))
        elif spec.route is Route.REFUSED:
            session.when_idle(lambda: session.put(error("ERR " + spec.refusal)))
        elif spec.name == b"MULTI" and (block := self._whole_block(args, rest)):
            self._hub.lane.forward(session, b"".join(map(encode, block)), len(block))
            return len(block) - 1
        elif spec.name == b"SELECT" and len(args) == 2 and integer(args[1]) is not None:
            session.when_idle(lambda: self._select(session, integer(args[1]) or 0))
        elif spec.name in ANSWERED:
            session.when_idle(lambda: self._answer(session, spec, args))
        else:
            session.when_idle(lambda: self._hub.move(session, args))
        return 0

    def _whole_block(self, args: Command, rest: list[Command]) -> list[Command]:
        """MULTI … EXEC, when all of it is here and plain; the owner waits for the end of a block that it gets here."""
        if len(args) != 1:
            return []
        block = [[b"MULTI"]]
        for command in rest:
            name = self._catalog.lookup(command).name
            if name == b"EXEC" and len(command) == 1:
                return [*block, [b"EXEC"]]
            if name not in self._shared:
                return []
            block.append(command)
        return []

    def _answer(self, session: Session, spec: Spec, args: Command) -> None:
        answer(self._local, session, spec.name, args)
        self._hub.changed[session.id] = session

    def _select(self, session: Session, db: int) -> None:
        """A db that has been entered before is known to be there; else the server is asked, down the trunk."""
        lane = self._hub.lane
        self._hub.changed[session.id] = session
        if lane.link is not None and db in lane.link.dbs:
            session.db = db
            session.put(OK)
        else:
            lane.select(session, db)
            session.when_idle(lambda: self._answered(session))

    def _answered(self, session: Session) -> None:
        self._hub.changed[session.id] = session
