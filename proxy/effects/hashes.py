"""Effects of hash commands, with the deadlines of single fields.

A field can expire on one side only, as a key can, and the expiry guard does not see it. So what builds on a field's old
value or deadline is sent such that the reply shows the old value; where none would, the hash is state-copied.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.effects.build import (
    GUARDED,
    IF_CHANGED,
    NOT_POSITIVE,
    ONE,
    array,
    as_sent_guarded,
    bulk,
    computed,
    copy_of,
    deadline,
    digits,
    is_relative,
    one,
    positive,
    read_options,
    texts,
    time_option,
    when,
)
from proxy.effects.compare import text
from proxy.effects.model import NOTHING, Command, Context, Effect, Rule
from resp.frames import elements, is_null

TIME_ARITY = {b"EX": 1, b"PX": 1, b"EXAT": 1, b"PXAT": 1}
HEXPIRE_ARITY = {b"NX": 0, b"XX": 0, b"GT": 0, b"LT": 0}
HGETEX_ARITY = {b"PERSIST": 0} | TIME_ARITY
HSETEX_ARITY = {b"FNX": 0, b"FXX": 0, b"NX": 0, b"XX": 0, b"KEEPTTL": 0} | TIME_ARITY


def _read(args: list[bytes], start: int, arity: dict[bytes, int], width: int = 1) -> tuple[dict[bytes, bytes], Command]:
    """The options, and the `n * width` words behind FIELDS n; options may stand on either side of them."""
    at = start
    while args[at].upper() != b"FIELDS":
        at += 1 + arity[args[at].upper()] if args[at].upper() in arity else len(args)
    end = at + 2 + int(args[at + 1]) * width
    return read_options([*args[start:at], *args[end:]], arity), tuple(args[at + 2 : end])


def _with_fields(head: Command, fields: Sequence[bytes], width: int = 1) -> Command:
    return (*head, b"FIELDS", digits(len(fields) // width), *fields)


def _hexpire(option: bytes) -> Rule:
    """HEXPIRE and its family. Per field: 1 set, 2 deleted at once, 0 condition not met, -2 no such field."""

    def compute(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
        if is_null(frame):
            return NOTHING
        key, answers = args[1], texts(frame)
        _, fields = _read(args, 3, HEXPIRE_ARITY)
        timed = [field for field, answer in zip(fields, answers, strict=True) if answer == b"1"]
        dropped = [field for field, answer in zip(fields, answers, strict=True) if answer == b"2"]
        commands: list[Command] = []
        expected: list[bytes | None] = []
        if timed:
            moment = digits(deadline(option, args[2], ctx))
            commands.append(_with_fields((b"HPEXPIREAT", key, moment), timed))
            expected.append(array([ONE] * len(timed)))
        if dropped:
            commands.append((b"HDEL", key, *dropped))
            expected.append(None)
        if not commands:
            return NOTHING
        return Effect(tuple(commands), tuple(expected), (key,), relative=bool(timed) and is_relative(option))

    return computed(compute, "by the reply: HPEXPIREAT of the fields timed, HDEL of the fields deleted")


def _hpersist(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    changed = not is_null(frame) and b"1" in texts(frame)
    return one(args, frame, args[1:2]) if changed else NOTHING


def _present(args: list[bytes], frame: bytes, fields: Sequence[bytes]) -> dict[bytes, bytes]:
    """Each field that was there, with its value's frame."""
    if is_null(frame):
        return {}
    return {field: value for field, value in zip(fields, elements(frame), strict=True) if not is_null(value)}


def _hgetex(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """The fields that were there, as HGETEX again: its reply shows that they were there on the mirror side too."""
    options, fields = _read(args, 2, HGETEX_ARITY)
    present = _present(args, frame, fields)
    option = time_option(options)
    if not present or (option is None and b"PERSIST" not in options):
        return NOTHING
    change = (b"PERSIST",) if option is None else (b"PXAT", digits(deadline(option, options[option], ctx)))
    command = _with_fields((b"HGETEX", args[1], *change), tuple(present))
    return Effect((command,), (array(tuple(present.values())),), (args[1],), relative=is_relative(option))


def _hgetdel(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    _, fields = _read(args, 2, {})
    present = _present(args, frame, fields)
    return one((b"HDEL", args[1], *present), None, args[1:2]) if present else NOTHING


def _hsetex(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """1: all fields set, conditions dropped. A past deadline deleted them; a kept one is not visible in any reply."""
    if not positive(frame):
        return NOTHING
    key = args[1]
    options, pairs = _read(args, 2, HSETEX_ARITY, width=2)
    if b"KEEPTTL" in options:
        return copy_of(ctx, key)
    option = time_option(options)
    if option is None:
        return one((b"HSET", key, *pairs), None, (key,), guard=(key,))
    moment = deadline(option, options[option], ctx)
    if moment <= ctx.now_ms:
        return one((b"HDEL", key, *pairs[::2]), None, (key,))
    command = _with_fields((b"HSETEX", key, b"PXAT", digits(moment)), pairs, width=2)
    return Effect((command,), (ONE,), (key,), (key,), relative=is_relative(option))


def _hincrbyfloat(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """The result is stored, for long doubles differ between processors. But HSET would clear the field's deadline:
    where fields have one, the command goes as sent and the result is compared."""
    key, field = args[1:3]
    if ctx.knows(b"HPEXPIREAT"):
        return one(args, bulk(text(frame)), (key,), guard=(key,))
    return one((b"HSET", key, field, text(frame)), None, (key,), guard=(key,))


def _hsetnx(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    return one((b"HSET", *args[1:]), ONE, args[1:2], guard=args[1:2]) if positive(frame) else NOTHING


RULES: dict[bytes, Rule] = {
    b"HDEL": when(positive, unchanged=NOT_POSITIVE),
    b"HEXPIRE": _hexpire(b"EX"),
    b"HEXPIREAT": _hexpire(b"EXAT"),
    b"HGETDEL": computed(_hgetdel, "HDEL of the fields that were there"),
    b"HGETEX": computed(_hgetex, "HGETEX of the fields that were there, with PXAT or PERSIST"),
    b"HINCRBY": as_sent_guarded(),  # an expired field shows in the reply, unless its value was 0
    b"HINCRBYFLOAT": computed(_hincrbyfloat, "as sent, or HSET of the result where fields have no deadlines" + GUARDED),
    b"HMSET": as_sent_guarded(),
    b"HPERSIST": computed(_hpersist, IF_CHANGED),
    b"HPEXPIRE": _hexpire(b"PX"),
    b"HPEXPIREAT": _hexpire(b"PXAT"),
    b"HSET": as_sent_guarded(),  # 0 hides new values
    b"HSETEX": computed(_hsetex, "HSETEX with PXAT, HSET or HDEL; state copy with KEEPTTL" + GUARDED),
    b"HSETNX": computed(_hsetnx, "HSET when it took place" + GUARDED),
}
