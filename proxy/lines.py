"""Who waits for which key, in order of arrival, and whose turn it is.

Owns the lines (one per key and kind of wait), the attempts in flight, and the count of what writes may have put there.
First come, first served holds although attempts are in flight. One behind a push that serves it for sure is as good as
served, and the next push is for the next in line. One that was sent before the last push may or may not find something:
another's is sent in its place if it asks for the same, and whose attempts come to nothing get those of the others
behind them; else they wait for the answer. However many wait, no more attempts are sent than there can be elements.
Refuses to know: how an attempt is made, and what it answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from resp.catalog import Spec

Command = list[bytes]
Place = tuple[int, bytes]
Writes = Iterable[tuple[Spec, Command]]

ANY_NUMBER = 1 << 30  # how many elements there are is not known
AT_ONCE = 4  # attempts directly behind a write of which it is not known how many it can serve
MOST_AT_ONCE = 64  # and at a time from then on, as long as all of them find something
REMEMBERED = 256  # pushes to a key since it was last found empty; more of them are counted together


class Kind(Enum):
    """What a waiter takes, and so who is in line with it."""

    LIST = "elements of a list"
    ZSET = "elements of a sorted set"
    GROUP = "entries of a stream that its consumer group has not delivered"
    READ = "nothing: every reader of a stream gets every entry"


class InLine(Protocol):
    """What a line asks of a waiter. `attempt`: the one in flight. `due`: none was made yet. `arrived`, `order`: when it
    came, and when the last was put in the lane. `ending`: it ends with the attempt in flight, whatever that finds.
    `takes`: elements at once, at most. `wants`: who wants the same may have each other's answers."""

    attempt: Attempt | None
    due: bool
    arrived: int
    order: int
    takes: int
    lines: list[Line]

    @property
    def ending(self) -> bool: ...
    @property
    def wants(self) -> Hashable: ...


@dataclass(slots=True, eq=False)
class Attempt:
    """One that is in the lane. `by`: whose answer it is; None: nobody's, those that it may be for have left."""

    by: Any
    lines: Sequence[Line]
    line: Line | None  # because of which it was made
    wants: Hashable
    order: int  # when it was put in the lane, by `Lines.tick`
    takes: int
    sure: bool  # it is behind a push that serves it
    first: bool  # it also tells whether the command is well-formed, so its answer is its own client's


