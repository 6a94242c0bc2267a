"""Blocking commands, run as their non-blocking form on the lane.

Owns the waiting clients and their attempts; whose turn it is, `lines.py` says. `MULTI; BLPOP …; EXEC` is the
non-blocking form: inside MULTI a blocking command answers at once, over all its keys in one step, with the very bytes
it would answer a blocked client (all versions, both protocols). It is tried when it arrives, and again directly behind
every write that may serve it, because a server serves a waiter before the next command. So its place in the order and
its effect are known, and a waiting client rides through a flip. A slow poll finds what was pushed by others.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import trio

from proxy.lines import Attempt, Kind, Line, Lines, Place, takes
from proxy.session import Command, Mode, Session
from resp.catalog import Spec
from resp.frames import decode, elements, is_error, is_null
from resp.numbers import integer

if TYPE_CHECKING:
    from proxy.hub import Hub

TIMED_OUT = {2: b"*-1\r\n", 3: b"_\r\n"}
POLL_SECONDS = 0.5  # for pushes that did not come through the proxy, or by scripts that did not declare the key
LOOK_AT_ONCE = 100  # keys
NONE_EXISTS = b"*1\r\n:0\r\n"
ACKNOWLEDGED = frozenset([b"WAIT", b"WAITAOF"])  # answered when enough replicas have what the lane has written
ACK_SECONDS = 0.02  # how often that is asked
MOVES = frozenset([b"BLMOVE", b"BRPOPLPUSH"])
STREAM_READS = frozenset([b"XREAD", b"XREADGROUP"])
KINDS = {
    b"XREAD": Kind.READ,
    b"XREADGROUP": Kind.GROUP,
    b"BZPOPMIN": Kind.ZSET,
    b"BZPOPMAX": Kind.ZSET,
    b"BZMPOP": Kind.ZSET,
}  # fmt: skip  (all others: LIST)
TIMEOUT_FIRST = frozenset([b"BLMPOP", b"BZMPOP"])


def timeout_seconds(name: bytes, args: Command) -> float | None:
    """The timeout of a blocking command; None when it is not a number (the server says so)."""
    if name in ACKNOWLEDGED:
        milliseconds = integer(args[-1])
        return None if milliseconds is None else milliseconds / 1000
    if name in STREAM_READS:
        block = stream_options(name, args).get(b"BLOCK")
        milliseconds = integer(args[block]) if block is not None else None
        return None if milliseconds is None else milliseconds / 1000
    try:
        return float(args[1] if name in TIMEOUT_FIRST else args[-1])
    except (ValueError, IndexError):
        return None


def stream_options(name: bytes, args: Command) -> dict[bytes, int]:
    """Where the values of COUNT and BLOCK, and the first stream, stand in XREAD or XREADGROUP."""
    found: dict[bytes, int] = {}
    index = 4 if name == b"XREADGROUP" else 1  # GROUP, its name and the consumer's may be any words
    while index + 1 < len(args):
        word = args[index].upper()
        if word == b"STREAMS":
            found[word] = index + 1
            break
        if word in (b"COUNT", b"BLOCK"):
            found[word] = index + 1
            index += 1
        index += 1
    return found


def count_of(name: bytes, args: Command) -> int | None:
    """The COUNT of a blocking command, should it have one."""
    if name in STREAM_READS:
        at = stream_options(name, args).get(b"COUNT")
        return None if at is None else integer(args[at])
    return integer(args[-1]) if len(args) > 2 and args[-2].upper() == b"COUNT" else None


@dataclass(slots=True, eq=False)
class Waiter:
    """One client in a blocking command."""

    session: Session
    spec: Spec
    args: Command
    db: int
    deadline: float  # of the hub's clock; infinite without a timeout
    attempt: Attempt | None = None  # in flight
    due: bool = True  # none was made yet
    arrived: int = 0  # by `Lines.tick`
    order: int = 0  # when the last one was put in the lane
    takes: int = 1  # elements at once, at most
    lines: list[Line] = field(default_factory=list)
    done: bool = False
    latest: bytes = b""  # WAIT: how many there are so far, which is also the answer when the time is over
    ended_by: bytes | None = None  # CLIENT UNBLOCK, or the timeout, came with an attempt in flight: its empty answer
    _wants: Hashable = None

    @property
    def ending(self) -> bool:
        """Whatever the attempt in flight finds is the end."""
        return self.ended_by is not None

    @property
    def wants(self) -> Hashable:
        """Who wants the same may have the other's answer. For XREAD: the streams, and from where on; that changes."""
        if self._wants is None or self.spec.name == b"XREAD":
            self._wants = _wants(self.spec.name, self.args, self.session.resp)
        return self._wants


