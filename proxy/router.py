"""Where a client's command goes: lane, pinned connection, waiters, or an answer of the proxy's own.

Owns the decision, one method per route. The lane takes an allow-list (invariant 10): the catalog gives the routes READ
and WRITE only to commands that our own table knows to be free of connection state, not blocking, not administrative.
`dispatch` is the hot path of the product; everything that is not a plain read or write leaves it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.carried import TRACKING
from proxy.info import section, wants_section, with_section
from proxy.lane import Block
from proxy.local import Local, answer, answers
from proxy.session import LAST, Command, Mode, Session
from resp.catalog import Catalog, Route, Spec, blocks
from resp.encode import encode, error
from resp.frames import decode, elements, is_error
from resp.numbers import integer

if TYPE_CHECKING:
    from proxy.hub import Hub

OPEN_TO_ALL = frozenset([b"AUTH", b"HELLO", b"QUIT", b"RESET"])  # taken from a client that has not authenticated
ENDS_ANYTHING = frozenset([b"RESET", b"QUIT"])  # answered by the proxy whatever the session is in
NOAUTH = error("NOAUTH Authentication required.")


class Router:
    """Decides for every command of every session."""

    def __init__(self, hub: Hub, catalog: Catalog, local: Local) -> None:
        self._hub = hub
        self._local = local
        self.catalog = catalog
        self._routes: dict[Route, Callable[[Session, Spec, Command, list[Command]], int]] = {
            Route.READ: self._read,
            Route.WRITE: self._write,
            Route.BLOCKING: self._blocking,
            Route.TRANSACTION: self._transaction,
            Route.PUBSUB: self._pin,
            Route.LOCAL: self._answer,
            Route.PINNED: self._pin,
            Route.REFUSED: self._refuse,
            Route.CURSOR: self._scan,
            Route.SCRIPT: self._script,
            Route.INFO: self._info,
            Route.PUBLISH: self._publish,
        }

    def use(self, catalog: Catalog) -> None:
        """Another server serves: its COMMAND decides from now on."""
        self.catalog = catalog

    def dispatch(self, session: Session, commands: list[Command]) -> None:
        """Take a client's commands in order, as far as his mode allows; the rest is parked."""
        hub = self._hub
        hub.commands += len(commands)
        by_name = self.catalog.by_name
        lane = hub.lane
        waiting = hub.waiters.keys
        noting = hub.noting
        session.last_at = now = hub.clock()
        session.last_command = commands[-1]
        index, count = 0, len(commands)
        while index < count:
            if session.owed >= session.window or session.choked:
                session.park(commands[index:])
                return
            args = commands[index]
            index += 1
            spec = by_name.get(args[0])
            if spec is not None and session.mode is Mode.READY and session.authenticated and lane.link is not None:
                if spec.route is Route.READ:
                    lane.read(session, encode(args))
                    continue
                if spec.route is Route.WRITE and not hub.screens_writes:
                    rule = spec.rule
                    if rule is not None and rule.rewrite is not None:
                        args = rule.rewrite(args)
                    if noting:
                        hub.note(spec, args, session.db)
                    lane.write(session, spec, args, encode(args), now)
                    if waiting:
                        hub.waiters.touched(session.db, ((spec, args),))
                    continue
            index += self._slowly(session, args, commands[index:])
            if (session.mode is not Mode.READY or hub.paused) and index < count:
                if session.mode is Mode.PINNED and not hub.paused:
                    continue
                if session.mode is not Mode.CLOSED:
                    session.park(commands[index:])
                return

    def _slowly(self, session: Session, args: Command, rest: list[Command]) -> int:
        """Everything that is not a plain read or write; how many commands of `rest` were taken along, -1: not even this
        one was taken."""
        if args is LAST:
            session.end()
            return 0
        if session.told(args):
            return 0
        spec = self.catalog.lookup(args)
        if not session.authenticated and spec.name not in OPEN_TO_ALL:
            session.when_idle(lambda: session.put(NOAUTH))
            return 0
        if self._hub.screens_writes and self._hub.pausing.holds(session, spec, args):
            return -1
        if session.pin is not None:
            return self._on_pin(session, spec, args)
        needs_server = spec.route not in (Route.LOCAL, Route.REFUSED) or spec.name == b"SELECT"
        if self._hub.lane.link is None and needs_server:
            session.when_idle(lambda: session.put(error("ERR " + self._hub.refusal)))
            return 0
        if self._hub.read_only and (spec.writes or spec.name == b"MULTI"):
            session.when_idle(lambda: session.put(error("ERR " + self._hub.read_only)))
            return 0
        return self._routes[spec.route](session, spec, args, rest)

    # -- routes --------------------------------------------------------------------------------------------------

    def _read(self, session: Session, spec: Spec, args: Command, rest: list[Command]) -> int:
        self._hub.lane.read(session, encode(args))
        return 0

    def _write(self, session: Session, spec: Spec, args: Command, rest: list[Command]) -> int:
        hub = self._hub
        if spec.rule is not None and spec.rule.rewrite is not None:
            args = spec.rule.rewrite(args)
        hub.note(spec, args, session.db)
        hub.lane.write(session, spec, args, encode(args), session.last_at)
        if hub.waiters.keys:
            hub.waiters.touched(session.db, ((spec, args),))
        return 0

    def _publish(self, session: Session, spec: Spec, args: Command, rest: list[Command]) -> int:
        """A server would serve whoever subscribed before: a subscription goes another way here, so it is waited for."""
        pins = self._hub.pins
        mark = pins.subscriptions.asked
        if pins.subscriptions.heard(mark):
            return self._write(session, spec, args, rest)
        session.when_idle(lambda: self._publish_later(session, spec, args, mark))
        return 0

    def _publish_later(self, session: Session, spec: Spec, args: Command, mark: int) -> None:
        hub = self._hub

        def publish() -> None:
            if hub.paused or hub.lane.link is None:
                session.park([args])
            else:
                self._write(session, spec, args, [])

        session.mode = Mode.OPENING
        heard = hub.pins.subscriptions.heard
        hub.pins.when(lambda: heard(mark) or not session.open, lambda: self._go_on(session, publish))

    def _script(self, session: Session, spec: Spec, args: Command, rest: list[Command]) -> int:
        """It may write keys that it does not declare: it is not sent before such changes are seen."""
        watch = self._hub.watch
        if watch.ready:
            self._script_now(session, spec, args)
        else:
            session.when_idle(lambda: watch.require(session, [args]))
        return 0

    def _script_now(self, session: Session, spec: Spec, args: Command) -> None:
        hub = self._hub
        keys = spec.keys(args)
        hub.watch.script_sent(session.db)
        asked = hub.suspects.before(session.db, keys) if hub.suspects else ()
        hub.note(spec, args, session.db)
        hub.lane.write(session, spec, args, encode(args), session.last_at)
        hub.suspects.behind(session.db, session.resp, asked)
        if hub.waiters.keys:
            hub.waiters.touched(session.db, ((spec, args),))

    def _info(self, session: Session, spec: Spec, args: Command, rest: list[Command]) -> int:
        """The server's answer, with a section of our own where everything is asked for."""
        if wants_section(args):
            session.when_idle(lambda: self._info_with_section(session, args))
        else:
            self._read(session, spec, args, rest)
        return 0

    def _info_with_section(self, session: Session, args: Command) -> None:
        hub = self._hub
        session.mode = Mode.WAITING
        session.owed += 1

        def on_reply(frame: bytes | None) -> None:
            answer = elements(frame)[0] if frame is not None and frame.startswith(b"*1") else frame
            if session.mode is Mode.WAITING:
                session.mode = Mode.READY
            lost = error("ERR crossfade: the connection to the serving side was lost")
            session.reply(lost if answer is None else with_section(answer, section(hub.facts())))

        hub.lane.call(session.db, [args], on_reply, resp=session.resp)

    def _scan(self, session: Session, spec: Spec, args: Command, rest: list[Command]) -> int:
        hub = self._hub
        side = hub.recorder.cursors.side(session.db, spec.name, args)
        if side is None or side is hub.roles.serving:
            return self._write(session, spec, args, rest)  # not a write: but its reply is looked at
        session.when_idle(lambda: self._scan_there(session, spec, args))
        return 0

    def _scan_there(self, session: Session, spec: Spec, args: Command) -> None:
        """Continue a scan on the side that began it. It is the mirror side now, so it is read in the mirror queue."""
        hub = self._hub
        side, db = hub.roles.mirror, session.db
        session.mode = Mode.WAITING
        session.owed += 1

        def on_reply(frame: bytes | None) -> None:
            replies = elements(frame) if frame is not None and not is_error(frame) else []
            answer = (
                replies[0] if replies else error("ERR crossfade: the side that began this scan is gone; begin again")
            )
            if replies and not is_error(answer):
                hub.recorder.cursors.given(db, spec.name, args, decode(elements(answer)[0]), side)
            if session.mode is Mode.WAITING:
                session.mode = Mode.READY if session.pin is None else Mode.PINNED
            session.reply(answer)

        hub.mirror.call(db, [args], on_reply)

    def _blocking(self, session: Session, spec: Spec, args: Command, rest: list[Command]) -> int:
        if blocks(args):
            self._hub.waiters.start(session, spec, args)
            return 0
        return (self._write if spec.writes else self._read)(session, spec, args, rest)

    def _transaction(self, session: Session, spec: Spec, args: Command, rest: list[Command]) -> int:
        if spec.name == b"MULTI" and len(args) == 1 and not self._hub.pausing.kind:
            block = self._whole_block(rest)
            if block is not None:
                if block.scripts and not self._hub.watch.ready:
                    commands = [args, *rest[: len(block.commands) + 1]]
                    session.when_idle(lambda: self._hub.watch.require(session, commands))
                else:
                    self._block(session, block)
                return len(block.commands) + 1
        if spec.name in (b"MULTI", b"WATCH"):
            return self._pin(session, spec, args, rest)
        return self._read(session, spec, args, rest)  # EXEC, DISCARD, UNWATCH without anything open change nothing

    def _block(self, session: Session, block: Block) -> None:
        hub = self._hub
        for spec, args in block.commands:
            hub.note(spec, args, session.db)
        for _ in range(block.scripts):
            hub.watch.script_sent(session.db, alone=False)
        hub.lane.block(session, block, session.last_at)
        if hub.waiters.keys:
            hub.waiters.touched(session.db, block.commands)

    def _whole_block(self, rest: list[Command]) -> Block | None:
        """The commands up to EXEC, when all of the block is here and may go down the lane."""
        commands: list[tuple[Spec, Command]] = []
        for args in rest:
            spec = self.catalog.lookup(args)
            if spec.name == b"EXEC" and len(args) == 1:
                return Block(commands)
            if not spec.in_multi or args is LAST:
                return None
            if spec.rule is not None and spec.rule.rewrite is not None:
                args = spec.rule.rewrite(args)
            commands.append((spec, args))
        return None

    def _answer(self, session: Session, spec: Spec, args: Command, rest: list[Command]) -> int:
        if not answers(self._local, spec.name):
            return self._pin(session, spec, args, rest)
        session.when_idle(lambda: answer(self._local, session, spec.name, args))
        return 0

    def _refuse(self, session: Session, spec: Spec, args: Command, rest: list[Command]) -> int:
        session.when_idle(lambda: session.put(error("ERR " + spec.refusal)))
        return 0

    def _send_pinned(self, session: Session, spec: Spec, args: Command) -> None:
        """On the session's own connection; it may have been given back meanwhile."""
        if session.pin is not None:
            session.pin.send(spec, args)
        else:
            self._hub.pins.open(session, args)

    def _track(self, session: Session, then: Callable[[], None], args: Command) -> None:
        """CLIENT TRACKING [… REDIRECT id]: the other session needs a connection that the server knows. An id that is
        not mapped must never reach the server, where it is somebody else's."""
        words = [arg.upper() for arg in args]
        if b"REDIRECT" not in words[3:-1]:
            then()
            return
        number = integer(args[words.index(b"REDIRECT", 3) + 1])
        other = self._hub.sessions.get(number or 0)
        if number is None:
            session.put(error("ERR value is not an integer or out of range"))
        elif other is None:
            session.put(error("ERR The client ID you want redirect to does not exist"))
        elif other.pin is not None:
            then()
        else:
            self._hub.pins.give_one(other)
            session.mode = Mode.OPENING
            self._hub.pins.when(lambda: other.pin is not None or not other.open, lambda: self._go_on(session, then))

    def _go_on(self, session: Session, then: Callable[[], None]) -> None:
        if session.open:
            session.mode = Mode.READY if session.pin is None else Mode.PINNED
            then()
            self._hub.touched.append(session)

    def _pin(self, session: Session, spec: Spec, args: Command, rest: list[Command]) -> int:
        """Give the session a connection of its own, then let it have this command."""

        def open_pin() -> None:
            self._hub.pins.open(session, args)

        if not spec.known:
            self._hub.recorder.note_unknown(spec)
        if spec.name == TRACKING:
            session.when_idle(lambda: self._track(session, open_pin, args))
        else:
            session.when_idle(open_pin)
        return 0

    def _on_pin(self, session: Session, spec: Spec, args: Command) -> int:
        pin = session.pin
        assert pin is not None
        if self._hub.read_only and pin.refuse_writes(spec, "ERR " + self._hub.read_only):
            return 0
        if spec.route is Route.REFUSED and pin.in_multi:
            pin.poison("ERR " + spec.refusal)
        elif spec.route is Route.REFUSED:
            session.when_idle(lambda: session.put(error("ERR " + spec.refusal)))
        elif pin.quiet and spec.name not in ENDS_ANYTHING:
            pin.send(spec, args)  # the server says what is possible while subscribed
        elif spec.name in ENDS_ANYTHING or (not pin.in_multi and answers(self._local, spec.name)):
            session.when_idle(lambda: answer(self._local, session, spec.name, args))
        elif spec.route is Route.BLOCKING and blocks(args) and not pin.in_multi:
            session.when_idle(lambda: self._hub.waiters.start(session, spec, args))
        elif spec.name == TRACKING and not pin.in_multi:
            session.when_idle(lambda: self._track(session, lambda: self._send_pinned(session, spec, args), args))
        elif spec.route is Route.SCRIPT and not self._hub.watch.ready:
            session.when_idle(lambda: self._hub.watch.require(session, [args]))
        else:
            pin.send(spec, args)
        return 0
