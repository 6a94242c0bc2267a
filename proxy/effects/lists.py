"""Effects of list commands.

Pops name their elements in the reply, so what was popped from the front or the back is popped there again, and the
reply compared. A move between two lists is not taken for derived: its reply shows the element, both ends are guarded.
"""

from __future__ import annotations

from proxy.effects.build import (
    AS_SENT,
    GUARDED,
    aggregate,
    as_sent,
    computed,
    digits,
    empty,
    one,
    positive,
    when,
)
from proxy.effects.compare import text
from proxy.effects.model import NOTHING, Command, Context, Effect, Kind, Rule
from resp.frames import elements, is_null

POPS = {b"LEFT": b"LPOP", b"RIGHT": b"RPOP"}


def _push(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """A list is never empty: if it is now as long as what was pushed, there was none."""
    key = (args[1],)
    return Effect((tuple(args),), (frame,), key, key, was_absent=text(frame) == digits(len(args) - 2))


def _filled(frame: bytes) -> bool:
    return not empty(frame)


def _blocking_pop(name: bytes) -> Rule:
    """BLPOP and BRPOP: the reply names the key."""

    def compute(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
        if is_null(frame):
            return NOTHING
        key, element = elements(frame)
        return one((name, text(key)), element, (text(key),))

    return computed(compute, f"{name.decode()} of the key that was served, same element expected")


def _multi_pop(first: int) -> Rule:
    """LMPOP and BLMPOP: … numkeys key… LEFT|RIGHT [COUNT n], `first` being the index of numkeys."""

    def compute(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
        if is_null(frame):
            return NOTHING
        name, popped = elements(frame)
        pop = POPS.get(args[first + 1 + int(args[first])].upper())
        if pop is None or not aggregate(popped):
            raise ValueError("neither LEFT nor RIGHT")
        return one((pop, text(name), digits(len(elements(popped)))), popped, (text(name),))

    return computed(compute, "LPOP or RPOP with the number popped, same elements expected")


def _blocking_move(name: bytes, end: int) -> Rule:
    """BLMOVE and BRPOPLPUSH: the same without the timeout."""

    def compute(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
        if is_null(frame):
            return NOTHING
        command: Command = (name, *args[1:end])
        return one(command, frame, args[1:3], guard=args[1:3])

    return computed(compute, f"{name.decode()}, same reply expected" + GUARDED)


NOTHING_POPPED = frozenset([b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"*0\r\n"])
PUSHED = AS_SENT + GUARDED + " unless the reply proves a new list"
MOVE = when(_filled, keys=lambda args: args[1:3], guard=True)

RULES: dict[bytes, Rule] = {
    b"BLMOVE": _blocking_move(b"LMOVE", 5),
    b"BLMPOP": _multi_pop(2),
    b"BLPOP": _blocking_pop(b"LPOP"),
    b"BRPOP": _blocking_pop(b"RPOP"),
    b"BRPOPLPUSH": _blocking_move(b"RPOPLPUSH", 3),
    b"LINSERT": when(positive),
    b"LMOVE": MOVE,
    b"LMPOP": _multi_pop(1),
    b"LPOP": when(_filled, unchanged=NOTHING_POPPED),
    b"LPUSH": computed(_push, PUSHED, kind=Kind.AS_SENT_PUSHED),
    b"LPUSHX": when(positive),
    b"LREM": when(positive),
    b"LSET": as_sent(),
    b"LTRIM": as_sent(),  # OK says nothing; a list that has expired here only is about to expire there
    b"RPOP": when(_filled, unchanged=NOTHING_POPPED),
    b"RPOPLPUSH": MOVE,
    b"RPUSH": computed(_push, PUSHED, kind=Kind.AS_SENT_PUSHED),
    b"RPUSHX": when(positive),
}
