"""Effects of string commands, bit fields and HyperLogLogs.

A SET that changed something replaces the key: its conditions are dropped and its deadline becomes absolute, so it is
right whatever the mirror held before. Commands that build on the old value go as sent, guarded.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.effects.build import (
    AS_SENT,
    GUARDED,
    IF_CHANGED,
    OK,
    ONE,
    TIMES,
    as_sent,
    as_sent_guarded,
    becomes,
    computed,
    copy_of,
    deadline,
    derived,
    digits,
    is_relative,
    one,
    positive,
    read_options,
    time_option,
)
from proxy.effects.compare import text
from proxy.effects.model import NOTHING, Command, Context, Effect, Kind, Rule
from resp.frames import is_error, is_null

TIME_ARITY = {b"EX": 1, b"PX": 1, b"EXAT": 1, b"PXAT": 1}
CONDITIONS = {b"NX": 0, b"XX": 0, b"IFEQ": 1, b"IFNE": 1, b"IFDEQ": 1, b"IFDNE": 1}
SET_ARITY = {b"GET": 0, b"KEEPTTL": 0} | CONDITIONS | TIME_ARITY
GETEX_ARITY = {b"PERSIST": 0} | TIME_ARITY
MSETEX_ARITY = {b"NX": 0, b"XX": 0, b"KEEPTTL": 0} | TIME_ARITY


def _set(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    if is_error(frame):
        return NOTHING
    if len(args) == 3:
        return one(args, frame, args[1:2])
    if len(args) == 5 and (option := args[3].upper()) in TIMES:  # a cache's usual form, here for its speed
        command = (b"SET", args[1], args[2], b"PXAT", digits(deadline(option, args[4], ctx)))
        return Effect((command,), (OK,), (args[1],), relative=TIMES[option][1])
    options = read_options(args[3:], SET_ARITY)
    changed = _set_changed(options, frame)
    if changed is None:
        return copy_of(ctx, args[1])
    return _put([(args[1], args[2])], options, ctx) if changed else NOTHING


def _set_changed(options: Mapping[bytes, bytes], frame: bytes) -> bool | None:
    """Whether a SET with options took place; None when its reply cannot tell (a digest of the old value)."""
    if b"GET" not in options:
        return not is_null(frame)
    condition = next((name for name in options if name in CONDITIONS), b"")
    if not condition:
        return True
    if condition in (b"NX", b"XX"):
        return is_null(frame) is (condition == b"NX")
    if condition in (b"IFEQ", b"IFNE"):
        matched = not is_null(frame) and text(frame) == options[condition]
        return matched is (condition == b"IFEQ")
    return None


def _put(pairs: list[tuple[bytes, bytes]], options: Mapping[bytes, bytes], ctx: Context) -> Effect:
    """Unconditional SETs with an absolute deadline; a deadline that is kept is prior state."""
    tail: Command = ()
    option = time_option(options)
    if option is not None:
        tail = (b"PXAT", digits(deadline(option, options[option], ctx)))
    elif b"KEEPTTL" in options:
        tail = (b"KEEPTTL",)
    keys = tuple(dict.fromkeys(key for key, _ in pairs))
    return Effect(
        commands=tuple((b"SET", key, value, *tail) for key, value in pairs),
        expected=(OK,) * len(pairs),
        keys=keys,
        guard=keys if b"KEEPTTL" in options else (),
        relative=is_relative(option),
    )


def _setex(option: bytes) -> Rule:
    """SETEX and PSETEX: key, time, value."""
    return computed(lambda args, frame, ctx: _put([(args[1], args[3])], {option: args[2]}, ctx), "SET with PXAT")


def _msetex(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    if not positive(frame):
        return NOTHING
    end = 2 + 2 * int(args[1])
    return _put(list(zip(args[2:end:2], args[3:end:2], strict=True)), read_options(args[end:], MSETEX_ARITY), ctx)


def _getex(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    if is_null(frame):
        return NOTHING
    key, options = args[1], read_options(args[2:], GETEX_ARITY)
    if b"PERSIST" in options:  # its reply is the same for "was persistent already" and "no such key": guarded
        return one((b"PERSIST", key), None, (key,), guard=(key,))
    option = time_option(options)
    if option is None:
        return NOTHING
    command = (b"PEXPIREAT", key, digits(deadline(option, options[option], ctx)))
    return Effect((command,), (ONE,), (key,), relative=is_relative(option))


def _incrbyfloat(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """The result is stored, not added up again: long doubles differ between processors."""
    key = args[1]
    return one((b"SET", key, text(frame), b"KEEPTTL"), OK, (key,), guard=(key,))


def _bitfield(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """GET takes two arguments, SET and INCRBY three, OVERFLOW one. Some may have failed (nil) and others not."""
    arity = {b"GET": 2, b"SET": 3, b"INCRBY": 3, b"OVERFLOW": 1}
    i = 2
    while i < len(args):
        word = args[i].upper()
        if word in (b"SET", b"INCRBY"):
            return one(args, frame, args[1:2], guard=args[1:2])
        i += 1 + arity.get(word, len(args))
    return NOTHING


def _pfcount(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """With one key it stores the cardinality it found in the key's bytes. It never creates the key."""
    return one(args, frame, args[1:2]) if len(args) == 2 else NOTHING