class Line:
    """Those who wait for one key in one way. `stuck`: who cannot try before somebody else's attempt is answered."""

    __slots__ = (
        "_at_once",
        "_left",
        "_look",
        "_polled",
        "_pushed",
        "_pushes",
        "_samples",
        "_sure",
        "_there",
        "flying",
        "kind",
        "place",
        "stuck",
        "waiting",
    )

    def __init__(self, place: Place, kind: Kind) -> None:
        self.place = place
        self.kind = kind
        self.waiting: dict[InLine, None] = {}  # in order of arrival
        self.flying: dict[Attempt, None] = {}  # in order of the lane
        self.stuck: InLine | None = None
        self._pushed = 0  # when the last write to the key was put in the lane
        self._pushes: deque[tuple[int, int]] = deque()  # when, and how many, since an attempt found nothing
        self._there = 0  # elements that may be there, and for which no attempt has been sent
        self._sure = False  # they are
        self._at_once = self._left = 0  # attempts of this bout, and those of them to be sent, with ANY_NUMBER there
        self._look = False  # readers: there may be some to be tried
        self._polled = 0  # readers: when one of each want was last to be tried
        self._samples: set[InLine] = set()  # those that were

    def __repr__(self) -> str:
        return f"<Line {self.kind.name} {self.place} waiting={len(self.waiting)} there={self._there} at {self._pushed}>"

    def remove(self, waiter: InLine) -> None:
        self.waiting.pop(waiter, None)
        self._samples.discard(waiter)

    def push(self, order: int, count: int, *, sure: bool = False, at_once: int = 1) -> None:
        """A write that may have put `count` elements there is in the lane."""
        if self._there != ANY_NUMBER:
            self._left, self._at_once = 0, at_once
        self._left += min(count, at_once)
        self._sure = sure and not self._there
        self._there = min(self._there + count, ANY_NUMBER)
        self._pushed = order
        self._pushes.append((order, count))
        if len(self._pushes) > REMEMBERED:
            (_, first), (second, more) = self._pushes.popleft(), self._pushes.popleft()
            self._pushes.appendleft((second, first + more))
        self._look = True

    def poll(self, order: int) -> None:
        """Somebody else may have written the key."""
        if self.kind is Kind.READ:
            self._polled, self._look = order, True
        else:
            self.push(order, ANY_NUMBER)

    def turns(self) -> Iterator[InLine]:
        """Whose attempts are to be sent now. Each is sent before the next is asked for."""
        if self.kind is Kind.READ:
            yield from self._readers() if self._look else ()
        elif self._there or self.stuck is not None:
            yield from self._takers()

    def _readers(self) -> Iterator[InLine]:
        polled, self._polled, self._look = self._polled, 0, False
        sampled = set()
        for waiter in list(self.waiting):
            if waiter.order < polled and waiter.wants not in sampled:
                sampled.add(waiter.wants)
                if waiter.attempt is None:
                    self._samples.add(waiter)
                    yield waiter
            elif waiter.attempt is None and (waiter.order < self._pushed or waiter.due):
                yield waiter

    def _takers(self) -> Iterator[InLine]:
        self.stuck = None
        in_the_way: dict[InLine, Hashable] = {}
        for waiter in list(self.waiting):
            if not self._there and not waiter.due:
                continue
            attempt = waiter.attempt
            if attempt is None:
                if self._must_wait(waiter) or any(wants != waiter.wants for wants in in_the_way.values()):
                    self.stuck = waiter
                    return
                yield waiter
            elif not attempt.sure and attempt.order < self._pushed:
                in_the_way[waiter] = waiter.wants
        if self._there and in_the_way:  # who comes now must wait until they have been answered
            self.stuck = next(iter(in_the_way))

    def _must_wait(self, waiter: InLine) -> bool:
        """Enough are in flight for now; or it waits for other keys, too, and would take what is theirs who came before.
        (Not what is for those behind it: else two could wait for each other.)"""
        full = self._there == ANY_NUMBER and self._left <= 0 and self.flying
        stuck = (line.stuck for line in waiter.lines)
        return bool(full) or any(other is not None and other.arrived < waiter.arrived for other in stuck)

    def sent(self, waiter: InLine) -> bool:
        """The waiter's attempt, made because of this line, is put in the lane; whether it is sure to find something."""
        sure = self._sure and self._there > 0 and not waiter.due
        if self._there < ANY_NUMBER:
            self._there = max(0, self._there - waiter.takes)
        self._left = max(0, self._left - 1)  # first attempts are made whatever is left: that is no debt
        return sure

    def found(self, attempt: Attempt, *, here: bool) -> None:
        """An attempt, made because of this line, found something, here or for another key. There may be more, unless
        it is known how many there were."""
        if self.kind is Kind.READ:
            if attempt.by in self._samples:
                self._pushed, self._look = max(self._pushed, attempt.order), True
        elif self._there == ANY_NUMBER:
            if attempt.order > self._pushed and not self.flying:
                self._at_once = self._left = min(2 * self._at_once, MOST_AT_ONCE)
        elif not here or (attempt.first and not self._there):
            self._there, self._sure = self._there + 1, False

    def empty(self, attempt: Attempt) -> None:
        """An attempt found nothing: what is there was pushed after it, and attempts after that may take it."""
        self._samples.discard(attempt.by)
        pushes = self._pushes
        while pushes and pushes[0][0] < attempt.order:
            pushes.popleft()
        if not pushes:
            self._there = 0
        elif all(count < ANY_NUMBER for _, count in pushes):
            self._there = self._not_asked_for()
        self._look = True

    def _not_asked_for(self) -> int:
        """Elements pushed, less those that attempts behind each push, made because of this line, are to take. (One made
        because of another line may take some, too: then the next finds nothing, which does no harm.)"""
        left = 0
        asked = ((attempt.order, -attempt.takes) for attempt in self.flying if attempt.line is self)
        for _, change in sorted([*self._pushes, *asked]):
            left = max(0, left + change)
        return left

    def heirs(self, wants: Hashable) -> Iterator[InLine]:
        """Those without an attempt who may have others' answers, in order of arrival."""
        for waiter in self.waiting:
            if waiter.attempt is None and not waiter.due and not waiter.ending and waiter.wants == wants:
                yield waiter


