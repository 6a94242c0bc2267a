"""The lane: one pipelined connection to the serving side, shared by every session. Its reply order is the log.

Owns the order: everything sent on the connection has exactly one item per reply in `_pending`. Inserts SELECT and HELLO
where the next command's session differs from the connection's context. What a write *means* is the recorder's
business. Invariants 2 (effects in lane order, only after the reply) and 10 (only encoded, screened commands).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import hiredis

from proxy.items import CALL, EXEC, FORWARD, READ, READS, SELECTED, SINGLE, SKIP, SWALLOW, WRITE, WRITES, Run
from resp.catalog import Route, Spec
from resp.commands import CommandParser
from resp.encode import encode
from resp.frames import decode, elements

if TYPE_CHECKING:
    from proxy.bigkeys.copying import Ask, Copies, Copy
    from proxy.dirty import Place
    from proxy.effects.model import Answers
    from proxy.link import Link
    from proxy.recorder import Plain, Recorder
    from proxy.session import Session

Callback = Callable[[bytes | None], None]

_ERROR = ord("-")
_PUSH = ord(">")
_HELLO = {2: encode([b"HELLO", b"2"]), 3: encode([b"HELLO", b"3"])}
_MULTI = encode([b"MULTI"])
_EXEC = encode([b"EXEC"])


class Block:
    """A client's whole MULTI … EXEC: specs and arguments as sent."""

    __slots__ = ("asks", "commands", "scripts")

    def __init__(self, commands: list[tuple[Spec, list[bytes]]]) -> None:
        self.commands = commands
        self.asks: list[Ask] = []  # reads of our own between them (see bigkeys/copying.py)
        self.scripts = sum(spec.route is Route.SCRIPT for spec, _ in commands)

    def __repr__(self) -> str:
        return f"<Block {[spec.name for spec, _ in self.commands]}>"

    def without_asks(self, frame: bytes) -> bytes:
        """The EXEC reply as the client would have got it; those who asked get theirs."""
        replies = elements(frame)
        if len(replies) != len(self.commands) + len(self.asks):
            return frame  # nothing was executed
        for before, (index, _, tell) in enumerate(self.asks):
            reply = decode(replies[index + before])
            if not isinstance(reply, hiredis.ReplyError):
                tell(reply)
        ours = {index + before for before, (index, _, _) in enumerate(self.asks)}
        kept = [reply for position, reply in enumerate(replies) if position not in ours]
        return b"*%d\r\n%b" % (len(kept), b"".join(kept))


