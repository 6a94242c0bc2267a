"""The copies in pages that are under way: who is read when, and what becomes of an effect on such a key.

Owns each copy from the moment that its key turned out to be big until it is clean, or is to be read anew. Its place in
`DirtyKeys` is READING until the first page is queued, and QUEUED at that page's position until the last one is
acknowledged: damage behind the first page is not covered, and leads to another copy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import hiredis

from backfill.codec import head_commands, times
from backfill.rebuild import Command
from proxy.bigkeys.lists import ListPager
from proxy.bigkeys.members import HashPager, SetPager, SortedSetPager
from proxy.bigkeys.pages import Broken, Pager, Terms
from proxy.bigkeys.streams import StreamPager
from proxy.bigkeys.texts import StringPager
from proxy.dirty import DirtyKeys, Place
from proxy.effects.model import Effect
from resp.errors import ProtocolError
from resp.frames import decode

if TYPE_CHECKING:
    from proxy.lane import Lane
    from proxy.link import Link
    from proxy.mirror import Mirror
    from proxy.roles import Roles

AT_ONCE = 4  # keys paged at the same time; of them one page at a time is in the lane: no command waits for two
PAGES_AHEAD = 2  # pages of one key that the mirror has not acknowledged
WHOLE_BYTES = 64 * 1024 * 1024  # a key that cannot be paged is read whole up to here
MAX_BREAKS = 5  # in a row, before that
TOLERANCE_MS = 1000  # between the deadlines of both sides at the end

PAGERS: dict[bytes, type[Pager]] = {
    pager.kind: pager for pager in (HashPager, SetPager, SortedSetPager, ListPager, StringPager, StreamPager)
}
REPLACING = frozenset([b"DEL", b"UNLINK", b"SET", b"MSET", b"RESTORE"])  # what the key held before is gone
DEADLINES = frozenset([b"PEXPIREAT", b"PERSIST"])

Failed = Callable[[Place, str], None]
Ask = tuple[int, Command, Callable[[Any], None]]  # in front of which command, what to ask, and who gets the reply


@dataclass(slots=True, eq=False)
class Copy:
    """One copy under way."""

    place: Place
    serial: int  # of its READING
    pager: Pager
    size: int  # bytes, about
    link: Link | None  # a cursor belongs to one connection's server
    seq: int = 0  # where the first page stands in the mirror queue
    started: bool = False  # it does
    unacknowledged: int = 0
    finished: bool = False  # the last page is in the mirror queue
    earliest: int | None = None  # deadline that the key had, or was given, since the last page (serving side's clock)


class Copies:
    """Every copy in pages."""

    def __init__(
        self,
        roles: Roles,
        lane: Lane,
        mirror: Mirror,
        keys: Callable[[], DirtyKeys],
        *,
        failed: Failed,
        copied: Callable[[Copy], None],
    ) -> None:
        self.paged: dict[Place, Copy] = {}  # started, and not finished: their effects are diverted
        self.pages = 0  # read so far
        self.largest = 0  # bytes of the largest page
        self.broken = 0  # copies that had to begin again
        self.may_read: Callable[[], bool] = lambda: True  # a backfill that yields, or is held to a bandwidth, says no
        self.read_bytes: Callable[[int], None] = lambda size: None  # told of every page's size
        self._roles = roles
        self._lane = lane
        self._mirror = mirror
        self._keys_now = keys
        self._failed = failed
        self._copied = copied
        self._running: dict[Place, Copy] = {}
        self._waiting: deque[Copy] = deque()
        self._breaks: dict[Place, int] = {}
        self._in_lane = 0  # pages

    @property
    def _keys(self) -> DirtyKeys:
        return self._keys_now()

    def __repr__(self) -> str:
        return f"<Copies running={list(self._running.values())} waiting={len(self._waiting)} pages={self.pages}>"

    def __len__(self) -> int:
        """Keys that wait for their turn, or are being copied."""
        return len(self._running) + len(self._waiting)

    def __contains__(self, place: Place) -> bool:
        """Whether this key is one of them."""
        return place in self._running or any(copy.place == place for copy in self._waiting)

    def places(self, limit: int) -> list[Place]:
        """Some of these keys."""
        return [copy.place for copy, _ in zip([*self._running.values(), *self._waiting], range(limit), strict=False)]

    def takes(self, place: Place, kind: bytes, size: int) -> bool:
        """Whether a big key of this type should be copied in pages."""
        return kind in PAGERS and (self._breaks.get(place, 0) < MAX_BREAKS or size > WHOLE_BYTES)

    def begin(self, place: Place, serial: int, kind: bytes, size: int) -> None:
        """Copy this key, which is READING under `serial`."""
        roles = self._roles
        facts = roles.mirror_facts
        terms = Terms(roles.serving_facts.commands, facts.commands, facts.version, roles.shift_ms)
        self._waiting.append(Copy(place, serial, PAGERS[kind](place[1], terms), size, self._lane.link))

    def forget(self, dbs: Iterable[int] | None = None) -> None:
        """Break off every copy, or those in these dbs."""
        for copy in [*self._running.values(), *self._waiting]:
            if dbs is None or copy.place[0] in dbs:
                self._end(copy)
        if dbs is None:
            self._breaks.clear()

    def mirror_lost(self) -> None:
        """What was queued is gone with the connection."""
        for copy in [copy for copy in self._running.values() if copy.started]:
            self._end(copy)

    def read_whole(self, place: Place) -> None:
        """A key that could not be paged was copied all the same."""
        self._breaks.pop(place, None)

    # -- pages ---------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Read the next pages, as far as the windows allow."""
        for copy in list(self._running.values()):
            if copy.link is not self._lane.link:
                self._end(copy)
        while self._waiting and len(self._running) < AT_ONCE:
            copy = self._waiting.popleft()
            if copy.link is not self._lane.link or copy.place in self._running:
                self._end(copy)
            elif self._keys.reading(copy.place, copy.serial):
                self._running[copy.place] = copy
        for place, copy in list(self._running.items()):
            if self._in_lane or not self.may_read():
                return
            if not copy.finished and copy.unacknowledged < PAGES_AHEAD:
                self._running[place] = self._running.pop(place)  # its turn comes again after all others'
                self._read(copy)

    def _read(self, copy: Copy) -> None:
        db, key = copy.place
        self._in_lane += 1
        head = [*head_commands(key, self._roles.serving_facts.commands), [b"TYPE", key], [copy.pager.length, key]]
        self._lane.call(db, [*head, *copy.pager.read()], lambda frame: self._on_read(copy, frame))

    def _on_read(self, copy: Copy, frame: bytes | None) -> None:
        self._in_lane -= 1
        if self._running.get(copy.place) is not copy:
            return
        if not copy.started and not self._keys.reading(copy.place, copy.serial):  # forgotten, or relabelled
            del self._running[copy.place]
        elif frame is None:
            self._end(copy)
        else:
            self.pages += 1
            self.largest = max(self.largest, len(frame))
            self.read_bytes(len(frame))
            self._take(copy, frame)

    def _take(self, copy: Copy, frame: bytes) -> None:
        try:
            replies = decode(frame)
            refused = [replies] if isinstance(replies, hiredis.ReplyError) else replies[:3]
            if error := next((one for one in refused if isinstance(one, hiredis.ReplyError)), None):
                self._fail(copy, str(error))
                return
            now_ms, deadline = times(*replies[:2])
            kind, size = replies[2], replies[3]
            if (kind if isinstance(kind, bytes) else kind.encode()) != copy.pager.kind:
                self._end(copy)  # deleted, or replaced, without a command of ours
            elif copy.earliest is not None and now_ms >= copy.earliest:
                self._end(copy)  # this is another key of that name
            else:
                copy.earliest = deadline
                self._queue(copy, copy.pager.take(size, now_ms, replies[4:]), size, deadline)
        except Broken as broken:
            self._break(copy, broken.reason)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, ProtocolError):
            self._fail(copy, f"read with an unexpected answer: {frame[:60]!r}")

    def _queue(self, copy: Copy, statements: list[Command], size: int, deadline: int | None) -> None:
        db, key = copy.place
        facts = self._roles.mirror_facts
        longest = max((len(arg) for command in statements for arg in command), default=0)
        longest = max(longest, size if copy.pager.kind == b"string" else 0)
        if longest > facts.max_bulk:
            self._fail(copy, f"it has {longest:,} bytes, the mirror side takes {facts.max_bulk:,} (proto-max-bulk-len)")
            return
        if deadline is None:
            statements.append([b"PERSIST", key])
        else:
            statements.append([b"PEXPIREAT", key, b"%d" % max(1, deadline + self._roles.shift_ms)])
        if not copy.started:
            statements.insert(0, [b"DEL", key])
            copy.started, copy.seq = True, self._mirror.seq
            self._keys.queued(copy.place, copy.seq)
            self.paged[copy.place] = copy
        copy.unacknowledged += 1
        self._mirror.call(db, statements, lambda frame: self._on_acknowledged(copy, frame))
        if copy.pager.complete and self._running.get(copy.place) is copy:
            copy.finished = True
            del self.paged[copy.place]  # from here on effects are those of any key
            check = [[copy.pager.length, key], *head_commands(key, facts.commands)]
            self._mirror.call(db, check, lambda frame: self._on_checked(copy, frame, size, deadline))

    def _on_acknowledged(self, copy: Copy, frame: bytes | None) -> None:
        copy.unacknowledged -= 1
        if self._running.get(copy.place) is not copy:
            return
        if frame is None:
            self._fail(copy, "the mirror connection was lost while it was copied")
        elif error := _error(frame):
            self._fail(copy, error)

    def _on_checked(self, copy: Copy, frame: bytes | None, size: int, deadline: int | None) -> None:
        """The last word: both sides at the point of the last page."""
        if self._running.get(copy.place) is not copy:
            return
        if frame is None or (error := _error(frame)):
            self._fail(copy, error if frame is not None else "the mirror connection was lost while it was copied")
            return
        there, *head = decode(frame)
        _, deadline_there = times(*head)
        late = abs((deadline or 0) + self._roles.shift_ms - (deadline_there or 0)) if deadline and deadline_there else 0
        if copy.pager.countable and there != size:
            self._break(copy, f"{size:,} elements were copied, {there:,} are there")
        elif (deadline is None) != (deadline_there is None) or late > TOLERANCE_MS:
            self._break(copy, "its deadline is not the one that was copied")
        else:
            del self._running[copy.place]
            self._breaks.pop(copy.place, None)
            self._copied(copy)

    # -- the end of a copy that is not complete ------------------------------------------------------------------

    def _end(self, copy: Copy) -> None:
        """Read the key anew, at once."""
        if self._drop(copy):
            self._keys.failed(copy.place, "read anew")

    def _fail(self, copy: Copy, reason: str) -> None:
        """Read the key anew, later."""
        if self._drop(copy):
            self._failed(copy.place, reason)

    def _break(self, copy: Copy, reason: str) -> None:
        """Read the key anew: at once for the first times."""
        self.broken += 1
        breaks = self._breaks[copy.place] = self._breaks.get(copy.place, 0) + 1
        if breaks < MAX_BREAKS or (breaks == MAX_BREAKS and copy.size <= WHOLE_BYTES):
            self._end(copy)
        else:
            self._fail(copy, f"it has about {copy.size:,} bytes and cannot be copied in pages: {reason}")

    def _drop(self, copy: Copy) -> bool:
        """Forget the copy; whether the key is still in its hands."""
        place = copy.place
        if self._running.get(place) is copy:
            del self._running[place]
        elif copy in self._waiting:
            self._waiting.remove(copy)
        if self.paged.get(place) is copy:
            del self.paged[place]
        return copy.started or self._keys.reading(place, copy.serial)

    # -- effects -------------------------------------------------------------------------------------------------

    def before(self, command: Command, db: int) -> None:
        """This command is about to be put in the lane. If its effect on a key that is being copied can only be told
        from what was there just before, that is asked for."""
        for asked, tell in self._asks(command, db):
            self._lane.call(db, [asked], lambda frame, tell=tell: _tell_first(frame, tell))  # type: ignore[misc]

    def inside(self, commands: Iterable[Command], db: int) -> list[Ask]:
        """The same for a whole MULTI block: what to put in front of which of its commands."""
        asks = [(index, ask) for index, command in enumerate(commands) for ask in self._asks(command, db)]
        return [(index, asked, tell) for index, (asked, tell) in asks]

    def _asks(self, command: Command, db: int) -> Iterator[tuple[Command, Callable[[Any], None]]]:
        copy = self.paged.get((db, command[1])) if len(command) > 1 else None
        asked = copy.pager.ask(command) if copy is not None else None
        if copy is not None and asked is not None:
            pager = copy.pager
            yield asked, lambda reply: pager.tell(command, reply)

    def divert(self, db: int, effect: Effect) -> Effect:
        """The effect with statements in place of what it does to keys that are being copied."""
        if not any((db, key) in self.paged for key in effect.keys):
            return effect
        commands: list[tuple[bytes, ...]] = []
        expected: list[bytes | None] = []
        for command, reply in zip(effect.commands, effect.expected, strict=True):
            for one, answer in _halves(list(command), reply):
                for statement, wanted in self._stated(db, one, answer):
                    commands.append(tuple(statement))
                    expected.append(wanted)
        guard = tuple(key for key in effect.guard if (db, key) not in self.paged)
        return replace(effect, commands=tuple(commands), expected=tuple(expected), guard=guard)

    def spare(self, name: bytes, effect: Effect) -> Effect:
        """The effect of this command without state copies of keys whose later pages show it anyway."""
        copies = tuple(
            (there, key)
            for there, key in effect.copies
            if (copy := self.paged.get((there, key))) is None or name not in copy.pager.shown
        )
        return effect if len(copies) == len(effect.copies) else replace(effect, copies=copies)

    def _stated(self, db: int, command: Command, expected: bytes | None) -> list[tuple[Command, bytes | None]]:
        name = command[0].upper()
        copies = [copy for key in keys_of(command) if (copy := self.paged.get((db, key)))]
        if not copies:
            return [(command, expected)]
        if name in REPLACING:
            for copy in copies:
                self._end(copy)
            return [(command, expected)]
        (copy,) = copies
        if name in DEADLINES:
            if name == b"PEXPIREAT":
                moment = int(command[2]) - self._roles.shift_ms - round(self._roles.uncertainty_ms)
                copy.earliest = moment if copy.earliest is None else min(moment, copy.earliest)
            return [(command, None)]
        try:
            return copy.pager.state(command, expected)
        except Broken as broken:
            self._break(copy, broken.reason)
        except (IndexError, ValueError):
            self._break(copy, f"{name.decode(errors='replace')} in a form that is not known")
        return [(command, expected)]


