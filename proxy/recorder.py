"""From the reply of a write to the mirror queue: the one place where effects are appended.

Called by the lane for every write's reply, in lane order, and only then (invariant 2). Asks the effect rules what the
write did, hands commands to the mirror queue and keys that need a state copy to the repair. Counts what cannot be
mirrored at all, by command (invariant 12).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from proxy.cursors import Cursors
from proxy.effects import compute
from proxy.effects.model import ANY_ANSWER, Context, Effect, Kind
from proxy.items import SINGLE, WRITE, WRITES
from proxy.judging import DEADLINE_SLACK_MS
from proxy.mirror import Mirror
from proxy.scripts import LEARNT, Scripts
from resp.catalog import Route, Spec
from resp.encode import encode
from resp.frames import decode, elements, is_null
from resp.numbers import integer

if TYPE_CHECKING:
    from proxy.lane import Block
    from proxy.repair import Repair
    from proxy.roles import Roles

LATE_SECONDS = DEADLINE_SLACK_MS / 1000  # a relative expiry in flight for longer has no known deadline: state copy

BARRIERS = frozenset([b"FLUSHALL", b"FLUSHDB", b"SWAPDB"])  # they touch every key of one db or more

MAX_DBS = 2**31 - 1  # no server takes a higher db

COMPUTED, GUARDED, PUSHED = Kind.COMPUTED, Kind.AS_SENT_GUARDED, Kind.AS_SENT_PUSHED  # a look-up in the class is slow
_answers = itemgetter(8)  # of a SINGLE
_ERROR = ord("-")
_ARRAY = ord("*")
_DEADLINES = frozenset([b"PEXPIREAT", b"HPEXPIREAT", b"RESTORE"])


class Recorder:
    """Turns replies into effects."""

    def __init__(
        self, roles: Roles, mirror: Mirror, repair: Repair, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        self.unmirrored: Counter[str] = Counter()
        self.wanted: Counter[str] = Counter()  # writes that the serving side does not know, but the mirror side does
        self.scripts = Scripts()
        self.cursors = Cursors()
        self.script_done: Callable[[], None] = lambda: None  # told of a script that was answered, or lost
        self.scripts_done: Callable[[int], None] = lambda count: None  # of those in a block
        self.now = 0.0
        self._roles = roles
        self._mirror = mirror
        self._repair = repair
        self._clock = clock
        self._wall = wall
        self._contexts: dict[tuple[int, int], Context] = {}
        self._paged = repair.copies_in_pages.paged  # keys whose effects need thought

    def __repr__(self) -> str:
        return f"<Recorder unmirrored={dict(self.unmirrored)}>"

    def tick(self) -> None:
        """A new batch of replies: time has moved on."""
        self.now = self._clock()
        self._contexts.clear()

    def _context(self, db: int, resp: int) -> Context:
        context = self._contexts.get((db, resp))
        if context is None:
            roles = self._roles
            context = self._contexts[db, resp] = Context(
                db=db,
                resp=resp,
                now_ms=roles.mirror_now_ms(self._wall() * 1000),
                clock_shift_ms=roles.shift_ms,
                source=roles.serving_facts.commands,
                mirror=roles.mirror_facts.commands,
                serving_version=roles.serving_facts.version,
                mirror_version=roles.mirror_facts.version,
            )
        return context

    # -- the lane's replies --------------------------------------------------------------------------------------

    def singles(self, items: list[tuple[Any, ...]], frames: list[bytes]) -> None:
        """The replies of SINGLEs, in their order: in one go, if they all mean the same. (A guard in front of two pushes
        of which the first has made the list would say that there is none, and cost a copy.)"""
        if self._paged or _may_have_errors(frames):
            for item, frame in zip(items, frames, strict=True):
                self.write(item[:7], frame)
            return
        all_answers = list(map(_answers, items))
        answers = all_answers[0]
        proven = frames.count(answers.proof) if answers.proof is not ANY_ANSWER else len(frames)
        if (
            all_answers.count(answers) == len(items)
            and proven in (0, len(items))
            and answers.unchanged.isdisjoint(frames)
        ):
            self._mirror.singles(items, frames, self.now, not proven)
            return
        for item, answers, frame in zip(items, all_answers, frames, strict=True):
            if frame not in answers.unchanged:
                self._mirror.as_sent(item[:7], frame, self.now, answers.guards(frame))

    def write(self, item: tuple[Any, ...], frame: bytes) -> None:
        """The reply of a single write."""
        spec, args = item[3], item[4]
        rule = spec.rule
        kind = COMPUTED if rule is None else rule.plain_kind if len(args) == rule.plain_argc else rule.kind
        if kind is not COMPUTED and not self._paged:
            if frame[0] != _ERROR:
                guard = kind is GUARDED or (kind is PUSHED and frame != b":%d\r\n" % (len(args) - 2))
                self._mirror.as_sent(item, frame, self.now, guard)
            else:
                self.note_unknown(spec)
            return
        _, session, _, _, _, db, sent = item
        if frame[0] == _ERROR:
            self.note_unknown(spec)
        if spec.route is Route.SCRIPT:
            self.script_done()
        self.answered(spec, args, frame, db, session.resp, sent)

    def run(self, item: tuple[Any, ...]) -> None:
        """The replies of a pipeline of writes that are mirrored as sent."""
        _, session, run, db, sent = item
        frames, spec = run.frames, run.spec
        answers = spec.rule.answers[len(run.columns)]
        if self._paged or _may_have_errors(frames):
            for args, frame in zip(run.commands(), frames, strict=True):
                self.write((WRITE, session, encode(args), spec, args, db, sent), frame)
        elif not answers.unchanged.isdisjoint(frames):
            for args, frame in zip(run.commands(), frames, strict=True):
                if frame not in answers.unchanged:
                    item = (WRITE, session, encode(args), spec, args, db, sent)
                    self._mirror.as_sent(item, frame, self.now, answers.guards(frame))
        else:
            proven = answers.proof is ANY_ANSWER or frames.count(answers.proof) == len(frames)
            self._mirror.run(db, run, self.now, not proven)

    def note_unknown(self, spec: Spec) -> None:
        """A command failed, or will: does only the other side know it? (Of a subcommand, before 7.0, only the container
        is listed.)"""
        here, there = self._roles.serving_facts.commands, self._roles.mirror_facts.commands
        if spec.name in there and here.isdisjoint((spec.name, spec.name.partition(b" ")[0])):
            self.wanted[spec.name.decode()] += 1

    def answered(self, spec: Spec, args: list[bytes], frame: bytes, db: int, resp: int, sent: float) -> None:
        """A write on the lane was answered with `frame` (RESP version `resp`)."""
        effect = self._compute(spec, args, frame, self._context(db, resp))
        self._learn(spec, args, frame, db)
        self.append(db, effect, late=self.now - sent > LATE_SECONDS)

    def _compute(self, spec: Spec, args: list[bytes], frame: bytes, context: Context) -> Effect:
        effect = compute(spec, args, frame, context)
        if effect.copies and self._paged:
            effect = self._repair.copies_in_pages.spare(spec.name, effect)
        return effect

    def append(self, db: int, effect: Effect, *, late: bool) -> None:
        """Queue an effect; `late`: its time in flight was too long for a relative deadline to be known."""
        if self._paged:
            effect = self._repair.copies_in_pages.divert(db, effect)
            late = late and not all((db, key) in self._paged for key in effect.keys)  # the next page has the deadline
        if effect.commands:
            self._mirror.effect(db, effect, self.now)
            if effect.barrier is not None:
                self._barrier(db, effect.barrier)
        for place in effect.copies:
            self._repair.mark(place, "state copy", lag=True)
        if late and effect.relative:
            for key in effect.keys:
                self._repair.mark((db, key), "expiry set by a command that was long in flight")
        if effect.unmirrored and not self._mirror.retired:
            self.unmirrored[effect.unmirrored] += 1

    def block(self, item: tuple[Any, ...], frame: bytes) -> None:
        """The reply of EXEC: all of the block's effects as one, or none."""
        _, session, block, db, sent = item
        if block.scripts:
            self.scripts_done(block.scripts)
        if frame[0] == _ERROR or is_null(frame):
            return
        self.committed(block, elements(frame), db, session.resp, sent)

    def committed(self, block: Block, replies: list[bytes], db: int, resp: int, sent: float) -> None:
        """A block on the lane was executed with these replies."""
        context = self._context(db, resp)
        effects = []
        for (spec, args), reply in zip(block.commands, replies, strict=True):
            if spec.writes or spec.name in LEARNT or spec.route is Route.CURSOR:
                effects.append(self._compute(spec, args, reply, context))
                self._learn(spec, args, reply, db)
        late = self.now - sent > LATE_SECONDS
        batch: list[Effect] = []
        for effect in effects:
            if effect.barrier is not None:  # a barrier stays an effect of its own
                self._append_merged(db, batch, late=late)
                batch = []
                self.append(db, effect, late=late)
            elif effect.commands or effect.copies or effect.unmirrored:
                batch.append(effect)
        self._append_merged(db, batch, late=late)

    def _append_merged(self, db: int, effects: list[Effect], *, late: bool) -> None:
        if len(effects) == 1:
            self.append(db, effects[0], late=late)
        elif effects:
            self.append(db, merge(effects, db), late=late)

    def _learn(self, spec: Spec, args: list[bytes], frame: bytes, db: int) -> None:
        """What a flip will need: scripts in use must be known to the mirror side (invariant 7), and which side gave a
        cursor."""
        if spec.route is Route.CURSOR:
            if frame[0] == _ARRAY:
                self.cursors.given(db, spec.name, args, decode(elements(frame)[0]), self._roles.serving)
            return
        body = self.scripts.learn(spec.name, args, ok=frame[0] != _ERROR)
        if body is not None:
            self._mirror.tell([b"SCRIPT", b"LOAD", body])

    def _barrier(self, db: int, barrier: tuple[bytes, ...]) -> None:
        if barrier[0].upper() == b"SWAPDB":
            self._repair.swapped(int(barrier[1]), int(barrier[2]))
        else:
            self._repair.flushed(db if barrier[0].upper() == b"FLUSHDB" else None)

    # -- other connections ---------------------------------------------------------------------------------------

    def lost_write(self, item: tuple[Any, ...], reason: str) -> None:
        """A write, or a client's block, was in flight on the lane when its connection broke."""
        if item[0] in (SINGLE, WRITE):
            _, _, _, spec, args, db = item[:6]
            if spec.route is Route.SCRIPT:
                self.script_done()
            self.unknown_outcome(spec, args, db, reason)
            return
        if item[0] == WRITES:
            _, _, run, db, _ = item
            for args in run.commands():
                self.unknown_outcome(run.spec, args, db, reason)
            return
        _, _, block, db, _ = item
        if block.scripts:
            self.scripts_done(block.scripts)
        for spec, args in block.commands:
            if spec.writes:
                self.unknown_outcome(spec, args, db, reason)

    def copied_all(self, before: Counter[str]) -> None:
        """Every key has been copied since `before` was taken of `unmirrored`: that much is settled."""
        self.unmirrored -= before

    def executed_elsewhere(self, spec: Spec, args: list[bytes], frame: bytes, db: int, resp: int) -> None:
        """A write without keys was answered on another connection: a message or a script is mirrored, as its order
        among data does not matter; anything else has no place in the order."""
        if spec.rule is not None and spec.name not in BARRIERS:
            self.tick()
            self.answered(spec, args, frame, db, resp, self.now)
        elif frame[0] != _ERROR:
            self.keyless(spec, "executed on a connection of its own")

    def unknown_outcome(self, spec: Spec, args: list[bytes], db: int, reason: str) -> None:
        """A write of which nobody knows whether, or in which order, it was executed (invariants 4, 5)."""
        places = self.places(spec, args, db)
        for place in places:
            self._repair.mark_unordered(place, reason)
        if not places:
            self.keyless(spec, reason)

    def keyless(self, spec: Spec, reason: str) -> None:
        """A write without known keys whose place in the order is unknown."""
        name = spec.name.decode(errors="replace")
        if spec.name in BARRIERS:
            self._mirror.whole_db(f"{name}: {reason}")
        elif spec.rule is None and not self._mirror.retired:
            self.unmirrored[f"{name}: keys unknown"] += 1

    def reaches_unknown_keys(self, spec: Spec) -> bool:
        """Whether a write without known keys may change data all the same: whole-db commands, and those that only the
        server knows."""
        return spec.name in BARRIERS or (spec.rule is None and spec.name in self._roles.serving_facts.commands)

    def places(self, spec: Spec, args: list[bytes], db: int) -> list[tuple[int, bytes]]:
        """Every (db, key) that a write may touch; MOVE and COPY … DB reach another db."""
        places = [(db, key) for key in spec.keys(args)]
        other = other_db(spec.name, args)
        if other is not None:
            places += [(other, key) for _, key in places]
        return places


