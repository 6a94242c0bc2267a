"""Effects of consumer-group commands.

What was delivered or claimed is named in the reply, and is delivered or claimed again by name. Empty replies hide three
changes: a consumer that was created (servers from 7.2 on), pending entries of deleted messages that were dropped
(servers from 7.0 on), a last id that XCLAIM moved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from proxy.effects.build import (
    AS_SENT,
    GUARDED,
    aggregate,
    array,
    as_sent,
    bulk,
    computed,
    copy_of,
    digits,
    one,
    positive,
    read_options,
    several,
    texts,
    when,
)
from proxy.effects.compare import text
from proxy.effects.model import Command, Context, Effect, Rule
from resp.frames import elements, is_null

STRICT_ID = re.compile(rb"(\d+)(?:-(\d+))?")
READ_ARITY = {b"COUNT": 1, b"BLOCK": 1, b"NOACK": 0}
CLAIM_ARITY = {b"IDLE": 1, b"TIME": 1, b"RETRYCOUNT": 1, b"FORCE": 0, b"JUSTID": 0, b"LASTID": 1}
AUTOCLAIM_ARITY = {b"COUNT": 1, b"JUSTID": 0}
NOBODY_IS_THAT_IDLE = b"%d" % (1 << 52)  # ms


def _creates_consumers(version: tuple[str, int, int]) -> bool:
    """From 7.2 on a consumer exists once it was named, even when it got nothing."""
    return version[1:] >= (7, 2)


def _drops_deleted(version: tuple[str, int, int]) -> bool:
    """From 7.0 on XCLAIM and XAUTOCLAIM drop pending entries whose message was deleted."""
    return version[1:] >= (7, 0)


def _create_consumer(key: bytes, group: bytes, consumer: bytes) -> Command:
    return (b"XGROUP", b"CREATECONSUMER", key, group, consumer)


# -- XREADGROUP GROUP group consumer [COUNT n] [BLOCK ms] [NOACK] STREAMS key… id… ------------------------------------


def _xreadgroup(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    at = 4
    while args[at].upper() != b"STREAMS":
        at += 1 + READ_ARITY.get(args[at].upper(), len(args))
    options = read_options(args[4:at], READ_ARITY)
    half = (len(args) - at - 1) // 2
    streams = dict(zip(args[at + 1 : at + 1 + half], args[at + 1 + half :], strict=True))
    if len(streams) != half:  # the same stream twice: whose entries are which?
        return copy_of(ctx, *streams)
    noack = (b"NOACK",) if b"NOACK" in options else ()
    got = _entries_by_stream(frame)
    commands: list[Command] = []
    expected: list[bytes | None] = []
    written: list[bytes] = []
    for key, last in streams.items():
        entries = got.get(key, b"*0\r\n")
        if count := len(elements(entries)):
            commands.append((*_group_read(args, count), *noack, b"STREAMS", key, last))
            expected.append(array([array([bulk(key), entries])]))
        elif last != b">" or _creates_consumers(ctx.serving_version):  # reading one's history always creates it
            commands.append(_create_consumer(key, args[2], args[3]))
            expected.append(None)
        else:
            continue
        written.append(key)
    return several(commands, expected, written)


def _group_read(args: list[bytes], count: int) -> Command:
    return (b"XREADGROUP", b"GROUP", args[2], args[3], b"COUNT", digits(count))


def _entries_by_stream(frame: bytes) -> dict[bytes, bytes]:
    """RESP2: [[key, entries] …]; RESP3: a map of them; nil when no stream had any."""
    if is_null(frame):
        return {}
    parts = elements(frame)
    pairs = zip(parts[::2], parts[1::2], strict=True) if frame[:1] == b"%" else map(elements, parts)
    return {text(key): entries for key, entries in pairs}


# -- XCLAIM key group consumer min-idle id… [options], XAUTOCLAIM key group consumer min-idle start [options] ----------


def _claimed_ids(entries: Iterable[bytes]) -> list[bytes]:
    """The ids in a list of entries or (JUSTID) of ids. A nil (6.2: a deleted message) does not tell its id."""
    ids = []
    for entry in entries:
        if is_null(entry):
            raise ValueError("a deleted message without its id")
        ids.append(text(elements(entry)[0]) if aggregate(entry) else text(entry))
    return ids


def _plain_id(word: bytes) -> tuple[int, int] | None:
    match = STRICT_ID.fullmatch(word)
    return (int(match[1]), int(match[2] or 0)) if match else None


def _xclaim(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    end = 5
    while end < len(args) and _plain_id(args[end]) is not None:
        end += 1
    options = read_options(args[end:], CLAIM_ARITY)
    answered = elements(frame)
    claimed = _claimed_ids(answered)
    named = {_plain_id(word) for word in claimed}
    left = [word for word in args[5:end] if _plain_id(word) not in named]
    last_id = (b"LASTID", options[b"LASTID"]) if b"LASTID" in options else ()
    commands: list[Command] = []
    expected: list[bytes | None] = []
    if claimed:
        commands.append((*_claim(args, b"0", claimed), *_claim_options(options, ctx), *last_id))
        expected.append(array(answered))
    elif _creates_consumers(ctx.serving_version):
        commands.append(_create_consumer(args[1], args[2], args[3]))
        expected.append(None)
    if left and (_drops_deleted(ctx.serving_version) or (last_id and not claimed)):
        if not _can_drop_deleted(ctx, bool(claimed)):
            return copy_of(ctx, args[1])
        commands.append((*_claim(args, NOBODY_IS_THAT_IDLE, left), *last_id))
        expected.append(b"*0\r\n")
    return several(commands, expected, args[1:2])


def _can_drop_deleted(ctx: Context, consumer_exists: bool) -> bool:
    """Whether a XCLAIM that claims nothing does on the mirror side what it did on the serving side."""
    if _drops_deleted(ctx.mirror_version) != _drops_deleted(ctx.serving_version):
        return False
    creates = _creates_consumers(ctx.mirror_version)
    return consumer_exists or not creates or _creates_consumers(ctx.serving_version)


def _claim(args: list[bytes], min_idle: bytes, ids: Sequence[bytes]) -> Command:
    return (b"XCLAIM", *args[1:4], min_idle, *ids)


def _claim_options(options: dict[bytes, bytes], ctx: Context) -> Command:
    """The moment of delivery in the mirror's clock; the counter is bumped there as it was here, or set."""
    if b"TIME" in options:
        moment = int(options[b"TIME"]) + ctx.clock_shift_ms
    else:
        moment = ctx.now_ms - int(options.get(b"IDLE", b"0"))
    retries = (b"RETRYCOUNT", options[b"RETRYCOUNT"]) if b"RETRYCOUNT" in options else ()
    flags = tuple(name for name in (b"FORCE", b"JUSTID") if name in options)
    return (b"TIME", digits(moment), *retries, *flags)