class Lines:
    """All lines, by the key that is waited for."""

    def __init__(self, send: Callable[[Attempt], None], may_send: Callable[[], bool]) -> None:
        self.by_place: dict[Place, dict[tuple[Kind, bytes], Line]] = {}
        self._send = send
        self._may_send = may_send
        self._stuck: dict[Line, None] = {}
        self._todo: dict[Line, None] = {}
        self._going_on = False
        self._order = 0

    def __repr__(self) -> str:
        return f"<Lines of {len(self.by_place)} keys, {len(self._stuck)} stuck>"

    def tick(self) -> int:
        """The number of what is put in the lane next: a write, or an attempt."""
        self._order += 1
        return self._order

    # -- who waits -----------------------------------------------------------------------------------------------

    def join(self, waiter: InLine, places: Iterable[Place], kind: Kind, group: bytes = b"") -> None:
        """At the end of the line for each of these keys. It is tried at once, unless what is there may be others'."""
        waiter.arrived = self.tick()
        for place in dict.fromkeys(places):
            lines = self.by_place.setdefault(place, {})
            if (kind, group) not in lines:
                lines[kind, group] = Line(place, kind)
            lines[kind, group].waiting[waiter] = None
            waiter.lines.append(lines[kind, group])
        if all(line.stuck is None for line in waiter.lines):
            self.attempt(waiter, waiter.lines[0] if waiter.lines else None)

    def leave(self, waiter: InLine) -> None:
        """It waits no more."""
        for line in waiter.lines:
            line.remove(waiter)
            if not line.waiting:
                self._close(line)
        attempt, waiter.attempt = waiter.attempt, None
        if attempt is not None:
            attempt.by = None
            self._pass_on(attempt)
        self.go_on(waiter.lines)

    def _close(self, line: Line) -> None:
        self._stuck.pop(line, None)
        lines = self.by_place.get(line.place, {})
        for name in [name for name, other in lines.items() if other is line]:
            del lines[name]
        if not lines:
            self.by_place.pop(line.place, None)

    # -- what may be there ---------------------------------------------------------------------------------------

    def written(self, db: int, writes: Writes) -> None:
        """A write, or a whole block of them, is in the lane: the attempts of those whom it may serve go directly behind
        it."""
        pushes: dict[Line, tuple[int, bool]] = {}
        for spec, args in writes:
            for place in self._places(db, spec, args):
                for line in self.by_place.get(place, {}).values():
                    count, sure = pushes.get(line, (0, True))
                    pushes[line] = count + can_serve(line.kind, spec, args), sure and is_sure(spec, args)
        order = self.tick()
        for line, (count, sure) in pushes.items():
            if count:
                line.push(order, count, sure=sure, at_once=AT_ONCE)
        self.go_on(pushes)

    def _places(self, db: int, spec: Spec, args: Command) -> list[Place]:
        if spec.name in WHOLE_DBS:
            return list(self.by_place)
        keys = spec.keys(args)
        if spec.name in OTHER_DBS:
            return [place for place in self.by_place if place[1] in keys]
        return [(db, key) for key in keys]

    def changed(self, places: Iterable[Place]) -> None:
        """Somebody has written these keys, at some time before now."""
        order = self.tick()
        lines = [line for place in places for line in self.by_place.get(place, {}).values()]
        for line in lines:
            line.push(order, ANY_NUMBER)
        self.go_on(lines)

    def moved(self, place: Place, *, sure: bool) -> None:
        """An attempt is in the lane, or is answered, that moves an element to this key."""
        order = self.tick()
        lines = [line for line in self.by_place.get(place, {}).values() if line.kind is Kind.LIST]
        for line in lines:
            line.push(order, 1, sure=sure)
        self.go_on(lines)

    def poll(self) -> None:
        """Others may have written any key: who is first in each line looks."""
        self._poll([line for lines in self.by_place.values() for line in lines.values()])

    def poll_streams(self) -> None:
        """As `poll`, where only an attempt tells whether there is something new."""
        lines = [line for lines in self.by_place.values() for line in lines.values()]
        self._poll([line for line in lines if line.kind in (Kind.GROUP, Kind.READ)])

    def _poll(self, lines: list[Line]) -> None:
        order = self.tick()
        for line in lines:
            if not line.flying:
                line.poll(order)
        self.go_on(lines)

    def quiet(self) -> dict[int, list[bytes]]:
        """By db the keys of which somebody waits for the first element, and where nobody is looking right now."""
        found: dict[int, list[bytes]] = {}
        for (db, key), lines in self.by_place.items():
            if any(line.kind in (Kind.LIST, Kind.ZSET) and not line.flying for line in lines.values()):
                found.setdefault(db, []).append(key)
        return found

    # -- whose turn it is ----------------------------------------------------------------------------------------

    def go_on(self, lines: Iterable[Line]) -> None:
        """Try whose turn it is in these lines, and in those that were waiting for them."""
        self._todo.update(dict.fromkeys(lines))
        if self._going_on:
            return
        self._going_on = True
        try:
            while self._todo:
                line = next(iter(self._todo))
                del self._todo[line]
                self._turns_in(line)
        finally:
            self._going_on = False

    def _turns_in(self, line: Line) -> None:
        before = line.stuck
        for waiter in line.turns():
            self.attempt(waiter, line)
        if line.stuck is not None:
            self._stuck[line] = None
        else:
            self._stuck.pop(line, None)
        if before is not None and line.stuck is not before:
            self._todo.update(self._stuck)

    def attempt(self, waiter: InLine, line: Line | None) -> None:
        """Put one in the lane, if any may go there now; if not, who is first in line is tried when it goes on."""
        if not self._may_send():
            return
        sure = line is not None and line.sent(waiter)
        attempt = Attempt(waiter, waiter.lines, line, waiter.wants, self.tick(), waiter.takes, sure, waiter.due)
        waiter.attempt, waiter.due, waiter.order = attempt, False, attempt.order
        for each in waiter.lines:
            each.flying[attempt] = None
        self._send(attempt)

    # -- answers -------------------------------------------------------------------------------------------------

    def landed(self, attempt: Attempt) -> None:
        """It is answered."""
        for line in attempt.lines:
            line.flying.pop(attempt, None)
        if attempt.by is not None:
            attempt.by.attempt = None

    def empty(self, attempt: Attempt) -> None:
        """It found nothing."""
        for line in attempt.lines:
            line.empty(attempt)
        self._pass_on(attempt)
        self.go_on(attempt.lines)

    def found(self, attempt: Attempt, *, here: bool) -> Any:
        """It found something, in the line because of which it was made (`here`) or for another key. Gives whose that
        is; None: nobody's, they have left."""
        line = attempt.line
        if line is None:
            return attempt.by
        line.found(attempt, here=here)
        if line.kind is Kind.READ:
            return attempt.by
        if attempt.by is not None and attempt.by.ending:
            return attempt.by
        return next(line.heirs(attempt.wants), None)  # who came before is first, even if it was another's attempt

    def _pass_on(self, attempt: Attempt) -> None:
        """Its waiter is without, or gone: attempts in flight of those behind it that want the same are for those before
        them now."""
        if not attempt.lines or attempt.lines[0].kind is Kind.READ:
            return
        line, wants = attempt.lines[0], attempt.wants
        flying = [other for other in line.flying if not other.first and other.wants == wants]
        flying = [other for other in flying if other.by is None or not other.by.ending]
        if not flying:
            return
        for other in flying:
            if other.by is not None:
                other.by.attempt = other.by = None
        for waiter, other in zip(line.heirs(wants), flying, strict=False):
            waiter.attempt, waiter.order, other.by = other, other.order, waiter