class Plain:
    """Stands in for the recorder on the lane while nothing is mirrored: looks only at what is not about mirroring (who
    gave a cursor, which scripts ran)."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.tick = recorder.tick
        self.block = recorder.block

    def __repr__(self) -> str:
        return f"<Plain {self._recorder!r}>"

    def write(self, item: tuple[Any, ...], frame: bytes) -> None:
        """The reply of a single write."""
        if item[3].route is not Route.WRITE:
            self._recorder.write(item, frame)

    def singles(self, items: list[tuple[Any, ...]], frames: list[bytes]) -> None:
        """The replies of SINGLEs: of mirroring only."""

    def run(self, item: tuple[Any, ...]) -> None:
        """The replies of a pipeline of writes: of mirroring only."""


def _may_have_errors(frames: list[bytes]) -> bool:
    """Looked for in C. A value that has a line with a `-` in front is taken for one, too."""
    joined = b"".join(frames)
    return joined[0] == _ERROR or b"\n-" in joined


def other_db(name: bytes, args: list[bytes]) -> int | None:
    """The destination db of MOVE and COPY … DB, which no key spec tells."""
    db = None
    if name == b"MOVE" and len(args) > 2:
        db = integer(args[2])
    elif name == b"COPY":
        for index in range(3, len(args) - 1):
            if args[index].upper() == b"DB":
                db = integer(args[index + 1])
    return db if db is not None and 0 <= db < MAX_DBS else None


def merge(effects: Iterable[Effect], db: int) -> Effect:
    """The effects of one EXEC as one effect. A key whose deadline the block itself sets and that is then built upon is
    copied: on the mirror side it may expire between the two."""
    effects = list(effects)
    deadlines = {key for effect in effects if sets_deadline(effect) for key in effect.keys}
    guards = dict.fromkeys(key for effect in effects if not effect.was_absent for key in effect.guard)
    copies = dict.fromkeys(place for effect in effects for place in effect.copies)
    copies.update(dict.fromkeys((db, key) for key in guards if key in deadlines))
    return Effect(
        commands=tuple(command for effect in effects for command in effect.commands),
        expected=tuple(reply for effect in effects for reply in effect.expected),
        keys=tuple(dict.fromkeys(key for effect in effects for key in effect.keys)),
        guard=tuple(guards),
        copies=tuple(copies),
        relative=any(effect.relative for effect in effects),
        unmirrored="; ".join(effect.unmirrored for effect in effects if effect.unmirrored),
    )


def sets_deadline(effect: Effect) -> bool:
    """Whether one of the commands gives its key, or a field of it, a deadline."""
    return any(command[0] in _DEADLINES or b"PXAT" in command for command in effect.commands)