def _xautoclaim(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """[cursor, entries], from 7.0 on with a third element: ids of deleted messages, dropped."""
    options = read_options(args[6:], AUTOCLAIM_ARITY)
    _, entries, *deleted = elements(frame)
    claimed = _claimed_ids(elements(entries))
    commands: list[Command] = []
    expected: list[bytes | None] = []
    if claimed:
        commands.append((*_claim(args, b"0", claimed), *_claim_options(options, ctx)))
        expected.append(array(elements(entries)))
    elif _creates_consumers(ctx.serving_version):
        commands.append(_create_consumer(args[1], args[2], args[3]))
        expected.append(None)
    if deleted and elements(deleted[0]):
        commands.append((b"XACK", args[1], args[2], *texts(deleted[0])))
        expected.append(None)
    return several(commands, expected, args[1:2])


# -- XGROUP subcommand key group … ------------------------------------------------------------------------------------


def _key(args: list[bytes]) -> list[bytes]:
    return args[2:3]


def _create(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """MKSTREAM may create the key. "$" is the mirror's own last id, the same at this point of the order."""
    return one(args, frame, args[2:3], guard=args[2:3])


def _unlisted(args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """A subcommand of a newer server."""
    return copy_of(ctx, *args[2:3])


CONSUMER = "without any: XGROUP CREATECONSUMER"

RULES: dict[bytes, Rule] = {
    b"XAUTOCLAIM": computed(_xautoclaim, f"XCLAIM of the entries in the reply, XACK of the deleted ones; {CONSUMER}"),
    b"XCLAIM": computed(_xclaim, f"XCLAIM of the entries in the reply, with TIME; {CONSUMER}"),
    b"XGROUP": computed(_unlisted, "state copy of the key"),
    b"XGROUP CREATE": computed(_create, AS_SENT + GUARDED),
    b"XGROUP CREATECONSUMER": when(positive, keys=_key),
    b"XGROUP DELCONSUMER": as_sent(_key),  # 0 pending entries, yet the consumer is gone
    b"XGROUP DESTROY": when(positive, keys=_key),
    b"XGROUP SETID": as_sent(_key),
    b"XREADGROUP": computed(_xreadgroup, f"XREADGROUP of as many entries, same entries expected; {CONSUMER}"),
}
