"""Effects of scripts and functions: never replayed, for they may be random or read the clock.

The declared keys are state-copied, also when the script failed: what it wrote before stays. What it wrote without
declaring is invisible here. Scripts and libraries themselves are made known to the mirror side.
"""

from __future__ import annotations

from proxy.effects.build import copy_of
from proxy.effects.model import NOTHING, Context, Effect, Kind, Rule
from resp.frames import is_error

NO_WRITES = b"no-writes"


def declared_keys(args: list[bytes]) -> list[bytes]:
    """EVAL script numkeys key…; none where the server refuses the number."""
    try:
        count = int(args[2])
    except (ValueError, IndexError):
        return []
    return args[3 : 3 + count] if 0 < count <= len(args) - 3 else []


def _script(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    if promises_no_writes(args[1]) and ctx.serving_version[1:] >= (7, 0):
        return NOTHING
    return _call(args, frame, ctx)


def _call(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    return copy_of(ctx, *declared_keys(args))


def promises_no_writes(script: bytes) -> bool:
    """The first line of a script of 7.0 and later: #!lua flags=no-writes,allow-stale. The server enforces it."""
    if not script.startswith(b"#!"):
        return False
    words = script.split(b"\n", 1)[0].split()
    return any(word.startswith(b"flags=") and NO_WRITES in word[6:].split(b",") for word in words)


def _told(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """Sent along; no key depends on the answer."""
    return NOTHING if is_error(frame) else Effect((tuple(args),), (None,))


def _library(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """FUNCTION LOAD [REPLACE] code, FUNCTION RESTORE payload [policy]."""
    if is_error(frame):
        return NOTHING
    if not ctx.knows(b"FUNCTION"):
        return Effect(unmirrored="the mirror side has no functions")
    if args[1].upper() == b"LOAD":
        return Effect(((b"FUNCTION", b"LOAD", b"REPLACE", args[-1]),), (None,))
    return Effect((tuple(args),), (None,))


COPIED = "state copy of the declared keys, also after an error"
TOLD = "as sent, any answer"

RULES: dict[bytes, Rule] = {
    b"EVAL": Rule(Kind.COMPUTED, _script, COPIED + "; nothing for flags=no-writes"),
    b"EVALSHA": Rule(Kind.COMPUTED, _call, COPIED),
    b"FCALL": Rule(Kind.COMPUTED, _call, COPIED),
    b"FUNCTION DELETE": Rule(Kind.COMPUTED, _told, TOLD),
    b"FUNCTION FLUSH": Rule(Kind.COMPUTED, _told, TOLD),
    b"FUNCTION LOAD": Rule(Kind.COMPUTED, _library, "FUNCTION LOAD REPLACE, any answer"),
    b"FUNCTION RESTORE": Rule(Kind.COMPUTED, _library, TOLD),
    b"SCRIPT FLUSH": Rule(Kind.COMPUTED, _told, TOLD),
    b"SCRIPT LOAD": Rule(Kind.COMPUTED, _told, TOLD),
}
