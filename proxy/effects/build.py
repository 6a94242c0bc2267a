"""The small parts that rules are made of.

Owns: looking at a reply, reading options and deadlines, and the usual shapes of an effect and of a rule. Refuses to
know: single commands.

When a key must be guarded: only when the command could *create* it on the mirror side. If a key has expired on one
side only, a command that needs its key to exist gives it away by its reply (LSET an error, SREM 0 for 1), or changed
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from proxy.effects.compare import AGGREGATES, text
from proxy.effects.model import NOTHING, Command, Compute, Context, Effect, Kind, Rewrite, Rule
from resp.frames import elements, is_error, is_null

OK = b"+OK\r\n"
ONE = b":1\r\n"
EMPTY = frozenset({b"*0\r\n", b"~0\r\n", b"%0\r\n"})

KeysOf = Callable[[list[bytes]], Iterable[bytes]]

# How rules are described where they say nothing of their own; docs/commands.md explains the words
AS_SENT = "as sent, same reply expected"
IF_CHANGED = "as sent when it changed something, same reply expected"
GUARDED = "; expiry guard"
STATE_COPY = "state copy of the destination"

# -- replies ----------------------------------------------------------------------------------------------------------


def empty(frame: bytes) -> bool:
    """Nil, or an aggregate without elements."""
    return is_null(frame) or frame in EMPTY


def positive(frame: bytes) -> bool:
    """An integer above zero, or true."""
    return (frame[:1] == b":" and frame[1:2] not in b"-0") or frame == b"#t\r\n"


NOT_POSITIVE = frozenset([b":0\r\n"])  # of what counts elements


def aggregate(frame: bytes) -> bool:
    return frame[0] in AGGREGATES


def integer(number: int) -> bytes:
    return b":%d\r\n" % number


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def array(frames: Sequence[bytes]) -> bytes:
    return b"*%d\r\n%b" % (len(frames), b"".join(frames))


def double(frame: bytes) -> bytes:
    """A score in any RESP version, marked as a number: its text differs between server versions."""
    return b",%b\r\n" % text(frame)


def texts(frame: bytes) -> list[bytes]:
    """The elements of an aggregate of scalars."""
    return [text(part) for part in elements(frame)]


# -- options and deadlines --------------------------------------------------------------------------------------------

TIMES: dict[bytes, tuple[int, bool]] = {  # option: (milliseconds of its unit, relative)
    b"EX": (1000, True),
    b"PX": (1, True),
    b"EXAT": (1000, False),
    b"PXAT": (1, False),
}


def read_options(words: Sequence[bytes], arity: dict[bytes, int]) -> dict[bytes, bytes]:
    """Options in any case with their (last) argument; `arity` tells how many each has. Unknown: ValueError."""
    found: dict[bytes, bytes] = {}
    i = 0
    while i < len(words):
        name = words[i].upper()
        if name not in arity:
            raise ValueError(f"unknown option {name!r}")
        i += 1 + arity[name]
        found[name] = words[i - 1]
    return found


def deadline(option: bytes, value: bytes, ctx: Context) -> int:
    """The moment in the mirror's clock, in ms, that this time option means. Not before 1: 0 is no deadline to RESTORE,
    and SET refuses what is below."""
    unit, relative = TIMES[option]
    return max(1, int(value) * unit + (ctx.now_ms if relative else ctx.clock_shift_ms))


def time_option(options: Iterable[bytes]) -> bytes | None:
    """Which of the time options was given; a server accepts only one."""
    return next((name for name in options if name in TIMES), None)


def is_relative(option: bytes | None) -> bool:
    return option is not None and TIMES[option][1]


def digits(number: int) -> bytes:
    return b"%d" % number


# -- effects ----------------------------------------------------------------------------------------------------------


def first_key(args: list[bytes]) -> Sequence[bytes]:
    return args[1:2]


def one(
    command: Iterable[bytes], expected: bytes | None, keys: Iterable[bytes], *, guard: Iterable[bytes] = ()
) -> Effect:
    """One command."""
    return Effect((tuple(command),), (expected,), tuple(keys), tuple(guard))


def several(commands: Sequence[Command], expected: Sequence[bytes | None], keys: Iterable[bytes]) -> Effect:
    """Commands that belong together; NOTHING without any."""
    return Effect(tuple(commands), tuple(expected), tuple(keys)) if commands else NOTHING


def copy_of(ctx: Context, *keys: bytes) -> Effect:
    """State copies of keys of the current db, each key once; NOTHING without any."""
    return Effect(copies=tuple((ctx.db, key) for key in dict.fromkeys(keys))) if keys else NOTHING


# -- rules ------------------------------------------------------------------------------------------------------------


def as_sent(keys: KeysOf = first_key) -> Rule:
    """Whatever the reply: the same command. Its keys' prior state does not matter, or shows in the reply."""

    def compute(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
        return NOTHING if is_error(frame) else one(args, frame, keys(args))

    return Rule(Kind.AS_SENT, compute, AS_SENT)


def as_sent_guarded() -> Rule:
    """Whatever the reply: the same command, which creates its key when there is none."""

    def compute(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
        return NOTHING if is_error(frame) else one(args, frame, args[1:2], guard=args[1:2])

    return Rule(Kind.AS_SENT_GUARDED, compute, AS_SENT + GUARDED)


def when(
    changed: Callable[[bytes], bool],
    *,
    keys: KeysOf = first_key,
    guard: bool = False,
    expect: Callable[[bytes], bytes | None] = lambda frame: frame,
    text: str = IF_CHANGED,
    unchanged: frozenset[bytes] = frozenset(),
) -> Rule:
    """The same command if the reply says that something changed. Guarded keys are all of `keys`. `unchanged`, for
    speed: every answer but errors that is not `changed`; with one key, and the same answer expected."""

    def compute(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
        if is_error(frame) or not changed(frame):
            return NOTHING
        written = tuple(keys(args))
        return one(args, expect(frame), written, guard=written if guard else ())

    return Rule(Kind.COMPUTED, compute, text + GUARDED if guard else text, unchanged=unchanged, guarded=guard)


def becomes(
    changed: Callable[[bytes], bool], command: Callable[[list[bytes]], Command], expected: bytes | None, text: str
) -> Rule:
    """Another command on the same key, which does not depend on the key's prior state, if the reply says changed."""

    def compute(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
        if is_error(frame) or not changed(frame):
            return NOTHING
        return one(command(args), expected, args[1:2])

    return Rule(Kind.COMPUTED, compute, text)


def derived(keys: KeysOf, changed: Callable[[bytes], bool] = lambda frame: True) -> Rule:
    """The result depends on other keys, which may not be equal yet: what was written is state-copied."""

    def compute(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
        return NOTHING if is_error(frame) or not changed(frame) else copy_of(ctx, *keys(args))

    return Rule(Kind.COMPUTED, compute, STATE_COPY)


def computed(
    compute: Compute,
    text: str,
    rewrite: Rewrite | None = None,
    *,
    kind: Kind = Kind.COMPUTED,
    plain_argc: int = 0,
    plain_kind: Kind = Kind.AS_SENT,
) -> Rule:
    """A function that is only asked when the reply is not an error."""

    def without_errors(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
        return NOTHING if is_error(frame) else compute(args, frame, ctx)

    return Rule(kind, without_errors, text, rewrite, plain_argc, plain_kind)
