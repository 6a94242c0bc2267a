"""Blocking commands, run as their non-blocking form on the lane.

Owns the waiting clients and which keys they wait for. `MULTI; BLPOP …; EXEC` is the non-blocking form: inside MULTI a
blocking command answers at once, over all its keys in one step, with the very bytes it would answer a blocked client
(all versions, both protocols). It is tried when it arrives, and again directly behind every write that touches one of
its keys, because a server serves a waiter before the next command. So its place in the order and its effect are known,
and a waiting client rides through a flip. First come, first served. A slow poll finds what was pushed by others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from proxy.session import Command, Mode, Session
from resp.catalog import Spec
from resp.frames import decode, elements, is_error, is_null
from resp.numbers import integer

if TYPE_CHECKING:
    from proxy.hub import Hub

Place = tuple[int, bytes]

TIMED_OUT = {2: b"*-1\r\n", 3: b"_\r\n"}
POLL_SECONDS = 0.5  # for pushes that did not come through the proxy, or by scripts that did not declare the key
EVERYBODY = 1 << 30  # no limit on who is tried
ACKNOWLEDGED = frozenset([b"WAIT", b"WAITAOF"])  # answered when enough replicas have what the lane has written
ACK_SECONDS = 0.02  # how often that is asked
MOVES = frozenset([b"BLMOVE", b"BRPOPLPUSH"])
STREAM_READS = frozenset([b"XREAD", b"XREADGROUP"])
_PUSHES = frozenset([b"LPUSH", b"RPUSH", b"LPUSHX", b"RPUSHX"])
_MOVES_ONE = frozenset([b"LMOVE", b"RPOPLPUSH", b"LINSERT"])


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
        return float(args[1] if name in (b"BLMPOP", b"BZMPOP") else args[-1])
    except (ValueError, IndexError):
        return None


def can_serve(name: bytes, args: Command) -> int:
    """How many waiters of a key a write to it can serve at most."""
    if name in _PUSHES:
        return len(args) - 2
    if name == b"ZADD":
        return max(1, (len(args) - 2) // 2)
    return 1 if name in _MOVES_ONE else EVERYBODY


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


@dataclass(slots=True, eq=False)
class Waiter:
    """One client in a blocking command."""

    session: Session
    spec: Spec
    args: Command
    places: list[Place]
    deadline: float  # of the hub's clock; infinite without a timeout
    trying: bool = False  # an attempt is in the lane
    again: bool = False  # a key was touched meanwhile
    tries: int = 0
    sent: float = 0.0
    done: bool = False
    refused: bytes = b""  # what the server said when the attempt was queued
    latest: bytes = b""  # WAIT: how many there are so far, which is also the answer when the time is over
    ended_by: bytes | None = None  # CLIENT UNBLOCK came while an attempt was in flight: the answer, if that is empty


class Waiters:
    """Everybody who waits."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.keys: dict[Place, dict[Waiter, None]] = {}  # in order of arrival
        self._by_session: dict[int, Waiter] = {}
        self._news = trio.Event()

    def __repr__(self) -> str:
        return f"<Waiters {len(self._by_session)} on {len(self.keys)} keys>"

    def __len__(self) -> int:
        return len(self._by_session)

    def start(self, session: Session, spec: Spec, args: Command) -> None:
        """Try once; should there be nothing, wait."""
        hub = self._hub
        seconds = timeout_seconds(spec.name, args)
        deadline = hub.clock() + seconds if seconds and seconds > 0 else float("inf")
        waiter = Waiter(session, spec, list(args), [(session.db, key) for key in spec.keys(args)], deadline)
        session.mode = Mode.WAITING
        self._by_session[session.id] = waiter
        for place in waiter.places:  # already now: a push that is sent before the first answer is in counts
            self.keys.setdefault(place, {})[waiter] = None
        self._news.set()
        self._try(waiter)

    def touched(self, db: int, commands: Iterable[tuple[Spec, Command]]) -> None:
        """A write, or a whole block, that may serve waiters was put in the lane: their attempts go directly behind it.
        No more waiters are tried than it can serve, so that the next push finds the first of them free."""
        pushed: dict[Place, int] = {}
        for spec, args in commands:
            if spec.name in (b"SWAPDB", b"MOVE", b"COPY"):
                self.poll()
                return
            count = can_serve(spec.name, args)
            for key in spec.keys(args):
                if (db, key) in self.keys:
                    pushed[db, key] = pushed.get((db, key), 0) + count
        for place, count in pushed.items():
            self.touched_places([place], count)

    def touched_places(self, places: Iterable[Place], limit: int = EVERYBODY) -> None:
        """Keys were written: at most `limit` waiters of each can be served by it."""
        for place in places:
            waiting = self.keys.get(place)
            if waiting:
                for waiter in list(waiting)[:limit]:
                    self._try(waiter)

    def poll(self) -> None:
        """Try everybody who is not being tried."""
        if self._hub.paused:
            return
        for waiter in list(self._by_session.values()):
            if not waiter.trying:
                self._try(waiter)

    # -- one attempt ---------------------------------------------------------------------------------------------

    def _try(self, waiter: Waiter) -> None:
        session, hub = waiter.session, self._hub
        if waiter.trying:
            waiter.again = True
            return
        if hub.paused or hub.lane.link is None:
            return  # all are tried when it goes on
        waiter.trying, waiter.again = True, False
        waiter.tries += 1
        waiter.sent = hub.clock()
        if waiter.spec.writes:
            hub.note(waiter.spec, waiter.args, self._db(waiter))
        streams = last_ids(waiter)
        commands = [[b"XINFO", b"STREAM", key] for _, key in streams]
        if waiter.spec.name in MOVES and len(waiter.args) > 1:
            commands.append([b"TYPE", waiter.args[1]])  # tells whose type is wrong, should one be
        commands.append(waiter.args)

        def on_queued(frame: bytes | None) -> None:
            if frame is not None and is_error(frame):
                waiter.refused = frame

        def on_reply(frame: bytes | None) -> None:
            self._tried(waiter, streams, frame)

        hub.lane.call(
            waiter.places[0][0] if waiter.places else session.db,
            commands,
            on_reply,
            resp=session.resp,
            on_queued=on_queued,
        )

    def _tried(self, waiter: Waiter, streams: list[tuple[int, bytes]], frame: bytes | None) -> None:
        waiter.trying = False
        if waiter.done:
            self._orphaned(waiter, frame)
            return
        if frame is None:
            self._lane_lost(waiter)
            return
        if is_error(frame):
            self._finish(waiter, waiter.refused or frame)
            return
        replies = elements(frame)
        if not replies:  # a null EXEC reply, which nothing here can cause
            self._finish(waiter, frame)
            return
        for (index, _), reply in zip(streams, replies, strict=False):
            waiter.args[index] = last_id(reply)
        answer = replies[-1]
        if waiter.spec.name in ACKNOWLEDGED and not is_error(answer) and not enough(waiter.args, answer):
            waiter.latest = answer
            self._go_on(waiter)
            return
        self._record(waiter, answer)
        if is_null(answer) or (waiter.tries > 1 and self._goes_on(waiter, replies)):
            self._go_on(waiter)
            return
        self._finish(waiter, answer)
        if waiter.again:  # what was pushed meanwhile is for the next in the queue
            self.touched_places(waiter.places, 1)
        if waiter.spec.name in MOVES:
            self.touched_places(waiter.places[1:], 1)

    def _goes_on(self, waiter: Waiter, replies: list[bytes]) -> bool:
        """A key that has become another type is waited for on; a destination that is one ends the wait. Readers of a
        consumer group are told since 7.2."""
        if not replies[-1].startswith(b"-WRONGTYPE"):
            return False
        if waiter.spec.name in MOVES and replies[0] in (b"+list\r\n", b"+none\r\n"):
            return False
        told = waiter.spec.name == b"XREADGROUP" and self._hub.roles.serving_facts.version[1:] >= (7, 2)
        return not told

    def _go_on(self, waiter: Waiter) -> None:
        """Nothing there yet. A push that was sent while the attempt was in flight is looked at now."""
        if waiter.ended_by is not None:
            self._finish(waiter, waiter.ended_by)
        elif waiter.again:
            self._try(waiter)

    def _orphaned(self, waiter: Waiter, frame: bytes | None) -> None:
        """The client left, or timed out, while its attempt was in flight; what it took is taken all the same."""
        if frame is None or is_error(frame):
            if frame is None and waiter.spec.writes:
                self._unknown(waiter)
            return
        self._record(waiter, (elements(frame) or [frame])[-1])

    def _record(self, waiter: Waiter, answer: bytes) -> None:
        """The effect of an attempt; one that got nothing may have created its consumer."""
        if waiter.spec.writes and (waiter.spec.name == b"XREADGROUP" or not is_null(answer)):
            self._hub.recorder.answered(
                waiter.spec, waiter.args, answer, self._db(waiter), waiter.session.resp, waiter.sent
            )

    def _lane_lost(self, waiter: Waiter) -> None:
        if waiter.spec.writes:  # it may have taken an element that nobody will ever see
            self._unknown(waiter)
            waiter.session.close()
        # else: it is tried again when a connection is there

    def _unknown(self, waiter: Waiter) -> None:
        self._hub.recorder.unknown_outcome(waiter.spec, waiter.args, self._db(waiter), "connection lost")

    @staticmethod
    def _db(waiter: Waiter) -> int:
        return waiter.places[0][0] if waiter.places else waiter.session.db

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
        for place in waiter.places:
            waiting = self.keys.get(place)
            if waiting is not None:
                waiting.pop(waiter, None)
                if not waiting:
                    del self.keys[place]

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
        if not waiter.trying:
            self._finish(waiter, waiter.ended_by)
        return True

    def _next_deadline(self) -> float:
        return min((waiter.deadline for waiter in self._by_session.values()), default=float("inf"))

    def _expire(self, now: float) -> None:
        for waiter in list(self._by_session.values()):
            if waiter.deadline <= now and not waiter.trying:
                self._finish(waiter, waiter.latest or TIMED_OUT[waiter.session.resp])

    def _ask_replicas(self) -> bool:
        """Try who waits for replicas; whether there is anybody."""
        waiting = [waiter for waiter in self._by_session.values() if waiter.spec.name in ACKNOWLEDGED]
        for waiter in waiting:
            if not waiter.trying:
                self._try(waiter)
        return bool(waiting)

    async def run(self, flush: Callable[[], None]) -> None:
        """Timeouts, and the slow poll."""
        next_poll = 0.0
        while True:
            self._news = trio.Event()
            if not self._by_session:
                await self._news.wait()
            now = self._hub.clock()
            self._expire(now)
            if now >= next_poll:
                next_poll = now + POLL_SECONDS
                self.poll()
            pause = min(self._next_deadline(), next_poll) - self._hub.clock()
            if self._ask_replicas():
                pause = min(pause, ACK_SECONDS)
            flush()
            with trio.move_on_after(max(pause, 0.001)):
                await self._news.wait()


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
