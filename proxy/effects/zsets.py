"""Effects of sorted-set, geo and vector-set commands.

0 from ZADD may hide an updated score: it goes as sent whatever the reply. Pops are removals of the members named.
"""

from __future__ import annotations

from proxy.effects.build import (
    AS_SENT,
    GUARDED,
    NOT_POSITIVE,
    STATE_COPY,
    aggregate,
    as_sent_guarded,
    computed,
    copy_of,
    derived,
    double,
    empty,
    first_key,
    integer,
    one,
    positive,
    read_options,
    texts,
    when,
)
from proxy.effects.compare import text
from proxy.effects.model import NOTHING, Context, Effect, Kind, Rule
from resp.frames import elements, is_null

ZADD_OPTIONS = frozenset({b"NX", b"XX", b"GT", b"LT", b"CH", b"INCR"})
GEORADIUS_ARITY = {
    b"WITHCOORD": 0,
    b"WITHDIST": 0,
    b"WITHHASH": 0,
    b"ASC": 0,
    b"DESC": 0,
    b"ANY": 0,
    b"COUNT": 1,
    b"STORE": 1,
    b"STOREDIST": 1,
}


def _zadd(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """With INCR the reply is the score, or nil when a condition was not met."""
    expected, i = frame, 2
    while (word := args[i].upper()) in ZADD_OPTIONS:
        if word == b"INCR":
            if is_null(frame):
                return NOTHING
            expected = double(frame)
        i += 1
    return one(args, expected, args[1:2], guard=args[1:2])


def _zincrby(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    return one(args, double(frame), args[1:2], guard=args[1:2])


def _removal(key: bytes, members: list[bytes]) -> Effect:
    return one((b"ZREM", key, *members), integer(len(members)), (key,))


def _zpop(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """Flat members and scores; pairs in RESP3 when a count was given."""
    parts = elements(frame)
    if not parts:
        return NOTHING
    members = [texts(pair)[0] for pair in parts] if aggregate(parts[0]) else [text(part) for part in parts[::2]]
    return _removal(args[1], members)


def _zmpop(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """ZMPOP and BZMPOP: [key, [[member, score] …]]."""
    if empty(frame):
        return NOTHING
    key, popped = elements(frame)
    return _removal(text(key), [texts(pair)[0] for pair in elements(popped)])


def _bzpop(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """BZPOPMIN and BZPOPMAX: [key, member, score]."""
    if empty(frame):
        return NOTHING
    key, member, _ = texts(frame)
    return _removal(key, [member])


def _georadius(first_option: int) -> Rule:
    """GEORADIUS and GEORADIUSBYMEMBER write only with STORE or STOREDIST, of which the last counts."""

    def compute(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
        options = read_options(args[first_option:], GEORADIUS_ARITY)
        targets = [options[name] for name in (b"STORE", b"STOREDIST") if name in options]
        return copy_of(ctx, *targets)  # with both, the copy of the other one is merely not needed

    return computed(compute, STATE_COPY + "; nothing without STORE or STOREDIST")


REMOVED = "ZREM of the members in the reply"

RULES: dict[bytes, Rule] = {
    b"BZMPOP": computed(_zmpop, REMOVED),
    b"BZPOPMAX": computed(_bzpop, REMOVED),
    b"BZPOPMIN": computed(_bzpop, REMOVED),
    b"GEOADD": as_sent_guarded(),  # scores are bit-identical on all versions
    b"GEORADIUS": _georadius(6),
    b"GEORADIUSBYMEMBER": _georadius(5),
    b"GEOSEARCHSTORE": derived(first_key),
    b"VADD": as_sent_guarded(),  # 0 hides a new vector; its links are random, the vectors are not
    b"VREM": when(positive),
    b"VSETATTR": when(positive),
    b"ZADD": computed(_zadd, AS_SENT + GUARDED, plain_argc=4, plain_kind=Kind.AS_SENT_GUARDED),
    b"ZDIFFSTORE": derived(first_key),  # the *STORE commands answer 0 when they deleted the key
    b"ZINCRBY": computed(_zincrby, "as sent, same score expected" + GUARDED),
    b"ZINTERSTORE": derived(first_key),
    b"ZMPOP": computed(_zmpop, REMOVED),
    b"ZPOPMAX": computed(_zpop, REMOVED),
    b"ZPOPMIN": computed(_zpop, REMOVED),
    b"ZRANGESTORE": derived(first_key),
    b"ZREM": when(positive, unchanged=NOT_POSITIVE),
    b"ZREMRANGEBYLEX": when(positive),
    b"ZREMRANGEBYRANK": when(positive),
    b"ZREMRANGEBYSCORE": when(positive),
    b"ZUNIONSTORE": derived(first_key),
}