class Lane:
    """The order of execution on the serving side."""

    recorder: Recorder | Plain

    def __init__(self, on_lost: Callable[[LaneLoss], None], on_full: Callable[[bool], None]) -> None:
        self._on_full = on_full
        self.link: Link | None = None
        self._on_lost = on_lost
        self.copies: Copies | None = None
        self.paged: dict[Place, Copy] = {}  # keys of which a copy in pages is under way
        self.answered = 0  # replies so far, lost ones included
        self._unnoted: list[bytes] = []  # keys of SINGLEs that the journal does not know (see Hub.serve)
        self._unnoted_db = 0  # theirs
        self._unnoted_of_others: list[tuple[int, list[bytes]]] = []
        self._pending: deque[tuple[Any, ...]] = deque()
        self._more = 0  # replies of pipelines, beyond one for each item
        self._out: list[bytes] = []
        self._db = 0
        self._resp = 2

    def __repr__(self) -> str:
        return f"<Lane {self.link!r} pending={len(self._pending)}>"

    @property
    def idle(self) -> bool:
        """Nothing awaited."""
        return not self._pending

    @property
    def pending(self) -> int:
        """Replies awaited."""
        return len(self._pending) + self._more

    @property
    def asked(self) -> int:
        """Commands sent so far: everything up to here is answered once `answered` has come that far."""
        return self.answered + self.pending

    def attach(self, link: Link) -> None:
        """Use this connection from now on. Only when nothing is awaited."""
        assert not self._pending
        self._out.clear()
        self.link = link
        link.owner = self
        self._db, self._resp = link.db, link.resp

    def detach(self) -> Link | None:
        """Give the connection away (flip). Only when nothing is awaited."""
        assert not self._pending
        link, self.link = self.link, None
        return link

    def abandon(self) -> None:
        """Give up what is awaited, by closing the connection (a forced flip)."""
        if self._pending and self.link is not None:
            self.link.lose("given up by a forced flip")

    # -- sending -------------------------------------------------------------------------------------------------

    def read(self, session: Session, payload: bytes) -> None:
        """A command that changes nothing."""
        if session.db != self._db or session.resp != self._resp:
            self._context(session.db, session.resp)
        self._out.append(payload)
        self._pending.append((READ, session, payload, session.db))
        session.owed += 1

    def write(self, session: Session, spec: Spec, args: list[bytes], payload: bytes, now: float) -> None:
        """A command that may change data; `args` and `payload` are what is sent."""
        if self.paged and self.copies is not None:
            self.copies.before(args, session.db)
        if session.db != self._db or session.resp != self._resp:
            self._context(session.db, session.resp)
        self._out.append(payload)
        self._pending.append((WRITE, session, payload, spec, args, session.db, now))
        session.owed += 1

    def single(
        self, session: Session, spec: Spec, args: list[bytes], payload: bytes, now: float, answers: Answers
    ) -> None:
        """A write of just `args[1]` that is mirrored as sent, if at all. Who calls notes nothing: the keys are given by
        `unnoted`, many at once."""
        db, key = session.db, args[1]
        if self.paged and self.copies is not None:
            self.copies.before(args, db)
        if db != self._db or session.resp != self._resp:
            self._context(db, session.resp)
        if db != self._unnoted_db:
            self._set_aside(db)
        self._unnoted.append(key)
        self._out.append(payload)
        self._pending.append((SINGLE, session, payload, spec, args, db, now, key, answers))
        session.owed += 1

    def _set_aside(self, db: int) -> None:
        if self._unnoted:
            self._unnoted_of_others.append((self._unnoted_db, self._unnoted))
            self._unnoted = []
        self._unnoted_db = db

    def unnoted(self) -> list[tuple[int, list[bytes]]]:
        """Keys, by db, of the writes that were put in the lane by `single` since the last call."""
        self._set_aside(self._unnoted_db)
        found = self._unnoted_of_others
        if found:
            self._unnoted_of_others = []
        return found

    def reads(self, session: Session, payload: bytes, count: int) -> None:
        """A pipeline of commands that change nothing."""
        if session.db != self._db or session.resp != self._resp:
            self._context(session.db, session.resp)
        self._out.append(payload)
        self._pending.append((READS, session, payload, session.db, count))
        self._more += count - 1
        session.owed += count

    def writes(self, session: Session, run: Run, now: float) -> None:
        """A pipeline of writes of one shape."""
        if session.db != self._db or session.resp != self._resp:
            self._context(session.db, session.resp)
        self._out.append(run.payload)
        self._pending.append((WRITES, session, run, session.db, now))
        self._more += run.awaited - 1
        session.owed += run.awaited

    def block(self, session: Session, block: Block, now: float) -> None:
        """A whole MULTI block, contiguous."""
        self._context(session.db, session.resp)
        if self.paged and self.copies is not None:
            block.asks = self.copies.inside((args for _, args in block.commands), session.db)
        self._out.append(_MULTI)
        forward = (FORWARD, session)
        if block.asks:
            self._pending.append(forward)
            self._with_asks(block, forward)
        else:
            self._out.extend(encode(args) for _, args in block.commands)
            self._pending.extend(forward for _ in range(len(block.commands) + 1))
        self._out.append(_EXEC)
        self._pending.append((EXEC, session, block, session.db, now))
        session.owed += len(block.commands) + 2

    def _with_asks(self, block: Block, forward: tuple[Any, ...]) -> None:
        """The commands of a block with reads of our own in front of some, whose QUEUED nobody gets."""
        asks = {index: asked for index, asked, _ in block.asks}
        for index, (_, args) in enumerate(block.commands):
            if index in asks:
                self._out.append(encode(asks[index]))
                self._pending.append((SKIP,))
            self._out.append(encode(args))
            self._pending.append(forward)

    def select(self, session: Session, db: int) -> None:
        """A client's SELECT of a db: really sent, so that its answer is the server's. The session is in the new db at
        once when the server is known to have it, otherwise with the answer."""
        self._context(session.db, session.resp)
        known = self.link is not None and db in self.link.dbs
        if known:
            session.db = db
        self._out.append(encode([b"SELECT", b"%d" % db]))
        self._pending.append((SELECTED, session, db, not known))
        self._db = db  # should it be refused, `_selected` sets the context right
        session.owed += 1

    def call(
        self,
        db: int,
        commands: Sequence[Sequence[bytes]],
        callback: Callback,
        *,
        resp: int = 2,
        on_queued: Callback | None = None,
    ) -> None:
        """Commands of our own, in one MULTI/EXEC; `callback` gets the EXEC reply, or None when the link is lost.
        `on_queued` gets what each command was answered when it was queued ("+QUEUED", or why not)."""
        if self.link is None:
            callback(None)
            return
        self._context(db, resp)
        out, pending = self._out, self._pending
        out.append(_MULTI)
        pending.append((SWALLOW, "MULTI"))
        queued = (SKIP,) if on_queued is None else (CALL, on_queued)
        for args in commands:
            out.append(encode(args))
            pending.append(queued)
        out.append(_EXEC)
        pending.append((CALL, callback))

    def ask(self, db: int, args: Sequence[bytes], callback: Callback) -> None:
        """A command of our own, as it is; None as in `call`."""
        if self.link is None:
            callback(None)
            return
        self._context(db, self._resp)
        self._out.append(encode(args))
        self._pending.append((CALL, callback))

    def _context(self, db: int, resp: int) -> None:
        if resp != self._resp:
            self._out.append(_HELLO[resp])
            self._pending.append((SWALLOW, "HELLO"))
            self._resp = resp
        if db != self._db:
            self._out.append(encode([b"SELECT", b"%d" % db]))
            self._pending.append((SWALLOW, "SELECT"))
            self._db = db

    def flush(self) -> None:
        """Send what has gathered, at once."""
        out = self._out
        if out and self.link is not None:
            self._out = []
            self.link.db, self.link.resp = self._db, self._resp
            if len(out) == 1:
                self.link.send(out[0])
            else:
                self.link.send_pieces(out)

    def replay(self, reads: list[tuple[Any, ...]]) -> None:
        """Send reads again that a lost connection did not answer. They are owed already."""
        for item in reads:
            session = item[1]
            if not session.open:
                continue
            session.owed -= 1
            if self.link is not None and item[0] != SELECTED and item[3] not in self.link.dbs:
                session.close()  # this server does not have its db: the command would run in another one
                continue
            if item[0] == SELECTED:
                self.select(session, item[2])
                continue
            db, session.db = session.db, item[3]  # the db it was meant for
            if item[0] == READ:
                self.read(session, item[2])
            else:
                session.owed -= item[4] - 1
                for args in CommandParser().feed(item[2])[-item[4] :]:
                    self.read(session, encode(args))
            session.db = db

    # -- replies -------------------------------------------------------------------------------------------------

    def on_frames(self, frames: list[bytes]) -> None:
        pending, recorder = self._pending, self.recorder
        recorder.tick()
        self.answered += len(frames)
        item: tuple[Any, ...] = ()
        singles: list[tuple[Any, ...]] = []  # whose effects are put in the mirror queue together
        answers: list[bytes] = []
        try:
            rest = iter(frames)
            for frame in rest:
                if frame[0] == _PUSH:
                    continue  # nothing on the lane subscribes to anything
                item = pending.popleft()
                kind = item[0]
                if kind <= FORWARD:
                    item[1].reply(frame)
                    continue
                if kind == SINGLE:
                    item[1].reply(frame)
                    singles.append(item)
                    answers.append(frame)
                    continue
                if singles:
                    recorder.singles(singles, answers)
                    singles, answers = [], []
                if kind == WRITE:
                    item[1].reply(frame)
                    recorder.write(item, frame)
                elif kind == READS:
                    self._answered_reads(item, [frame, *islice(rest, item[4] - 1)])
                elif kind == WRITES:
                    self._answered_writes(item, [frame, *islice(rest, item[2].awaited - 1)])
                elif kind == CALL:
                    item[1](frame)
                elif kind == EXEC:
                    if item[2].asks:
                        frame = item[2].without_asks(frame)
                    item[1].reply(frame)
                    recorder.block(item, frame)
                elif kind == SELECTED:
                    self._selected(item[1], item[2], item[3], frame)
                elif kind == SWALLOW and frame[0] == _ERROR:
                    self._refused(item[1], frame)
                    return
            if singles:
                recorder.singles(singles, answers)
        except Exception:
            if item and not (singles and item is singles[-1]):
                pending.appendleft(item)  # a defect: what became of it is not known
            pending.extendleft(reversed(singles))
            raise

    def _answered_reads(self, item: tuple[Any, ...], frames: list[bytes]) -> None:
        _, session, payload, db, awaited = item
        session.replies(frames)
        left = awaited - len(frames)
        self._more -= len(frames) - (left == 0)
        if left:
            self._pending.appendleft((READS, session, payload, db, left))

    def _answered_writes(self, item: tuple[Any, ...], frames: list[bytes]) -> None:
        """Its effect is one, at the point of the last reply: nothing else stands between them."""
        run = item[2]
        item[1].replies(frames)
        run.awaited -= len(frames)
        run.frames += frames
        self._more -= len(frames) - (run.awaited == 0)
        if run.awaited:
            self._pending.appendleft(item)
        else:
            self.recorder.run(item)

    def _selected(self, session: Session, db: int, awaited: bool, frame: bytes) -> None:
        if frame[0] != _ERROR:
            if awaited:
                session.db = db
            if self.link is not None:
                self.link.dbs.add(db)
        else:  # the connection is still in the session's old db, whatever has been queued since has put that right
            self._db = -1
        session.reply(frame)

    def _refused(self, what: str, frame: bytes) -> None:
        """The server refused what the context needs: nothing behind it can be trusted to be where it should."""
        if self.link is not None:
            text = frame[1:-2].decode(errors="replace")
            self.link.lose(f"{what} refused: {text}")

    def on_full(self, full: bool) -> None:
        self._on_full(full)

    def on_lost(self, link: Link, reason: str) -> None:
        if link is not self.link:
            return
        self.link = None
        pending, self._pending = list(self._pending), deque()
        self.answered += len(pending) + self._more
        self._more = 0
        self._out.clear()
        self._on_lost(LaneLoss(reason, pending))


class LaneLoss:
    """What was in flight when the lane's connection broke, sorted by what has to happen with it."""

    __slots__ = ("callbacks", "doomed", "reads", "reason", "selects", "writes")

    def __init__(self, reason: str, pending: list[tuple[Any, ...]]) -> None:
        self.reason = reason
        self.writes: list[tuple[Any, ...]] = [item for item in pending if item[0] in (SINGLE, WRITE, WRITES, EXEC)]
        self.callbacks: list[Callback] = [item[1] for item in pending if item[0] == CALL]
        self.doomed: set[Session] = {item[1] for item in pending if item[0] in (FORWARD, SINGLE, WRITE, WRITES, EXEC)}
        self.reads: list[tuple[Any, ...]] = [
            item for item in pending if item[0] in (READ, READS, SELECTED) and item[1] not in self.doomed
        ]

    def __repr__(self) -> str:
        return f"<LaneLoss {self.reason!r} writes={len(self.writes)} reads={len(self.reads)}>"

    def refuse(self, frame: bytes) -> None:
        """There is nobody to ask again: each read is answered with this error."""
        for item in self.reads:
            item[1].replies([frame] * (item[4] if item[0] == READS else 1))
        self.reads.clear()
