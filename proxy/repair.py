"""Repair: reads keys in the lane, queues their copies on the mirror, until none is dirty.

Owns the pace: how many reads are under way, when a failed key is tried again, and which form (DUMP or STRUCT) the
mirror takes. The state of each key is `dirty.py`'s. The backfill is nothing but keys marked here, so it needs no
locks: a copy shows its key at a known point of the order, and effects of later writes follow it in the queue. A key is
asked for its size before it is read: a big one is copied in pages (`bigkeys`).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backfill.codec import (
    Form,
    Unreadable,
    WrongType,
    losses,
    parse,
    read_commands,
    refused,
    write_commands,
)
from backfill.values import State
from proxy import together
from proxy.bigkeys import BIG_BYTES, Copies, sizing
from proxy.bigkeys.copying import Copy
from proxy.dirty import DirtyKeys, Place
from proxy.losses import Losses
from proxy.together import Together
from resp.encode import OK
from resp.frames import decode, elements

if TYPE_CHECKING:
    from proxy.lane import Lane
    from proxy.mirror import Mirror
    from proxy.roles import Roles

READS_UNDER_WAY = 256  # keys read or queued at once; more would only be lag for live effects
READ_BYTES = 1024 * 1024  # asked for and not yet answered, about: what a client's command may have to wait behind
SMALL_BYTES = BIG_BYTES // 4  # a key that had no more than this a moment ago is not asked for its size again
SMALL_SECONDS = 10.0  # how long a moment is
MAX_SMALL = 10_000  # keys remembered as small, twice
SUSPECT = 2  # connections lost with the same copy in front: the mirror side may not take that value
TYPE_READS = 8  # a key whose type keeps changing has to wait after so many reads
BACKOFF_SECONDS = 0.1  # before a failed copy is tried again; doubled with every failure
MAX_BACKOFF_SECONDS = 5.0
QUARANTINE_SECONDS = 10.0  # for a copy that costs the mirror connection
MAX_SWAPS = 1000  # remembered; what went wrong before older ones has long been answered
DIRTY_BYTES = 128 * 1024 * 1024  # of marks: 440,000 keys of 30 bytes; beyond it the phase falls back to `filling`


class Repair:
    """Moves every marked key through read, copy and acknowledgement."""

    def __init__(
        self,
        roles: Roles,
        lane: Lane,
        mirror: Mirror,
        on_overflow: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self.keys = DirtyKeys()
        self.copies = 0  # acknowledged
        self.copied_bytes = 0
        self.failures: Counter[str] = Counter()
        self.copied: Callable[[list[Place]], None] = lambda places: None  # told of keys: a copy was acknowledged
        self.paging: Callable[[Place], None] = lambda place: None  # told of every key that is to be copied in pages
        self.hurried = False  # clients wait for the last copies
        self.unknown_db: Callable[[int], None] = lambda db: (
            None
        )  # told of a db that may not exist: never SELECT it blindly
        self.on_swap: Callable[[], None] = lambda: None  # told of them
        self.swaps = 0  # whole-db barriers seen: a scan under way has lost its place
        self.losses = Losses()
        self.frozen = ""  # why no key may be deleted on the mirror side
        self._roles = roles
        self._lane = lane
        self._mirror = mirror
        self._on_overflow = on_overflow
        self._swaps: deque[tuple[int, int, int]] = deque(maxlen=MAX_SWAPS)  # (seq, a, b): SWAPDBs that were queued
        self._form = Form.DUMP  # what the mirror side is believed to take
        self._forms: dict[Place, Form] = {}  # single keys that need STRUCT
        self._believed: dict[Place, WrongType] = {}
        self.copies_in_pages = Copies(
            roles, lane, mirror, lambda: self.keys, failed=self._failed, copied=self._copied_in_pages
        )
        self.big_bytes = BIG_BYTES
        self.window = READS_UNDER_WAY  # a backfill that yields to live traffic makes it smaller
        self.largest_read = 0  # bytes of the largest reply to a read of a whole key
        self.sizes: dict[Place, int] = {}  # bytes of keys that are about to be marked, as far as somebody knows
        self._by_samples = False  # MEMORY USAGE is refused there
        self._reading_bytes = 0
        self._together = Together(self, roles, lane, mirror)
        self._big_since: dict[Place, float] = {}  # when the copy in pages began
        self._small: dict[Place, int] = {}
        self._small_before: dict[Place, int] = {}
        self._small_since = 0.0

    def __repr__(self) -> str:
        return f"<Repair {self.keys!r} form={self._form.value} copies={self.copies}>"

    @property
    def settled(self) -> bool:
        """No key is dirty, no copy under way."""
        return not len(self.keys)

    @property
    def takes_payloads(self) -> bool:
        """Whether the mirror side is believed to take what the serving side dumps."""
        return self._form is Form.DUMP

    def mark(self, place: Place, reason: str, *, lag: bool = False, seq: int | None = None) -> None:
        """See `DirtyKeys.mark`."""
        self.keys.mark(place, reason, lag=lag, seq=seq)
        if seq is not None and self._swaps and seq < self._swaps[-1][0]:
            self._mark_where_it_went(place, reason, seq)
        self._bound()

    def _mark_where_it_went(self, place: Place, reason: str, seq: int) -> None:
        """What went wrong before a SWAPDB is in the other db by now."""
        db, key = place
        for swap_seq, a, b in self._swaps:
            if swap_seq > seq and db in (a, b):
                db = b if db == a else a
                self.keys.mark_unordered((db, key), reason)

    def expect(self, place: Place, size: int) -> None:
        """The key that is about to be marked has about so many bytes (0: not known)."""
        if size:
            self.sizes[place] = size

    def hold(self, place: Place, reason: str) -> None:
        """See `DirtyKeys.hold`."""
        self.keys.hold(place, reason)
        self._bound()

    def mark_unordered(self, place: Place, reason: str, *, lag: bool = False) -> None:
        """See `DirtyKeys.mark_unordered`."""
        self.keys.mark_unordered(place, reason, lag=lag)
        self._bound()

    def want(self, place: Place, reason: str) -> None:
        """See `DirtyKeys.want`."""
        self.keys.want(place, reason)
        self._bound()

    def _bound(self) -> None:
        if self.keys.bytes > DIRTY_BYTES:
            dirty = len(self.keys)
            self.forget()
            self._on_overflow(f"{dirty:,} keys were dirty, which is more than is kept in memory")

    def forget(self) -> None:
        """A full backfill is due: what is dirty now will be found by it."""
        self.copies_in_pages.forget()
        self.keys.forget()
        self.sizes.clear()
        self._big_since.clear()
        self.losses.clear()
        self._forms.clear()
        self._believed.clear()

    def swapped(self, a: int, b: int) -> None:
        """SWAPDB at this point of the order, which is the mirror queue's last position."""
        self.swaps += 1
        self.on_swap()
        self._swaps.append((self._mirror.seq, a, b))
        self.copies_in_pages.forget((a, b))
        self.keys.relabel(a, b)

    def flushed(self, db: int | None) -> None:
        """FLUSHDB (or, with None, FLUSHALL) at this point of the order: dirty keys are copied as any other."""
        self.copies_in_pages.forget(None if db is None else (db,))

    # -- the pump ------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Send reads for keys that wait, as many as the window allows. Called before every flush."""
        keys, big = self.keys, self.copies_in_pages
        if self._lane.link is None or self._mirror.link is None or not (keys.waiting or big):
            return
        small = self._together
        while (
            keys.waiting
            and keys.under_way - len(big) < self.window
            and self._reading_bytes + small.reading_bytes < READ_BYTES
        ):
            if self._mirror.full:
                break
            taken = keys.take()
            if taken is None:
                break
            self._begin(*taken)
        small.read()
        if big:
            big.pump()

    def _begin(self, place: Place, serial: int) -> None:
        """Read the key, or ask for its size first."""
        link = self._lane.link
        if link is not None and place[0] not in link.dbs:
            self._failed(place, f"db {place[0]} is being looked for")
            self.unknown_db(place[0])
            return
        size = self._known_size(place)
        if size is None and self._roles.serving_facts.commands:  # else nothing is known of this server
            self._ask_size(place, serial)
        elif size and size <= together.BYTES and self._form is Form.DUMP and self._is_ordinary(place):
            self._together.add(place, serial, size)
        else:
            self.read_alone(place, serial, size or 0)

    def _is_ordinary(self, place: Place) -> bool:
        """Nothing is known against copying it with others: if one makes the mirror side hang up, it has to be found."""
        return place not in self._forms and not self.keys.failures(place)

    def _known_size(self, place: Place) -> int | None:
        size = self.sizes.pop(place, None)
        if size is None:
            size = self._small.get(place) or self._small_before.get(place)
        return size if size is None or size <= self.big_bytes else None

    def _ask_size(self, place: Place, serial: int) -> None:
        by_samples = self._by_samples or b"MEMORY" not in self._roles.serving_facts.commands

        def on_reply(frame: bytes | None) -> None:
            if self.keys.reading(place, serial):
                self._on_size(place, serial, frame, by_samples)

        commands = sizing.by_samples(place[1]) if by_samples else sizing.by_memory(place[1])
        self._lane.call(place[0], commands, on_reply)

    def _on_size(self, place: Place, serial: int, frame: bytes | None, by_samples: bool) -> None:
        if frame is None:
            self.keys.failed(place, "connection to the serving side lost")
            return
        try:
            replies = [decode(element) for element in elements(frame)]
            parse_size = sizing.parse_samples if by_samples else sizing.parse_memory
            found = parse_size(replies) if replies else None
        except (IndexError, TypeError, ValueError):  # not what a server answers
            self._failed(place, f"its size is asked for, with an unexpected answer: {frame[:60]!r}")
            return
        if found is None:
            if by_samples:
                self._failed(place, f"its size cannot be asked for: {frame[:100]!r}")
            else:  # an ACL, or a service
                self._by_samples = True
                self.keys.failed(place, "its size is asked for in another way")
            return
        size, kind = found
        if size > self.big_bytes and self.copies_in_pages.takes(place, kind, size):
            self._big_since[place] = self._clock()
            self.paging(place)
            self.copies_in_pages.begin(place, serial, kind, size)
        else:
            self.read_alone(place, serial, size)

    def read_alone(self, place: Place, serial: int, size: int) -> None:
        """Send the read of one key, which has about so many bytes."""
        form = self._forms.get(place, self._form)
        db, key = place
        believed = self._believed.get(place)
        commands = read_commands(key, form, believed, known=self._roles.serving_facts.commands)
        self._reading_bytes += size

        def on_reply(frame: bytes | None) -> None:
            self._reading_bytes -= size
            if self.keys.reading(place, serial):
                self._on_read(place, form, believed, frame)

        self._lane.call(db, commands, on_reply)

    def _on_read(self, place: Place, form: Form, believed: WrongType | None, frame: bytes | None) -> None:
        if frame is None:
            self.keys.failed(place, "connection to the serving side lost")
            return
        self.largest_read = max(self.largest_read, len(frame))
        if frame.startswith(b"-"):
            self._failed(place, decode_error(frame))
            return
        self.on_replies(place, form, believed, decode(frame))

    def on_replies(self, place: Place, form: Form, believed: WrongType | None, replies: Any) -> None:
        """The decoded answer to the read of a key that waits for it."""
        try:
            state = parse(place[1], form, replies, believed)
        except (IndexError, KeyError, TypeError, ValueError):  # not what a server answers; a relay might
            self._failed(place, f"read with an unexpected answer: {replies!r:.60}")
            return
        match state:
            case WrongType():  # also the first read of every key in form STRUCT, which learns its type
                self._believed[place] = state
                if self.keys.failures(place) < TYPE_READS:
                    self.keys.failed(place, "its type is being read")
                else:
                    self._failed(place, "it changes faster than its type can be read")
            case Unreadable():
                self._failed(place, state.reason)
            case State():
                self._queue(place, form, state)

    def _queue(self, place: Place, form: Form, state: State) -> None:
        facts = self._roles.mirror_facts
        commands = write_commands(state, shift_ms=self._roles.shift_ms, target=facts.commands, version=facts.version)
        if state.missing and self.frozen:
            self._failed(place, self.frozen)
            return
        longest = max(len(arg) for command in commands for arg in command)
        if longest > facts.max_bulk:
            self._failed(
                place, f"it has {longest:,} bytes, the mirror side takes {facts.max_bulk:,} (proto-max-bulk-len)"
            )
            return
        self.losses.note(place, losses(state, target=facts.commands, version=facts.version))
        seq = self._mirror.copy(place, commands, form)
        if seq is None:
            self._not_queued(place)
            return
        self.copied_bytes += state.size
        if state.size <= SMALL_BYTES and len(self._small) < MAX_SMALL:
            self._small[place] = state.size or 1
        self.keys.queued(place, seq)

    def _not_queued(self, place: Place) -> None:
        if self._mirror.link is None:
            self.keys.failed(place, "mirror not connected")
        else:
            self._failed(place, self._mirror.why_dropped(place[0]))

    def queued_together(self, sizes: dict[Place, int], seq: int | None) -> None:
        """The mirror queue has copies of these keys, as they are, with so many bytes; None: it does not take them."""
        if seq is None:
            for place in sizes:
                self._not_queued(place)
            return
        if len(self.losses):
            for place in sizes:
                self.losses.note(place, ())
        self.copied_bytes += sum(sizes.values())
        self.largest_read = max(self.largest_read, *sizes.values())
        if len(self._small) < MAX_SMALL:
            self._small |= sizes
        self.keys.queued_together(sizes, seq)

    def on_copied(self, place: Place, seq: int, form: Form, error: bytes | None) -> None:
        """The mirror answered a copy: with this error, or with none."""
        if error is None:
            self.copies += 1
            self._big_since.pop(place, None)  # it is not big any more
            if self.keys.is_queued(place, seq):
                self.copied([place])
            if self.keys.settled(place, seq):
                self._forms.pop(place, None)
                self._believed.pop(place, None)
                self.copies_in_pages.read_whole(place)
            return
        if form is Form.DUMP and refused(decode(error)):
            self._needs_struct(place, error)
            if self.keys.is_queued(place, seq):
                self.keys.failed(place, "rebuilt by type")
        elif self.keys.is_queued(place, seq):
            self._failed(place, decode_error(error))

    def on_copied_together(self, places: list[Place], seq: int, answers: list[bytes]) -> None:
        """The mirror answered copies that were queued together."""
        if self._big_since or answers.count(OK) != len(places):
            for place, answer in zip(places, answers, strict=True):
                self.on_copied(place, seq, Form.DUMP, None if answer == OK else answer)
            return
        self.copies += len(places)
        waited = self.keys.settled_together(places, seq)
        for place in waited:
            self.copies_in_pages.read_whole(place)
        self.copied(waited)

    def _copied_in_pages(self, copy: Copy) -> None:
        """All pages are acknowledged, and both sides had the same size at the last one."""
        place = copy.place
        self.copies += 1
        self.losses.note(place, copy.pager.lost)
        took = self._clock() - self._big_since.pop(place, self._clock())
        self.copied([place])
        if self.keys.damaged(place) and not self.hurried:  # by what only another copy shows: for a key of this size
            self.keys.rest(place, due=self._clock() + took)  # not all the time
        else:
            self.keys.settled(place, copy.seq)

    def _needs_struct(self, place: Place, error: bytes) -> None:
        self._forms[place] = Form.STRUCT
        if b"version or checksum" in error:  # nothing this server dumps will ever be accepted there
            self._form = Form.STRUCT
            self._forms.clear()

    def _failed(self, place: Place, reason: str) -> None:
        self.failures[reason[:120]] += 1
        if "Protocol error" in reason:  # it closes the connection: not to be tried often
            self.keys.failed(place, reason, due=self._clock() + QUARANTINE_SECONDS)
            return
        pause = min(BACKOFF_SECONDS * 2 ** min(self.keys.failures(place), 16), MAX_BACKOFF_SECONDS)
        self.keys.failed(place, reason, due=self._clock() + pause)

    # -- links ---------------------------------------------------------------------------------------------------

    def mirror_lost(self) -> None:
        """Copies that were queued are gone with the connection."""
        self.copies_in_pages.mirror_lost()
        places = self.keys.queued_places()
        if places and self.keys.failures(places[0]) >= SUSPECT:  # it is what the mirror side hangs up on
            self._failed(places.pop(0), "the mirror side closed the connection when it was sent a copy of this key")
        self.keys.again_all(places)

    def hurry(self, wanted: bool) -> None:
        """Clients wait, or do not wait any more: copies that are due later are due now."""
        self.hurried = wanted
        if wanted:
            self.keys.retry(float("inf"))

    def retry(self) -> bool:
        """Let failed copies that are due have another try; whether there are any. Called again and again."""
        now = self._clock()
        if now - self._small_since > SMALL_SECONDS:
            self._small_since = now
            self._small_before, self._small = self._small, {}
        return self.keys.retry(now) > 0

    def restart_forms(self) -> None:
        """The roles changed, or a server was replaced: find out anew what the mirror side takes."""
        self._form = Form.DUMP
        self._forms.clear()
        self._by_samples = False
        self.copies_in_pages.forget()


def decode_error(frame: bytes) -> str:
    """The text of an error frame."""
    return frame[1:-2].decode(errors="replace")
