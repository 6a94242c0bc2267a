"""Pinned connections: a serving-side connection owned by one session, for what cannot share the lane.

WATCH, a MULTI whose EXEC has not arrived, subscriptions, MONITOR, client-side caching, administrative and unknown
commands. Owns the accounting of each connection's replies and the state that it carries, and gives it back when it
carries none. A write here has no known place in the lane's order: its keys are held dirty from the moment it is sent,
and copied once its reply is in (invariant 5); so whatever the order was, the copy shows the outcome.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxy.carried import (
    NOT_SUBSCRIBING,
    REPLAYED,
    SUBSCRIBING,
    TRACKING,
    Subscribed,
    Transaction,
    as_asked,
    is_message,
    leaves_state,
    redirected,
    redirected_to,
)
from proxy.link import Link
from proxy.session import Command, Mode, Session
from resp.catalog import Route, Spec
from resp.encode import encode, error
from resp.frames import elements, is_error, is_null, is_push
from resp.numbers import integer

if TYPE_CHECKING:
    from proxy.hub import Hub

Place = tuple[int, bytes]

TELL_REDIRECT = frozenset([b"CLIENT GETREDIR", b"CLIENT TRACKINGINFO"])
NOT_IN_MULTI = frozenset([b"HELLO", b"AUTH", b"CLIENT REPLY", b"CLIENT TRACKING", b"MONITOR"])
_BROKEN = b">2\r\n$21\r\ntracking-redir-broken\r\n"
_UNKNOWN_COMMAND = b"-ERR unknown command"
POISON = [b"CROSSFADE.REFUSED"]  # no server knows it: a transaction with it fails
QUEUED = b"+QUEUED\r\n"
MAX_CACHED = 10_000  # keys of a tracking session that are remembered; of more than these it is told "all"
FORGET = {  # by protocol: an invalidation's head, and what stands for all keys
    2: (b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n", b"*-1\r\n"),
    3: (b">2\r\n$10\r\ninvalidate\r\n", b"_\r\n"),
}
NIL_EXEC = {2: b"*-1\r\n", 3: b"_\r\n"}
WRITTEN_HERE = "written on a connection of its own"


@dataclass(slots=True)
class Awaited:
    """One command sent on a pinned connection."""

    spec: Spec | None  # None: our own (SELECT, HELLO, what is replayed): the reply is swallowed
    args: Command
    frames: int = 1  # replies still to come
    held: list[Place] = field(default_factory=list)
    block: Transaction | None = None  # EXEC or DISCARD: the transaction that it ends
    scripts: int = 0  # among what it executes
    opened: Transaction | None = None  # MULTI: the transaction that it begins
    subscription: int = 0  # the number of the subscription (pins.py) that is in force once this is answered


class Pinned:
    """One session's connection and what it carries."""

    def __init__(self, hub: Hub, session: Session, link: Link) -> None:
        self.session = session
        self.link = link
        self.transaction: Transaction | None = None
        self.watching = False
        self.listening = False  # others' tracking is redirected to it
        self.tainted = False  # it may carry state that is not known: it stays with this session
        self.replayed: dict[bytes, Command] = {}  # MONITOR, CLIENT TRACKING: made anew on another connection
        self.subscribed = Subscribed()
        self._cached: dict[bytes, None] = {}  # keys that the client has read while it tracks: it may have cached them
        self._hub = hub
        self._awaited: deque[Awaited] = deque()
        self._out: list[bytes] = []
        self._unconfirmed = 0  # (un)subscriptions awaited: messages may still come before their answers
        self._broken_watch = False  # a flip came between WATCH and EXEC
        self._orphan = False
        link.owner = self
        self._enter(session.resp, session.db)

    def __repr__(self) -> str:
        return f"<Pinned {self.link!r} awaited={len(self._awaited)} multi={self.in_multi} watching={self.watching}>"

    @property
    def idle(self) -> bool:
        """No reply is awaited."""
        return not self._awaited

    @property
    def in_multi(self) -> bool:
        """A MULTI is open, as of the last command sent."""
        return self.transaction is not None

    @property
    def _hears(self) -> bool:
        """Messages may come between the replies, in RESP2 as frames like any other."""
        return bool(self.subscribed) or self._unconfirmed > 0 or b"MONITOR" in self.replayed

    @property
    def quiet(self) -> bool:
        """Subscribed in RESP2: the server takes only a handful of commands, and says so itself."""
        return bool(self.subscribed) and self.session.resp == 2

    @property
    def queued(self) -> int:
        """Commands of the open MULTI, -1 without one: as CLIENT LIST has it."""
        return -1 if self.transaction is None else len(self.transaction.queue)

    # -- sending -------------------------------------------------------------------------------------------------

    def _enter(self, resp: int, db: int) -> None:
        if self.link.resp != resp:
            self._own([b"HELLO", b"%d" % resp])
            self.link.resp = resp
        if self.link.db != db:
            self._own([b"SELECT", b"%d" % db])
            self.link.db = db

    def speak(self, resp: int) -> None:
        """The session changed its protocol (HELLO)."""
        self._enter(resp, self.link.db)

    def _own(self, args: Command, *, subscription: int = 0) -> None:
        """A command of the proxy: its reply is swallowed."""
        self._put(encode(args))
        self._awaited.append(Awaited(None, args, subscription=subscription))

    def _put(self, data: bytes) -> None:
        if not self._out:
            self._hub.pins.touched.append(self)
        self._out.append(data)

    def flush(self) -> None:
        """Send what has gathered."""
        data = b"".join(self._out)
        self._out.clear()
        if data and self.link.fileno() >= 0:
            self.link.send(data)

    def send(self, spec: Spec, args: Command) -> None:
        """A command of the session."""
        session = self.session
        if self._broken_watch and spec.name in (b"EXEC", b"DISCARD", b"UNWATCH"):
            self._broken_watch = False
            if spec.name == b"EXEC" and self.transaction is not None:
                self._abort_exec()
                return
        if self.transaction is not None and (spec.name in NOT_IN_MULTI or spec.name.startswith(b"CLIENT ")):
            self.poison(f"ERR {spec.name.decode()} is not possible inside MULTI")
            return
        if self.transaction is not None and spec.rule is not None and spec.rule.rewrite is not None:
            args = spec.rule.rewrite(args)
        if TRACKING in self.replayed and not spec.writes and len(self._cached) < MAX_CACHED:
            self._cached.update(dict.fromkeys(spec.keys(args)))
        awaited = Awaited(spec, args, self._replies(spec, args))
        self._follow(spec, args, awaited)
        if awaited.scripts:
            for _ in range(awaited.scripts):
                self._hub.watch.script_sent(session.db, alone=False)
        self._put(encode(redirected(args, self._client_id) if spec.name == TRACKING else args))
        if awaited.frames:
            self._awaited.append(awaited)
            session.owed += awaited.frames
            self._unconfirmed += spec.name in SUBSCRIBING
        else:
            session.skipped()
        if SUBSCRIBING.get(spec.name, NOT_SUBSCRIBING)[1] and not self.in_multi:
            # In RESP3 it has no reply: the one to a PING tells.
            self._own([b"PING"], subscription=self._hub.pins.subscriptions.ask())
        if awaited.block is not None and awaited.block.db != session.db:
            session.when_idle(lambda: None)  # which db it is in then, the reply tells

    def poison(self, text: str) -> None:
        """A command inside MULTI is refused with this error; EXEC will fail, as it does after every command that could
        not be queued."""
        if self.transaction is not None:
            self.transaction.poisoned = True
        self._own(POISON)
        self.session.when_idle(lambda: self.session.put(error(text)))

    def refuse_writes(self, spec: Spec, text: str) -> bool:
        """While no writes are taken: whether this command was refused for it. An EXEC with writes is sent, to fail."""
        if spec.name == b"EXEC":
            if self.transaction is not None and any(queued.writes for queued, _, _ in self.transaction.queue):
                self._own(POISON)
            return False
        if not spec.writes:
            return False
        if self.in_multi:
            self.poison(text)
        else:
            self.session.when_idle(lambda: self.session.put(error(text)))
        return True

    def _replies(self, spec: Spec, args: Command) -> int:
        """How many replies (not pushes) the command gets."""
        if spec.name not in SUBSCRIBING or self.in_multi:
            return 1
        return self.subscribed.replies(args, self.session.resp)

    def _follow(self, spec: Spec, args: Command, awaited: Awaited) -> None:
        """Keep track of the state that this command leaves on the connection."""
        name = spec.name
        if self.transaction is not None:
            if name in (b"EXEC", b"DISCARD") and len(args) == 1:
                self._end(self.transaction, awaited, committing=name == b"EXEC")
            elif name not in (b"MULTI", b"WATCH", b"EXEC", b"DISCARD"):
                self.transaction.add(spec, args)
        elif name == b"MULTI" and len(args) == 1 and not self.quiet:
            self.transaction = awaited.opened = Transaction(self.session.db)
        elif name == b"WATCH":
            self.watching = True
        elif name == b"UNWATCH":
            self.watching = False
        elif name in SUBSCRIBING:
            self.subscribed.follow(args)
        else:
            awaited.held = self._hold(spec, args, self.session.db)
            awaited.scripts = int(spec.route is Route.SCRIPT)

    def _note_state(self, spec: Spec, args: Command, frame: bytes) -> None:
        """State that no later command takes back: the connection stays with this session."""
        if spec.name in REPLAYED and not is_error(frame):
            if len(args) > 2 and args[2].upper() == b"OFF":
                self.replayed.pop(spec.name, None)
            else:
                self.replayed[spec.name] = args
        elif leaves_state(spec, args) and not frame.startswith(_UNKNOWN_COMMAND):
            self.tainted = True

    def _end(self, transaction: Transaction, awaited: Awaited, *, committing: bool) -> None:
        """EXEC or DISCARD is about to be sent."""
        awaited.block, self.transaction = transaction, None
        self.watching = False
        if committing:
            awaited.scripts = sum(spec.route is Route.SCRIPT for spec, _, _ in transaction.queue)
            dbs = {self.session.db: None}  # a SELECT in between may be refused, and what follows stays where it was
            for spec, args, db in transaction.queue:
                dbs[db] = None
                for possible in dbs:
                    awaited.held += self._hold(spec, args, possible)

    def _hold(self, spec: Spec, args: Command, db: int) -> list[Place]:
        if not spec.writes:
            return []
        self._hub.note(spec, args, db)
        held = self._hub.recorder.places(spec, args, db)
        for place in held:
            self._hub.repair.hold(place, WRITTEN_HERE)
        return held

    def _abort_exec(self) -> None:
        """The serving side changed after WATCH: the transaction did not happen, which is what a nil EXEC says."""
        self._own([b"DISCARD"])
        self.transaction, self.watching = None, False
        self.session.when_idle(self._say_aborted)

    def _say_aborted(self) -> None:
        self.session.put(NIL_EXEC[self.session.resp])
        self._leave_if_clean()

    # -- replies -------------------------------------------------------------------------------------------------

    def on_frames(self, frames: list[bytes]) -> None:
        session = self.session
        for frame in frames:
            if is_push(frame) or not self._awaited or (self._hears and is_message(frame)):
                session.push(self._own_id(frame) if frame.startswith(_BROKEN) else frame)
                continue
            awaited = self._awaited[0]
            if awaited.subscription and is_error(frame):  # of the SUBSCRIBE before it, which awaits nothing in RESP3
                session.push(frame)
                continue
            awaited.frames -= 1
            if awaited.frames and is_error(frame):  # a refused (UN)SUBSCRIBE of several names: one answer for all
                session.owed -= awaited.frames if awaited.spec is not None else 0
                awaited.frames = 0
            if awaited.frames == 0:
                self._awaited.popleft()
            if awaited.spec is None:
                self._hub.pins.subscriptions.hear(awaited.subscription)
                continue
            if awaited.spec.name in SUBSCRIBING and not is_error(frame) and frame != QUEUED:
                session.confirm(frame, last=awaited.frames == 0)
            else:
                session.reply(self._own_id(frame) if awaited.spec.name in TELL_REDIRECT else frame)
            if awaited.frames == 0:
                self._unconfirmed -= awaited.spec.name in SUBSCRIBING
                self._answered(awaited.spec, awaited, frame)
        if self._orphan and not self._awaited:
            self._drop()

    def _own_id(self, frame: bytes) -> bytes:
        """Where the server tells the id of the connection that tracking is redirected to: the id its client knows."""
        return as_asked(frame, self.replayed.get(TRACKING, []))

    def _client_id(self, session: int) -> int | None:
        """The server's number of the connection that the session with this number of ours has."""
        wanted = self._hub.sessions.get(session)
        return None if wanted is None or wanted.pin is None else wanted.pin.link.wire.client_id

    def _answered(self, spec: Spec, awaited: Awaited, frame: bytes) -> None:
        block = awaited.block
        if awaited.scripts:
            self._hub.watch.scripts_done(awaited.scripts, alone=False)
        if block is not None:
            if spec.name == b"EXEC" and not is_error(frame) and not is_null(frame):
                self._committed(block, elements(frame))
            self._release(awaited.held)
        elif awaited.opened is not None and is_error(frame):
            self._not_opened(awaited.opened)
        elif frame != QUEUED:
            self._single(spec, awaited, frame)
        self._leave_if_clean()

    def _not_opened(self, transaction: Transaction) -> None:
        """MULTI was refused: what was sent behind it was executed at once, or is going to be."""
        if self.transaction is transaction:
            self.transaction = None
        for spec, args, db in transaction.queue:
            if spec.writes:
                self._hub.recorder.unknown_outcome(spec, args, db, "sent behind a MULTI that was refused")

    def _committed(self, block: Transaction, replies: list[bytes]) -> None:
        db = self.link.db
        for (spec, args, _), reply in zip(block.queue, replies, strict=False):
            if spec.name in SUBSCRIBING or leaves_state(spec, args):
                self.tainted = True
            if spec.name == b"SELECT":
                db = db if is_error(reply) else integer(args[1]) or 0
            else:
                self._executed(spec, args, reply, db)
        self.session.db = self.link.db = db

    def _single(self, spec: Spec, awaited: Awaited, frame: bytes) -> None:
        if spec.name == b"SELECT" and not is_error(frame):
            self.session.db = self.link.db = integer(awaited.args[1]) or 0
        else:
            self._note_state(spec, awaited.args, frame)
            self._executed(spec, awaited.args, frame, self.session.db)
        self._release(awaited.held)

    def _executed(self, spec: Spec, args: Command, frame: bytes, db: int) -> None:
        """What has keys is held and copied; what has none may be a message, a script or more."""
        if spec.writes and not spec.keys(args) and not frame.startswith(_UNKNOWN_COMMAND):
            self._hub.recorder.executed_elsewhere(spec, args, frame, db, self.session.resp)

    def _release(self, places: list[Place]) -> None:
        for place in places:
            self._hub.repair.keys.release(place)
        if places and self._hub.waiters.keys:
            self._hub.waiters.touched_places(places)

    # -- the end -------------------------------------------------------------------------------------------------

    @property
    def clean(self) -> bool:
        """The connection carries nothing that is this session's, and awaits nothing."""
        lasting = self.tainted or self.listening or self.replayed or self.subscribed
        return not (self.in_multi or self.watching or lasting or self._unconfirmed or self._awaited)

    def _leave_if_clean(self) -> None:
        """Back to the lane as soon as the connection carries nothing."""
        if not self.clean or not self.session.open:
            return
        if self.session.pin is self:
            self.session.pin = None
            if self.session.mode is Mode.PINNED:
                self.session.mode = Mode.READY
            self._hub.touched.append(self.session)
            self._hub.pins.give_back(self)

    def orphan(self) -> None:
        """The client is gone: see its last commands through (a write may be among them), then close."""
        self._orphan = True
        if not self._awaited:
            self._drop()

    def _drop(self) -> None:
        self.link.close()
        self._hub.pins.forget(self)

    def on_full(self, full: bool) -> None:
        """One client's own affair: his window bounds it."""

    def on_lost(self, link: Link, reason: str) -> None:
        """The server hung up: so does the proxy, towards this client. What was in flight may still run (invariant 13):
        it stays held until the connection is known to be dead there."""
        held = [place for awaited in self._awaited for place in awaited.held]
        for awaited in self._awaited:
            self._hub.pins.subscriptions.hear(awaited.subscription)
        sent = [(awaited.spec, awaited.args) for awaited in self._awaited if awaited.spec is not None]
        sent += [(spec, args) for awaited in self._awaited if awaited.block for spec, args, _ in awaited.block.queue]
        self._hub.watch.scripts_done(sum(awaited.scripts for awaited in self._awaited), alone=False)
        self._awaited.clear()
        for spec, args in sent:
            if spec.writes and not spec.keys(args):
                self._hub.recorder.keyless(spec, reason)
        self._hub.pins.forget(self)
        self._hub.pins.fence(link.wire, lambda: self._release(held))
        if not self._orphan:
            self.session.close()

    # -- flip ----------------------------------------------------------------------------------------------------

    def state(self, link: Link, client_id: Callable[[int], int | None]) -> tuple[list[Command], list[Command]]:
        """The commands that make on `link` what this connection carries: its lasting state, and an open transaction.
        `client_id`: see `redirected`."""
        session = self.session
        lasting: list[Command] = []
        if link.resp != session.resp:
            lasting.append([b"HELLO", b"%d" % session.resp])
        if link.db != session.db:
            lasting.append([b"SELECT", b"%d" % session.db])
        link.resp, link.db = session.resp, session.db
        lasting += [redirected(args, client_id) if name == TRACKING else args for name, args in self.replayed.items()]
        lasting += self.subscribed.commands()
        if self.transaction is None:
            return lasting, []
        poison = [POISON] if self.transaction.poisoned else []
        return lasting, [[b"MULTI"], *poison, *(args for _, args, _ in self.transaction.queue)]

    def ask_for_the_rest(self) -> None:
        """The connection is idle again when everything has come that the server has to tell until now: messages and
        invalidations are told in the order of the replies. (A PING inside MULTI would be queued.)"""
        if not self.in_multi:
            self._own([b"PING"])

    def move_to(self, link: Link) -> None:
        """Carry on, on the new serving side, where `state` has been made; an open WATCH makes its EXEC return nil."""
        self.link.close()
        self.link = link
        link.owner = self
        if TRACKING in self.replayed:
            self._forget_all()
        if self.watching:
            self._broken_watch = True

    def _forget_all(self) -> None:
        """What clients have cached was tracked by the other side: everything is invalid. Some clients (coredis) know
        only invalidations that name the keys, so those are named as well."""
        target: Session | None = self.session
        for number in redirected_to(self.replayed[TRACKING]):
            target = self._hub.sessions.get(number)
        keys, self._cached = list(self._cached), {}
        if target is not None:
            head, all_keys = FORGET[target.resp]
            target.push(head + all_keys)
            if keys:
                target.push(head + encode(keys))
