"""Effects beyond single keys: whole databases, and messages.

FLUSHALL, FLUSHDB and SWAPDB are barriers: what is pending for their databases has to be dropped or re-labelled.
"""

from __future__ import annotations

from proxy.effects.build import OK, computed
from proxy.effects.model import Context, Effect, Rule


def _barrier(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    command = tuple(args)
    return Effect((command,), (OK,), barrier=(command[0].upper(), *command[1:]))


def _message(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """The number of receivers differs between the sides by right."""
    return Effect((tuple(args),), (None,))


def _unseen(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    return Effect(unmirrored="it deletes keys that cannot be named")


BARRIER = "as sent, as a barrier: pending copies of the databases are dropped or renumbered"
MESSAGE = "as sent, any answer (the sides differ in subscribers)"

RULES: dict[bytes, Rule] = {
    b"CLUSTER FLUSHSLOT": computed(_unseen, "not possible: its keys cannot be named"),
    b"FLUSHALL": computed(_barrier, BARRIER),
    b"FLUSHDB": computed(_barrier, BARRIER),
    b"PUBLISH": computed(_message, MESSAGE),
    b"SPUBLISH": computed(_message, MESSAGE),
    b"SWAPDB": computed(_barrier, BARRIER),
}
