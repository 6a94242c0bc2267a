"""Effects of stream commands, consumer groups apart (groups.py).

An id that the server made is in the reply. Approximate trimming ("~") depends on how entries are packed: it is made
exact ("=") in the request, before it is forwarded; one that got through all the same means a state copy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.effects.build import GUARDED, IF_CHANGED, as_sent, computed, copy_of, one, positive, when
from proxy.effects.compare import text
from proxy.effects.model import NOTHING, Context, Effect, Rule
from resp.frames import is_null

ENTRY_ID = re.compile(rb"\*|\d+(-(\d+|\*))?")
STRATEGIES = (b"MAXLEN", b"MINID")
REFERENCES = (b"DELREF", b"ACKED")  # Redis 8.2: what trimming does to pending entries; KEEPREF is as ever


@dataclass(frozen=True, slots=True)
class Trim:
    """The options of XADD and XTRIM in front of the entry id."""

    exact: tuple[bytes, ...]  # the trimming made exact: without "~", LIMIT and what is the default anyway
    approximate: bool
    references: bool  # one of REFERENCES was given
    end: int  # index of the first word that is no option


def read_trim(args: list[bytes], start: int) -> Trim:
    """Raises ValueError or IndexError for what the server would refuse as well."""
    exact: list[bytes] = []
    approximate = references = False
    i = start
    while i < len(args):
        word = args[i].upper()
        if word in STRATEGIES:
            mark = args[i + 1] if args[i + 1] in (b"~", b"=") else b""
            approximate |= mark == b"~"
            i += 1 + len(mark)
            exact += (word, b"=", args[i])
        elif word == b"LIMIT":
            i += 1
            if int(args[i]) < 0:
                raise ValueError("negative LIMIT")
        elif word in REFERENCES:
            references = True
            exact.append(word)
        elif word not in (b"NOMKSTREAM", b"KEEPREF"):
            break
        i += 1
    return Trim(tuple(exact), approximate, references, i)


def _make_exact(args: list[bytes], start: int) -> list[bytes]:
    """The request with "=" for "~" and no LIMIT; untouched without "~", and when the server is going to refuse it."""
    if b"~" not in args:
        return args
    try:
        trim = read_trim(args, start)
    except (ValueError, IndexError):
        return args
    if not trim.approximate:
        return args
    condition = [word for word in args[start : trim.end] if word.upper() == b"NOMKSTREAM"]
    return [*args[:start], *condition, *trim.exact, *args[trim.end :]]


def _exact_request(args: list[bytes]) -> list[bytes]:
    return _make_exact(args, 2)


def _must_copy(trim: Trim, ctx: Context) -> bool:
    """Whether this trimming would come out differently on the mirror side."""
    vendor, *version = ctx.mirror_version
    return trim.approximate or (trim.references and (vendor != "redis" or version < [8, 2]))


def _xadd(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    if is_null(frame):  # NOMKSTREAM
        return NOTHING
    trim = read_trim(args, 2)
    if not ENTRY_ID.fullmatch(args[trim.end]):
        raise ValueError("an option of a newer server")
    if _must_copy(trim, ctx):
        return copy_of(ctx, args[1])
    command = (b"XADD", args[1], *trim.exact, text(frame), *args[trim.end + 1 :])
    return one(command, frame, args[1:2], guard=args[1:2])


def _xtrim(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    if not positive(frame):
        return NOTHING
    trim = read_trim(args, 2)
    return copy_of(ctx, args[1]) if _must_copy(trim, ctx) else one((*args[:2], *trim.exact), frame, args[1:2])


RULES: dict[bytes, Rule] = {
    b"XACK": when(positive),
    b"XACKDEL": as_sent(),
    b"XADD": computed(_xadd, "XADD with the id in the reply" + GUARDED, _exact_request),
    b"XDEL": when(positive),
    b"XDELEX": as_sent(),
    b"XSETID": as_sent(),
    b"XTRIM": computed(_xtrim, IF_CHANGED, _exact_request),
}
