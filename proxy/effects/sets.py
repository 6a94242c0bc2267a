"""Effects of set commands. SPOP is random: what its reply names is removed."""

from __future__ import annotations

from proxy.effects.build import (
    GUARDED,
    IF_CHANGED,
    NOT_POSITIVE,
    ONE,
    aggregate,
    computed,
    derived,
    empty,
    first_key,
    integer,
    one,
    positive,
    texts,
    when,
)
from proxy.effects.compare import text
from proxy.effects.model import NOTHING, Context, Effect, Rule


def _spop(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    if empty(frame):
        return NOTHING
    members = texts(frame) if aggregate(frame) else [text(frame)]
    return one((b"SREM", args[1], *members), integer(len(members)), args[1:2])


def _smove(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """SMOVE a a answers 1 and does nothing."""
    if not positive(frame) or args[1] == args[2]:
        return NOTHING
    return one(args, ONE, args[1:3], guard=args[1:3])


RULES: dict[bytes, Rule] = {
    b"SADD": when(positive, guard=True, unchanged=NOT_POSITIVE),
    b"SDIFFSTORE": derived(first_key),  # the *STORE commands answer 0 when they deleted the key
    b"SINTERSTORE": derived(first_key),
    b"SMOVE": computed(_smove, IF_CHANGED + GUARDED),
    b"SPOP": computed(_spop, "SREM of the members in the reply"),
    b"SREM": when(positive, unchanged=NOT_POSITIVE),
    b"SUNIONSTORE": derived(first_key),
}