def _wants(name: bytes, args: Command, resp: int) -> Hashable:
    """All but the timeout, and the protocol where the answer depends on it."""
    if name == b"XREAD":
        return tuple(args[stream_options(name, args).get(b"STREAMS", 0) :])
    if name == b"XREADGROUP":
        block = stream_options(name, args).get(b"BLOCK", len(args))
        return resp, *args[:block], *args[block + 1 :]
    same_in_both = KINDS.get(name, Kind.LIST) is Kind.LIST
    return 0 if same_in_both else resp, name, *(args[2:] if name in TIMEOUT_FIRST else args[1:-1])


@dataclass(slots=True, eq=False)
class Sent:
    """What an attempt has sent, for whichever client its answer will be."""

    session: Session
    spec: Spec
    args: Command
    db: int
    at: float
    streams: list[tuple[int, bytes]]  # whose last ids are asked for: see `last_ids`
    refused: bytes = b""  # what the server said when it was queued

    def on_queued(self, frame: bytes | None) -> None:
        if frame is not None and is_error(frame):
            self.refused = frame


class Waiters:
    """Everybody who waits."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lines = Lines(self._send, self._may_send)
        self.keys = self._lines.by_place
        self._by_session: dict[int, Waiter] = {}
        self._deadlines: list[tuple[float, int, Waiter]] = []  # a heap; who is done is left out when found
        self._numbers = count()
        self._acknowledged: dict[Waiter, None] = {}  # WAIT and its kin
        self._news = trio.Event()

    def __repr__(self) -> str:
        return f"<Waiters {len(self._by_session)} on {len(self.keys)} keys>"

    def __len__(self) -> int:
        return len(self._by_session)

    def start(self, session: Session, spec: Spec, args: Command) -> None:
        """Try once; should there be nothing, wait."""
        hub, name = self._hub, spec.name
        seconds = timeout_seconds(name, args)
        deadline = hub.clock() + seconds if seconds and seconds > 0 else float("inf")
        waiter = Waiter(session, spec, list(args), session.db, deadline, takes=takes(name, count_of(name, args)))
        session.mode = Mode.WAITING
        self._by_session[session.id] = waiter
        self._note_deadline(waiter)
        places = [(session.db, key) for key in spec.keys(args)]
        if name in ACKNOWLEDGED:
            self._acknowledged[waiter] = None
        group = args[2] if name == b"XREADGROUP" and len(args) > 2 else b""
        self._lines.join(waiter, places[:1] if name in MOVES else places, KINDS.get(name, Kind.LIST), group)

    def _note_deadline(self, waiter: Waiter) -> None:
        first = self._next_deadline()
        if waiter.deadline < float("inf"):
            heapq.heappush(self._deadlines, (waiter.deadline, next(self._numbers), waiter))
        if waiter.deadline < first or len(self._by_session) == 1 or waiter.spec.name in ACKNOWLEDGED:
            self._news.set()

    def touched(self, db: int, commands: Iterable[tuple[Spec, Command]]) -> None:
        """A write, or a whole block, that may serve waiters was put in the lane: their attempts go directly behind
        it."""
        self._lines.written(db, commands)

    def touched_places(self, places: Iterable[Place]) -> None:
        """Keys were written on another connection."""
        self._lines.changed(places)

    def poll(self) -> None:
        """Who is first in line for each key is tried."""
        if self._may_send():
            self._lines.poll()

    def look(self) -> None:
        """Whether others have pushed: told by the mere existence of most keys, so that nobody's attempt is in flight
        when a client pushes."""
        if not self._may_send():
            return
        self._lines.poll_streams()
        for db, keys in self._lines.quiet().items():
            for first in range(0, len(keys), LOOK_AT_ONCE):
                self._look_at(db, keys[first : first + LOOK_AT_ONCE])

    def _look_at(self, db: int, keys: list[bytes]) -> None:
        def on_reply(frame: bytes | None) -> None:
            if frame is not None and frame != NONE_EXISTS and self._may_send():
                self._lines.changed([(db, key) for key in keys])

        self._hub.lane.call(db, [[b"EXISTS", *keys]], on_reply)

    # -- one attempt ---------------------------------------------------------------------------------------------

    def _may_send(self) -> bool:
        return not self._hub.paused and self._hub.lane.link is not None

    def _send(self, attempt: Attempt) -> None:
        waiter, hub = attempt.by, self._hub
        sent = Sent(waiter.session, waiter.spec, waiter.args, waiter.db, hub.clock(), last_ids(waiter))
        if waiter.spec.writes:
            hub.note(waiter.spec, waiter.args, waiter.db)
        commands = [[b"XINFO", b"STREAM", key] for _, key in sent.streams]
        if waiter.spec.name in MOVES and len(waiter.args) > 1:
            commands.append([b"TYPE", waiter.args[1]])  # tells whose type is wrong, should one be
        commands.append(waiter.args)

        def on_reply(frame: bytes | None) -> None:
            self._lines.landed(attempt)
            self._answered(attempt, sent, frame)

        hub.lane.call(waiter.db, commands, on_reply, resp=waiter.session.resp, on_queued=sent.on_queued)
        if attempt.sure and waiter.spec.name in MOVES:
            self._lines.moved((waiter.db, waiter.args[2]), sure=True)

    def _answered(self, attempt: Attempt, sent: Sent, frame: bytes | None) -> None:
        waiter: Waiter | None = attempt.by
        if frame is None:
            self._lane_lost(waiter, sent)
            return
        replies = elements(frame) if not is_error(frame) else []
        if not replies:  # the command is malformed
            if waiter is not None:
                self._finish(waiter, sent.refused or frame)
            return
        answer = replies[-1]
        if waiter is not None:
            for (index, _), reply in zip(sent.streams, replies, strict=False):
                waiter.args[index] = last_id(reply)
            if waiter.spec.name in ACKNOWLEDGED and not is_error(answer) and not enough(waiter.args, answer):
                waiter.latest = answer
                answer = TIMED_OUT[2]
        self._record(sent, answer)
        if is_null(answer) or (not attempt.first and self._goes_on(sent, replies)):
            self._lines.empty(attempt)
            if waiter is not None and waiter.ended_by is not None and waiter.attempt is None:
                self._finish(waiter, waiter.ended_by)
        elif is_error(answer):
            if waiter is not None:
                self._finish(waiter, answer)
        else:
            self._found(attempt, sent, answer)

    def _record(self, sent: Sent, answer: bytes) -> None:
        """The effect of an attempt; one that got nothing may have created its consumer."""
        if sent.spec.writes and (sent.spec.name == b"XREADGROUP" or not is_null(answer)):
            self._hub.recorder.answered(sent.spec, sent.args, answer, sent.db, sent.session.resp, sent.at)

    def _found(self, attempt: Attempt, sent: Sent, answer: bytes) -> None:
        here = attempt.line is None or len(attempt.lines) == 1 or _is_from(attempt.line.place[1], answer)
        waiter = self._lines.found(attempt, here=here)
        if waiter is not None:  # before anybody hears of the move: it may be to the key that was waited for
            self._finish(waiter, answer)
        if sent.spec.name in MOVES and not attempt.sure:
            self._lines.moved((sent.db, sent.args[2]), sure=False)

    def _goes_on(self, sent: Sent, replies: list[bytes]) -> bool:
        """A key that has become another type is waited for on; a destination that is one ends the wait. Readers of a
        consumer group are told since 7.2."""
        if not replies[-1].startswith(b"-WRONGTYPE"):
            return False
        if sent.spec.name in MOVES and replies[0] in (b"+list\r\n", b"+none\r\n"):
            return False
        told = sent.spec.name == b"XREADGROUP" and self._hub.roles.serving_facts.version[1:] >= (7, 2)
        return not told

    def _lane_lost(self, waiter: Waiter | None, sent: Sent) -> None:
        if sent.spec.writes:  # it may have taken an element that nobody will ever see
            self._hub.recorder.unknown_outcome(sent.spec, sent.args, sent.db, "connection lost")
            if waiter is not None:
                waiter.session.close()
        # else: it is tried again when a connection is there

    # -- the end of waiting --------------------------------------------------------------------------------------

    def _finish(self, waiter: Waiter, frame: bytes) -> None:
        session = waiter.session
        self._remove(waiter)
        session.mode = Mode.READY if session.pin is None else Mode.PINNED
        session.put(frame)
        self._hub.touched.append(session)  # also when CLIENT REPLY leaves the answer out

    def _remove(self, waiter: Waiter) -> None:
        waiter.done = True
        self._by_session.pop(waiter.session.id, None)
        self._acknowledged.pop(waiter, None)
        self._lines.leave(waiter)

    def for_ever(self, session: Session) -> bool:
        """Whether it waits, and without a timeout."""
        waiter = self._by_session.get(session.id)
        return waiter is not None and waiter.deadline == float("inf")

    def forget(self, session: Session) -> None:
        """The client is gone."""
        waiter = self._by_session.get(session.id)
        if waiter is not None:
            self._remove(waiter)

    def unblock(self, session_id: int, frame: bytes | None) -> bool:
        """CLIENT UNBLOCK: end the wait as by timeout (None) or with an error; False when nobody waits there."""
        waiter = self._by_session.get(session_id)
        if waiter is None:
            return False
        waiter.ended_by = frame if frame is not None else TIMED_OUT[waiter.session.resp]
        if waiter.attempt is None:
            self._finish(waiter, waiter.ended_by)
        return True

    def _next_deadline(self) -> float:
        while self._deadlines and self._deadlines[0][2].done:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else float("inf")

    def _expire(self, now: float) -> None:
        while self._next_deadline() <= now:
            _, _, waiter = heapq.heappop(self._deadlines)
            over = waiter.latest or TIMED_OUT[waiter.session.resp]
            if waiter.attempt is None:
                self._finish(waiter, over)
            elif waiter.ended_by is None:  # what the attempt takes must go to this client
                waiter.ended_by = over

    def _ask_replicas(self) -> bool:
        """Try who waits for replicas; whether there is anybody."""
        for waiter in list(self._acknowledged):
            if waiter.attempt is None:
                self._lines.attempt(waiter, None)
        return bool(self._acknowledged)

    async def run(self, flush: Callable[[], None]) -> None:
        """Timeouts, and the slow poll."""
        next_poll = 0.0
        while True:
            self._news = trio.Event()
            if not self._by_session:
                await self._news.wait()
                next_poll = self._hub.clock() + POLL_SECONDS
            now = self._hub.clock()
            self._expire(now)
            if now >= next_poll:
                next_poll = now + POLL_SECONDS
                self.look()
            pause = min(self._next_deadline(), next_poll) - self._hub.clock()
            if self._ask_replicas():
                pause = min(pause, ACK_SECONDS)
            flush()
            with trio.move_on_after(max(pause, 0.001)):
                await self._news.wait()


def _is_from(key: bytes, answer: bytes) -> bool:
    """Whether what was taken is from this key: most answers begin with it."""
    parts = elements(answer) if answer[:1] in b"*>" else []
    return not parts or parts[0][:1] != b"$" or decode(parts[0]) == key


def last_ids(waiter: Waiter) -> list[tuple[int, bytes]]:
    """Where an XREAD still asks for "$" (argument index) and of which stream: "$" means the moment of the call."""
    if waiter.spec.name != b"XREAD":
        return []
    args = waiter.args
    first = stream_options(waiter.spec.name, args).get(b"STREAMS", len(args))
    count = (len(args) - first) // 2
    return [
        (first + count + number, args[first + number])
        for number in range(count)
        if args[first + count + number] == b"$"
    ]


def last_id(reply: bytes) -> bytes:
    """The last id of a stream from XINFO STREAM; 0-0 when there is no such stream."""
    info = decode(reply)
    if isinstance(info, list):
        info = dict(zip(info[::2], info[1::2], strict=False))
    found = info.get(b"last-generated-id", b"0-0") if isinstance(info, dict) else b"0-0"
    return bytes(found)


def enough(args: Command, answer: bytes) -> bool:
    """Whether WAIT's (or WAITAOF's) answer is what was asked for."""
    counts = decode(answer)
    wanted = [integer(arg) or 0 for arg in args[1:-1]]
    return all(
        count >= want for count, want in zip(counts if isinstance(counts, list) else [counts], wanted, strict=False)
    )