def _pfadd(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    return one(args, frame, args[1:2], guard=args[1:2]) if positive(frame) else NOTHING


def _pfdebug(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """PFDEBUG subcommand key: GETREG and TODENSE convert the key."""
    return NOTHING if args[1].upper() in (b"ENCODING", b"DECODE") else copy_of(ctx, args[2])


def _deleted(args: list[bytes]) -> Command:
    return (b"DEL", args[1])


def _present(frame: bytes) -> bool:
    return not is_null(frame)


DELETED = "DEL when the key was deleted"
PUT = "as sent; with options: SET when it took place, with PXAT or KEEPTTL (expiry guard)"

RULES: dict[bytes, Rule] = {
    b"APPEND": as_sent_guarded(),  # "" creates an empty string and answers 0
    b"BITFIELD": computed(_bitfield, AS_SENT + GUARDED + "; nothing if it only gets"),
    b"BITOP": derived(lambda args: args[2:3]),  # 0: deleted
    b"DECR": as_sent_guarded(),
    b"DECRBY": as_sent_guarded(),
    b"DELEX": becomes(positive, _deleted, None, DELETED),  # Redis 8.4, documentation only
    b"DELIFEQ": becomes(positive, _deleted, None, DELETED),
    b"GETDEL": becomes(_present, _deleted, None, DELETED),
    b"GETEX": computed(_getex, "PEXPIREAT, or PERSIST with an expiry guard; nothing without an option"),
    b"GETSET": becomes(lambda frame: True, lambda args: (b"SET", args[1], args[2]), OK, "SET"),
    b"INCR": as_sent_guarded(),
    b"INCRBY": as_sent_guarded(),
    b"INCRBYFLOAT": computed(_incrbyfloat, "SET of the result with KEEPTTL" + GUARDED),
    b"MSET": as_sent(lambda args: args[1::2]),
    b"MSETEX": computed(_msetex, "a SET of each key when it took place, with PXAT or KEEPTTL (expiry guard)"),
    b"MSETNX": computed(
        lambda args, frame, ctx: one((b"MSET", *args[1:]), OK, args[1::2]) if positive(frame) else NOTHING,
        "MSET when it took place",
    ),
    b"PFADD": computed(_pfadd, IF_CHANGED + GUARDED),
    b"PFCOUNT": computed(_pfcount, AS_SENT + " (it caches the result in the key); nothing with several keys"),
    b"PFDEBUG": computed(_pfdebug, "state copy of the key"),
    b"PFMERGE": derived(lambda args: args[1:2]),
    b"PSETEX": _setex(b"PX"),
    b"SET": Rule(Kind.COMPUTED, _set, PUT, plain_argc=3),
    b"SETBIT": as_sent_guarded(),  # answers the old bit, creates the key even to write a 0
    b"SETEX": _setex(b"EX"),
    b"SETNX": becomes(positive, lambda args: (b"SET", args[1], args[2]), OK, "SET when it took place"),
    b"SETRANGE": as_sent_guarded(),
}
