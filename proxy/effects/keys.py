"""Effects of commands on keys of any type: deletion, expiry, renaming, copying, restoring, sorting.

RENAME, COPY, MOVE and SORT … STORE build on keys that may not be equal yet: what they wrote is state-copied.
"""

from __future__ import annotations

from proxy.effects.build import (
    IF_CHANGED,
    OK,
    ONE,
    STATE_COPY,
    becomes,
    computed,
    copy_of,
    deadline,
    digits,
    is_relative,
    one,
    positive,
    read_options,
    when,
)
from proxy.effects.model import NOTHING, Command, Context, Effect, Kind, Rule
from resp.frames import is_error

COPY_ARITY = {b"DB": 1, b"REPLACE": 0}
RESTORE_ARITY = {b"REPLACE": 0, b"ABSTTL": 0, b"IDLETIME": 1, b"FREQ": 1}
MIGRATE_ARITY = {b"COPY": 0, b"REPLACE": 0, b"AUTH": 1, b"AUTH2": 2}
SORT_ARITY = {b"BY": 1, b"LIMIT": 2, b"GET": 1, b"ASC": 0, b"DESC": 0, b"ALPHA": 0, b"STORE": 1}


def _expire(option: bytes) -> Rule:
    """EXPIRE and its family. The reply 1 says that the conditions were met: they are dropped."""

    def compute(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
        if not positive(frame):
            return NOTHING
        relative = is_relative(option)
        if relative and int(args[2]) <= 0:  # deleted there and then
            return one((b"DEL", args[1]), None, args[1:2])
        command = (b"PEXPIREAT", args[1], digits(deadline(option, args[2], ctx)))
        return Effect((command,), (ONE,), (args[1],), relative=relative)

    negative = "; DEL for a time not above 0" if is_relative(option) else ""
    return computed(compute, "PEXPIREAT when it took effect" + negative)


def _rename(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """RENAME a a answers OK and does nothing; RENAMENX answers 0 when it did nothing."""
    if args[1] == args[2] or frame == b":0\r\n":
        return NOTHING
    return copy_of(ctx, args[1], args[2])


def _move(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    if not positive(frame):
        return NOTHING
    return Effect(copies=((ctx.db, args[1]), (int(args[2]), args[1])))


def _copy(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    if not positive(frame):
        return NOTHING
    db = read_options(args[3:], COPY_ARITY).get(b"DB")
    return Effect(copies=((ctx.db if db is None else int(db), args[2]),))


def _restore(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """RESTORE key ttl payload: absolute and replacing. A payload that the mirror refuses makes the key dirty."""
    key, ttl, payload = args[1:4]
    options = read_options(args[4:], RESTORE_ARITY)
    relative = int(ttl) > 0 and b"ABSTTL" not in options
    if int(ttl):
        ttl = digits(deadline(b"PX" if relative else b"PXAT", ttl, ctx))
    command: Command = (b"RESTORE", key, ttl, payload, b"REPLACE", b"ABSTTL")
    return Effect((command,), (OK,), (key,), relative=relative)


def _migrate(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """MIGRATE host port key|"" db timeout […] [KEYS key…]. On an error some of the keys may have been moved."""
    words = [word.upper() for word in args]
    by_keyword = words.index(b"KEYS", 6) if not args[3] and b"KEYS" in words[6:] else len(args)
    keys = args[by_keyword + 1 :] or args[3:4]
    if is_error(frame):
        return copy_of(ctx, *keys)
    if frame[:6] == b"+NOKEY" or b"COPY" in read_options(args[6:by_keyword], MIGRATE_ARITY):
        return NOTHING
    return one((b"DEL", *keys), None, keys)


def _sort(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """The last STORE counts. An empty result deleted the key."""
    target = read_options(args[2:], SORT_ARITY).get(b"STORE")
    return NOTHING if target is None else copy_of(ctx, target)


def _any_answer(frame: bytes) -> None:
    """Whatever DEL answers, the keys are gone."""


DELETION = when(positive, keys=lambda args: args[1:], expect=_any_answer, text="as sent when it deleted something")
RESTORED = "RESTORE with REPLACE and ABSTTL"

RULES: dict[bytes, Rule] = {
    b"COPY": computed(_copy, STATE_COPY),
    b"DEL": DELETION,
    b"EXPIRE": _expire(b"EX"),
    b"EXPIREAT": _expire(b"EXAT"),
    b"MIGRATE": Rule(Kind.COMPUTED, _migrate, "DEL of the keys moved; state copy after an error"),
    b"MOVE": computed(_move, "state copy of the key in both databases when it was moved"),
    b"PERSIST": becomes(positive, lambda args: (b"PERSIST", args[1]), ONE, IF_CHANGED),
    b"PEXPIRE": _expire(b"PX"),
    b"PEXPIREAT": _expire(b"PXAT"),
    b"RENAME": computed(_rename, "state copy of both keys"),
    b"RENAMENX": computed(_rename, "state copy of both keys when it took place"),
    b"RESTORE": computed(_restore, RESTORED),
    b"RESTORE-ASKING": computed(_restore, RESTORED),
    b"SORT": computed(_sort, STATE_COPY + "; nothing without STORE"),
    b"UNLINK": DELETION,
}