def _tell_first(frame: bytes | None, tell: Callable[[Any], None]) -> None:
    replies = decode(frame) if frame is not None else None
    if isinstance(replies, list) and replies and not isinstance(replies[0], hiredis.ReplyError):
        tell(replies[0])


def keys_of(command: Command) -> list[bytes]:
    """The keys of an effect's command."""
    name = command[0].upper()
    if name in (b"DEL", b"UNLINK"):
        return command[1:]
    if name == b"MSET":
        return command[1::2]
    if name == b"XGROUP":
        return command[2:3]
    if name == b"XREADGROUP":
        words = [word.upper() for word in command]
        return command[words.index(b"STREAMS", 4) + 1 :][:1]  # an effect reads one stream
    return command[1:2]


def _halves(command: Command, expected: bytes | None) -> list[tuple[Command, bytes | None]]:
    """What moves an element between two keys, as two commands of one key each."""
    name = command[0].upper()
    if name == b"SMOVE":
        return [([b"SREM", command[1], command[3]], b":1\r\n"), ([b"SADD", command[2], command[3]], None)]
    if name == b"RPOPLPUSH":
        command = [b"LMOVE", *command[1:3], b"RIGHT", b"LEFT"]
    elif name != b"LMOVE":
        return [(command, expected)]
    moved = decode(expected) if expected is not None else b""
    pop, push = (b"LPOP", b"RPOP")[command[3].upper() == b"RIGHT"], (b"LPUSH", b"RPUSH")[command[4].upper() == b"RIGHT"]
    return [([pop, command[1]], expected), ([push, command[2], moved], None)]


def _error(frame: bytes) -> str:
    """The first error in an EXEC reply, or that there was none."""
    replies = decode(frame)
    if isinstance(replies, hiredis.ReplyError):
        return str(replies)
    if not isinstance(replies, list):
        return "the transaction was not executed"
    return next((str(reply) for reply in replies if isinstance(reply, hiredis.ReplyError)), "")
