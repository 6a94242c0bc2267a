"""The words of this package: what a rule is told (Context), what it answers (Effect), and where it is listed (Rule).

Owns: these values, nothing else. Refuses to know: any command, how an effect is sent, what becomes of a dirty key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from resp.plain import MAX_ARGS

Command = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Context:
    """What surrounds one reply. Names are upper case, subcommands as b"XGROUP CREATE"; an empty set of names means
    that the server was not asked (then every command is tried, and an error makes the key dirty)."""

    db: int
    resp: int  # 2 or 3: the RESP version in which the reply is encoded
    now_ms: int  # the mirror's own clock at the moment of the reply
    source: frozenset[bytes] = frozenset()  # commands of the serving side
    mirror: frozenset[bytes] = frozenset()  # commands of the mirror side
    serving_version: tuple[str, int, int] = ("redis", 6, 2)
    mirror_version: tuple[str, int, int] = ("redis", 6, 2)
    clock_shift_ms: int = 0  # mirror clock minus serving clock: absolute deadlines move by it

    def knows(self, name: bytes) -> bool:
        """Whether the mirror side may be sent this (upper-case) command."""
        return not self.mirror or name in self.mirror


@dataclass(frozen=True, slots=True)
class Effect:
    """What a write did, in terms of the mirror side. `commands` and `copies` never name the same key.

    `expected` has one frame per command, in whichever RESP version (compare with `same_reply`). None means that any
    answer but an error shows the command to have worked, as for DEL: the key is gone, whether it was there or not.
    """

    commands: tuple[Command, ...] = ()  # deterministic, in order; more than one belongs in MULTI/EXEC
    expected: tuple[bytes | None, ...] = ()
    keys: tuple[bytes, ...] = ()  # written by `commands`; dirty when a reply is not as expected
    guard: tuple[bytes, ...] = ()  # keys whose prior state the commands build on: the expiry guard asks their PTTL
    was_absent: bool = False  # the reply proves that the guarded key did not exist before
    copies: tuple[tuple[int, bytes], ...] = ()  # (db, key) to be state-copied
    barrier: Command | None = None  # FLUSHALL, FLUSHDB, SWAPDB: the command
    unmirrored: str = ""  # not empty: why nothing can be done
    relative: bool = False  # a deadline was counted from `now_ms`: no more exact than the command's time in flight


NOTHING = Effect()  # the write changed nothing


class Kind(IntEnum):
    """How much thought a reply needs."""

    AS_SENT = 0  # every reply but an error: the same command, the same reply expected
    AS_SENT_GUARDED = 1  # the same, and it builds on what its key, args[1], held before
    AS_SENT_PUSHED = 2  # guarded, unless the reply is the number of elements pushed: then the list is new
    COMPUTED = 3  # `Rule.compute` decides


ANY_ANSWER = b"*"
"""In the place of a proof: no guard is due, whatever the answer is."""

NO_ANSWER = b""
"""In the place of a proof: a guard is always due."""


class Answers(NamedTuple):
    """What the answers to a command that is mirrored as sent mean."""

    proof: bytes  # this one proves that the key is new: no guard is due
    unchanged: frozenset[bytes]  # after these nothing is mirrored

    def guards(self, frame: bytes) -> bool:
        """Whether a guard is due."""
        return self.proof not in (ANY_ANSWER, frame)


Compute = Callable[[list[bytes], bytes, Context], Effect]
Rewrite = Callable[[list[bytes]], list[bytes]]


@dataclass(frozen=True, slots=True)
class Rule:
    """How the effect of one command is known.

    `compute` is right for every kind; the other kinds merely allow to do without it. It may raise ValueError or
    IndexError for arguments it cannot read (a newer server's options): `proxy.effects.compute` turns that into a copy.
    """

    kind: Kind
    compute: Compute
    text: str  # how the command is mirrored, in a few words, for docs/commands.md
    rewrite: Rewrite | None = None  # applied before the command is forwarded; `compute` sees the result
    plain_argc: int = 0  # with exactly so many arguments, name included, the kind is `plain_kind`
    plain_kind: Kind = Kind.AS_SENT
    unchanged: frozenset[bytes] = frozenset()
    """Not empty: after one of these answers nothing is mirrored, after any other the command as sent, with the same
    answer expected. It has one key, which is `guarded` or not. (So `compute` need not be asked: 617 bytecodes for an
    SADD instead of 1550.)"""
    guarded: bool = False
    answers: tuple[Answers | None, ...] = field(init=False, repr=False)
    """By the number of arguments, name included, as far as a plain chunk goes; None: `compute` is asked. A table, as it
    is looked at for every write."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", tuple(map(self._answers, range(MAX_ARGS + 1))))

    def kind_of(self, argc: int) -> Kind:
        """The kind of a call with so many arguments, name included."""
        return self.plain_kind if argc == self.plain_argc else self.kind

    def _answers(self, argc: int) -> Answers | None:
        proof = self._proof(argc) if argc > 1 else None
        return None if proof is None else Answers(proof, self.unchanged)

    def _proof(self, argc: int) -> bytes | None:
        if self.unchanged:
            return NO_ANSWER if self.guarded else ANY_ANSWER
        match self.kind_of(argc):
            case Kind.AS_SENT:
                return ANY_ANSWER
            case Kind.AS_SENT_GUARDED:
                return NO_ANSWER
            case Kind.AS_SENT_PUSHED:
                return b":%d\r\n" % (argc - 2)
            case Kind.COMPUTED:
                return None
