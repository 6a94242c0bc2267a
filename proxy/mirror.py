"""The mirror queue: effects in lane order, down one pipelined connection to the mirror side.

Owns the queue's order and its byte bound, and asks the expiry guard's question in front of an effect that builds on a
key's prior state. What it cannot send, what is lost and what is answered differently (judging.py) becomes a dirty key:
never silently (invariants 4, 8). Does not know clients, and never delays one (invariant 9).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from proxy.effects.model import Effect
from proxy.items import BATCH, CALL, COPIES, COPY, EFFECT, GUARD, SKIP, SWALLOW, Batch, Run, each
from proxy.judging import IMMORTAL, Judge
from resp.encode import encode

if TYPE_CHECKING:
    from backfill.codec import Form
    from proxy.dirty import Place
    from proxy.link import Link
    from proxy.roles import Roles

Callback = Callable[[bytes | None], None]
Mark = Callable[[int, bytes, str, int | None], None]  # (db, key, reason, seq)

QUEUE_BYTES = 64 * 1024 * 1024  # sent or waiting, not yet acknowledged; beyond it effects become dirty keys

MANY = 64  # commands, or pipelines, that have gathered

MIN_MAX_BULK = 1024 * 1024  # no server can be told a lower proto-max-bulk-len
OVERHEAD_BYTES = 680  # of an effect in memory, besides its bytes (tests/proxy/test_mirror.py measures both)
BATCHED_BYTES = 200  # of one in a batch, besides its bytes and its key's
KEY_BYTES = 110  # of each of several keys
GUARD_BYTES = 60  # of a guard in front of one in a batch, besides its key's
BATCH_BYTES = 530  # of a batch itself

_payload, _spec, _key = itemgetter(2), itemgetter(3), itemgetter(7)  # of a SINGLE of the lane
_ERROR = ord("-")
_PUSH = ord(">")
_PTTL = b"*2\r\n$4\r\nPTTL\r\n$%d\r\n"
_MULTI = encode([b"MULTI"])
_EXEC = encode([b"EXEC"])


class Mirror:
    """The order of effects on the mirror side."""

    def __init__(self, roles: Roles, clock: Callable[[], float], *, queue_bytes: int = QUEUE_BYTES) -> None:
        self.link: Link | None = None
        self.seq = 0  # position of the last effect appended
        self.queued_bytes = 0
        self.dropped = 0  # effects never sent: no connection, or the queue was full
        self.mark: Mark = lambda db, key, reason, seq: None
        self.lost: Callable[[str], None] = lambda reason: None
        self.copied: Callable[[Place, int, Form, bytes | None], None] = lambda place, seq, form, error: None
        self.copied_together: Callable[[list[Place], int, list[bytes]], None] = lambda places, seq, answers: None
        self.whole_db: Callable[[str], None] = lambda reason: None
        self.judge = Judge(roles, clock, self._differs, lambda reason: self.whole_db(reason))
        self.answered = 0  # replies so far, lost ones included
        self.retired = False  # nothing is mirrored any more, and nothing is kept for later (see finish.py)
        self._roles = roles
        self._clock = clock
        self._limit = queue_bytes
        self._inflight: deque[tuple[Any, ...]] = deque()
        self._more = 0  # replies of pipelines, beyond one for each item
        self._out: list[bytes] = []
        self._db = 0
        self._last: tuple[int, Batch] | None = None  # the item of the batch that may grow
        self._hurry = False  # what has gathered is waited for

    def __repr__(self) -> str:
        return f"<Mirror {self.link!r} inflight={len(self._inflight)} bytes={self.queued_bytes} seq={self.seq}>"

    @property
    def idle(self) -> bool:
        """Nothing awaited."""
        return not self._inflight

    @property
    def queued(self) -> int:
        """Replies awaited."""
        return len(self._inflight) + self._more

    @property
    def asked(self) -> int:
        """Commands queued so far: everything up to here is answered once `answered` has come that far."""
        return self.answered + self.queued

    @property
    def full(self) -> bool:
        return self.queued_bytes >= self._limit

    def lag(self) -> float:
        """Seconds since the serving side answered the oldest effect that is not yet acknowledged; 0.0 when idle."""
        for item in self._inflight:
            if item[0] == BATCH:
                return self._clock() - float(item[1].replied)
            if item[0] == EFFECT:
                return self._clock() - float(item[5])
        return 0.0

    def attach(self, link: Link) -> None:
        """Use this connection from now on. Only when nothing is awaited."""
        assert not self._inflight
        self._out.clear()
        self.judge.forget()
        self.queued_bytes = 0
        self.link = link
        link.owner = self
        self._db = link.db

    def detach(self) -> Link | None:
        """Give the connection away (flip). Only when nothing is awaited."""
        assert not self._inflight
        link, self.link = self.link, None
        return link

    def abandon(self) -> None:
        """Give up what is awaited, by closing the connection (a forced flip)."""
        if self._inflight and self.link is not None:
            self.link.lose("given up by a forced flip")

    def retire(self) -> None:
        """Mirror nothing from now on. What is in flight may still be applied there; nobody waits for it."""
        self.retired = True
        if self.link is not None:
            self.link.lose("mirroring was ended")

    # -- appending -----------------------------------------------------------------------------------------------

    def as_sent(self, item: tuple[Any, ...], expected: bytes, replied: float, guard: bool) -> None:
        """An effect that is the client's command itself, `item` of the lane; `guard` asks for the expiry guard on its
        one key."""
        _, _, payload, spec, args, db, _ = item
        inflight, last = self._inflight, self._last
        if spec.one_key:
            keys = args[1]
            size = len(payload) + len(keys) + len(expected) + BATCHED_BYTES
        else:
            keys = tuple(spec.keys(args))
            size = len(payload) + sum(map(len, keys)) + KEY_BYTES * len(keys) + BATCHED_BYTES
        if (
            last is not None
            and inflight
            and inflight[-1] is last
            and db == self._db
            and size < MIN_MAX_BULK
            and self.queued_bytes < self._limit
        ):
            batch = last[1]
        elif self._takes(db, len(payload)):
            batch = self._batch(db, replied)
        else:
            self._drop(db, each(keys))
            return
        if guard:
            batch.specs += None, spec
            batch.keys += keys, keys
            batch.expected += IMMORTAL, expected
            self._more += 2
            self._out += (_pttls((keys,)), payload)
            size += GUARD_BYTES + len(keys)
        else:
            batch.specs.append(spec)
            batch.keys.append(keys)
            batch.expected.append(expected)
            self._more += 1
            self._out.append(payload)
        batch.effects += 1
        batch.size += size
        self.queued_bytes += size

    def singles(self, items: list[tuple[Any, ...]], expected: list[bytes], replied: float, guard: bool) -> None:
        """Effects that are SINGLEs of the lane, one right behind the other, so of one db: all that came with one read.
        They are put in the queue column by column, which is done in C (9 bytecodes for each of 16 SETs, where
        `as_sent` and what calls it take 185). All of them are guarded, or none.

        The guards stand in front of all effects, one for each key. That is sound, as no SINGLE gives its key a
        deadline: a key that has none when it is asked has none until the last effect, and the age of an answer is
        counted up to the batch's last.
        """
        db, count = items[0][5], len(items)
        payloads, keys = list(map(_payload, items)), list(map(_key, items))
        size = sum(map(len, payloads)) + sum(map(len, keys)) + sum(map(len, expected)) + BATCHED_BYTES * count
        if size >= MIN_MAX_BULK or self.queued_bytes + size > self._limit or not self._takes(db, size):
            for item, frame in zip(items, expected, strict=True):
                self.as_sent(item[:7], frame, replied, guard)
            return
        batch = self._batch(db, replied)
        if guard:
            size += self._guards(batch, dict.fromkeys(keys))
        batch.specs += map(_spec, items)
        batch.keys += keys
        batch.expected += expected
        batch.effects += count
        batch.size += size
        self.queued_bytes += size
        self._more += count
        self._out += payloads

    def _guards(self, batch: Batch, keys: Collection[bytes]) -> int:
        """Guards of a batch's next effects; the bytes to be counted."""
        batch.specs += [None] * len(keys)
        batch.keys += keys
        batch.expected += [IMMORTAL] * len(keys)
        self._more += len(keys)
        guards = _pttls(keys)
        self._out.append(guards)
        return len(guards) + GUARD_BYTES * len(keys)

    def run(self, db: int, run: Run, replied: float, guard: bool) -> None:
        """A pipeline of effects that are the client's commands themselves."""
        if not self._takes(db, len(run.payload)):
            self._drop(db, chain.from_iterable(run.columns[run.spec.key_columns]))
            return
        batch = self._batch(db, replied)
        size = len(run.payload) + _kept(run) + sum(map(len, run.frames))
        if guard:
            size += self._guards(batch, dict.fromkeys(run.columns[1]))
        count = len(run)
        batch.specs += [run.spec] * count
        batch.keys += run.keys
        batch.expected += run.frames
        batch.effects += count
        batch.size += size
        self.queued_bytes += size
        self._more += count
        self._out.append(run.payload)

    def _takes(self, db: int, size: int) -> bool:
        link = self.link
        if link is None or self.queued_bytes >= self._limit or db not in link.dbs:
            return False
        return size < MIN_MAX_BULK or not self._too_long(size)

    def _batch(self, db: int, replied: float) -> Batch:
        """The batch to which the next effect as sent belongs: the last one, if nothing has been queued since."""
        inflight, last = self._inflight, self._last
        if last is not None and inflight and inflight[-1] is last and db == self._db:
            return last[1]
        if db != self._db:
            self._select(db)
        self.seq += 1
        batch = Batch(self.seq, db, replied)
        batch.size = BATCH_BYTES
        self.queued_bytes += BATCH_BYTES
        self._last = (BATCH, batch)
        inflight.append(self._last)
        self._more -= 1
        return batch

    def effect(self, db: int, effect: Effect, replied: float) -> None:
        """A computed effect; more than one command goes as one MULTI/EXEC."""
        commands = effect.commands
        if not commands:
            return
        sizes = [len(arg) for command in commands for arg in command]
        if self.link is None or self.full or db not in self.link.dbs or self._too_long(max(sizes)):
            self._drop(db, effect.keys)
            if effect.barrier is not None and not self.retired:
                self.whole_db(f"{effect.barrier[0].decode()} could not be mirrored")
            return
        if db != self._db:
            self._select(db)
        self.seq += 1
        if not effect.was_absent:  # then an equal reply proves that it was absent here, too
            for key in effect.guard:
                self._guard(key)
        size = self._put(commands, sum(sizes) + sum(len(reply) for reply in effect.expected if reply is not None))
        self._inflight.append((EFFECT, self.seq, size, db, effect, replied, len(commands) > 1))

    def copy(self, place: Place, commands: Sequence[Sequence[bytes]], form: Form) -> int | None:
        """A state copy; its position in the queue, or None when it cannot be queued now."""
        if self.link is None or place[0] not in self.link.dbs:
            return None
        if place[0] != self._db:
            self._select(place[0])
        self.seq += 1
        size = self._put(commands)
        self._hurry = True
        self._inflight.append((COPY, self.seq, size, place, form, len(commands)))
        return self.seq

    def copies(self, places: list[Place], commands: list[bytes]) -> int | None:
        """State copies of keys of one db, each of which is one command (encoded); as `copy`."""
        db = places[0][0]
        if self.link is None or db not in self.link.dbs:
            return None
        if db != self._db:
            self._select(db)
        self.seq += 1
        size = sum(map(len, commands)) + OVERHEAD_BYTES
        self.queued_bytes += size
        self._out += commands
        self._hurry = True
        self._inflight.append((COPIES, self.seq, size, places, []))
        self._more += len(places) - 1
        return self.seq

    def call(self, db: int, commands: Sequence[Sequence[bytes]], callback: Callback) -> None:
        """Reads of our own at this point of the order, in a MULTI/EXEC; `callback` as for the lane."""
        if self.link is None or db not in self.link.dbs:
            callback(None)
            return
        if db != self._db:
            self._select(db)
        self._out.append(_MULTI)
        self._inflight.append((SWALLOW, "MULTI"))
        for args in commands:
            self._out.append(encode(args))
            self._inflight.append((SKIP,))
        self._out.append(_EXEC)
        self._inflight.append((CALL, callback))
        self._hurry = True

    def tell(self, args: Sequence[bytes]) -> None:
        """A command whose answer does not matter (SCRIPT LOAD, PUBLISH)."""
        if self.link is not None and not self.full:
            self._out.append(encode(args))
            self._inflight.append((SKIP,))

    def _put(self, commands: Sequence[Sequence[bytes]], kept: int = 0) -> int:
        """Encode, in MULTI/EXEC when there are several; the bytes counted, with those that are `kept` besides until the
        answer. The last frame's item is the caller's."""
        out = self._out
        start = len(out)
        if len(commands) > 1:
            out.append(_MULTI)
            self._inflight.append((SWALLOW, "MULTI"))
            for args in commands:
                out.append(encode(args))
                self._inflight.append((SKIP,))
            out.append(_EXEC)
        else:
            out.append(encode(commands[0]))
        size = sum(map(len, out[start:])) + kept + OVERHEAD_BYTES
        self.queued_bytes += size
        return size

    def _guard(self, key: bytes) -> None:
        self._out.append(encode((b"PTTL", key)))
        self._inflight.append((GUARD,))

    def _select(self, db: int) -> None:
        self._out.append(encode([b"SELECT", b"%d" % db]))
        self._inflight.append((SWALLOW, "SELECT"))
        self._db = db

    def _drop(self, db: int, keys: Iterable[bytes]) -> None:
        if self.retired:
            return
        self.dropped += 1
        reason = self.why_dropped(db)
        for key in keys:
            self.mark(db, key, reason, None)

    def _too_long(self, size: int) -> bool:
        """The mirror side would hang up on an argument of so many bytes."""
        return size > self._roles.mirror_facts.max_bulk

    def why_dropped(self, db: int) -> str:
        """Why nothing can be queued for this db now."""
        if self.link is None:
            return "mirror not connected"
        if db not in self.link.dbs:
            return f"the mirror side has no db {db}"
        return "mirror queue full"

    @property
    def gathered(self) -> bool:
        """There is something to send."""
        return bool(self._out)

    @property
    def pressing(self) -> bool:
        """Much has gathered, or something that is waited for: it should be sent now. Clients' writes by themselves can
        wait for more: to send them together saves 5 % of the CPU time of single SETs."""
        return self._hurry or len(self._out) >= MANY

    def flush(self) -> None:
        """Send what has gathered, at once."""
        self._hurry = False
        out = self._out
        if out and self.link is not None:
            self._out = []
            self._last = None  # under steady traffic a batch that grew on would never be answered to its end
            self.link.db = self._db
            if len(out) == 1:
                self.link.send(out[0])
            else:
                self.link.send_pieces(out)

    # -- replies -------------------------------------------------------------------------------------------------

    def on_frames(self, frames: list[bytes]) -> None:
        inflight = self._inflight
        self.answered += len(frames)
        item: tuple[Any, ...] = ()
        try:
            rest = iter(frames)
            for frame in rest:
                if frame[0] == _PUSH:
                    continue
                item = inflight.popleft()
                kind = item[0]
                if kind == BATCH:
                    batch = item[1]
                    self._answered_batch(item, [frame, *islice(rest, len(batch.keys) - len(batch.got) - 1)])
                elif kind == GUARD:
                    self.judge.guard(frame)
                elif kind == EFFECT:
                    self.queued_bytes -= item[2]
                    self.judge.effect(item, frame)
                elif kind == COPY:
                    self.queued_bytes -= item[2]
                    self._copied(item, frame)
                elif kind == COPIES:
                    self._answered_copies(item, [frame, *islice(rest, len(item[3]) - len(item[4]) - 1)])
                elif kind == CALL:
                    item[1](frame)
                elif kind == SKIP:
                    if frame[0] == _ERROR:
                        self.judge.refused = frame
                elif kind == SWALLOW and frame[0] == _ERROR:
                    text = frame[1:-2].decode(errors="replace")
                    if self.link is not None:
                        self.link.lose(f"{item[1]} refused: {text}")
                    return
        except Exception:
            if item:
                inflight.appendleft(item)  # a defect: what became of it is not known
            raise

    def _answered_batch(self, item: tuple[int, Batch], frames: list[bytes]) -> None:
        batch = item[1]
        batch.got += frames
        left = len(batch.keys) - len(batch.got)
        self._more -= len(frames) - (left == 0)
        if left:
            self._inflight.appendleft(item)
            return
        self.queued_bytes -= batch.size
        if batch.got != batch.expected:
            self.judge.batch(batch)
        else:
            self.judge.settled += batch.effects

    def _copied(self, item: tuple[Any, ...], frame: bytes) -> None:
        _, seq, _, place, form, count = item
        self.copied(place, seq, form, self.judge.copy(frame, count))

    def _differs(self, db: int, keys: Iterable[bytes], seq: int, reason: str) -> None:
        for key in keys:
            self.mark(db, key, reason, seq)

    def _answered_copies(self, item: tuple[Any, ...], frames: list[bytes]) -> None:
        _, seq, size, places, got = item
        got += frames
        left = len(places) - len(got)
        self._more -= len(frames) - (left == 0)
        if left:
            self._inflight.appendleft(item)
            return
        self.queued_bytes -= size
        self.copied_together(places, seq, got)

    def on_full(self, full: bool) -> None:
        """Its own byte limit is far higher; beyond that, effects become dirty keys."""

    def on_lost(self, link: Link, reason: str) -> None:
        """Everything not acknowledged is dirty: whether it was applied cannot be known."""
        if link is not self.link:
            return
        self.link = None
        inflight, self._inflight = list(self._inflight), deque()
        self.answered += len(inflight) + self._more
        self._more = 0
        self._out.clear()
        self.judge.forget()
        self.queued_bytes = 0
        for item in inflight:
            if item[0] == BATCH:
                for keys in item[1].keys:
                    for key in each(keys):
                        self.mark(item[1].db, key, "mirror connection lost", item[1].seq)
            elif item[0] == EFFECT:
                for key in item[4].keys:
                    self.mark(item[3], key, "mirror connection lost", item[1])
                if item[4].barrier is not None:
                    self.whole_db("mirror connection lost during " + item[4].barrier[0].decode())
            elif item[0] == CALL:
                item[1](None)
        self.lost(reason)


def _pttls(keys: Collection[bytes]) -> bytes:
    """A PTTL of each. Those of keys of one length begin the same, so that joining is all there is to do."""
    if len(set(map(len, keys))) > 1:
        return b"".join([_PTTL % len(key) + key + b"\r\n" for key in keys])
    head = _PTTL % len(next(iter(keys)))
    return head + (b"\r\n" + head).join(keys) + b"\r\n"


def _kept(run: Run) -> int:
    """Bytes that stay in memory of a pipeline besides its payload."""
    if run.spec.one_key:
        return len(run) * BATCHED_BYTES + sum(map(len, run.columns[1]))
    named = run.columns[run.spec.key_columns]
    for_each = BATCHED_BYTES + (KEY_BYTES * len(named) if len(named) > 1 else 0)
    return len(run) * for_each + sum(map(len, chain.from_iterable(named)))