LISTS = frozenset([b"LPUSH", b"RPUSH", b"LPUSHX", b"RPUSHX"])
ONE_TO_A_LIST = frozenset([b"LINSERT", b"LMOVE", b"RPOPLPUSH", b"BLMOVE", b"BRPOPLPUSH"])
ZSETS = {b"ZADD": 2, b"ZINCRBY": 2, b"GEOADD": 3}  # arguments for each element
ZADD_OPTIONS = frozenset([b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"])
WHOLE_DBS = frozenset([b"FLUSHALL", b"FLUSHDB", b"SWAPDB"])
OTHER_DBS = frozenset([b"MOVE", b"COPY"])
# What may put a value of any type and length where nothing was; besides everything that is not known.
WHOLE_VALUES = frozenset(
    b"""
    RENAME RENAMENX COPY MOVE RESTORE RESTORE-ASKING MIGRATE SORT SWAPDB EVAL EVALSHA FCALL
    GEORADIUS GEORADIUSBYMEMBER GEOSEARCHSTORE ZRANGESTORE ZUNIONSTORE ZINTERSTORE ZDIFFSTORE""".split()
)
# What neither adds an entry, nor takes away a group or its stream: of no interest to who reads by a group.
NOT_FOR_GROUPS = frozenset(
    b"""
    XACK XACKDEL XDEL XDELEX XTRIM XCLAIM XAUTOCLAIM XREADGROUP PERSIST""".split()
) | {b"XGROUP CREATE", b"XGROUP CREATECONSUMER", b"XGROUP DELCONSUMER"}


def can_serve(kind: Kind, spec: Spec, args: Command) -> int:
    """How many elements (waiters, for a group) the write may have for those who wait for its key."""
    name = spec.name
    if name in WHOLE_VALUES or not spec.known:
        return ANY_NUMBER
    if kind is Kind.LIST:
        return max(0, len(args) - 2) if name in LISTS else int(name in ONE_TO_A_LIST)
    if kind is Kind.ZSET:
        return max(1, (len(args) - 2) // ZSETS[name]) if name in ZSETS else 0
    if kind is Kind.READ or name == b"XADD":
        return int(name == b"XADD")
    return 0 if name in NOT_FOR_GROUPS else ANY_NUMBER  # since 7.2 told that the group is gone


def is_sure(spec: Spec, args: Command) -> bool:
    """Whether it puts as many elements there as `can_serve` says, should nobody wait but those it serves."""
    name = spec.name
    if name == b"ZADD":
        return len(args) > 2 and args[2].upper() not in ZADD_OPTIONS
    return name in (b"LPUSH", b"RPUSH", b"ZINCRBY") or (name == b"XADD" and b"*" in args[2:8])


def takes(name: bytes, count: int | None) -> int:
    """The elements that a blocking command takes at once, at most. `count`: its COUNT."""
    if name == b"XREADGROUP":
        return count or ANY_NUMBER
    return count or 1
