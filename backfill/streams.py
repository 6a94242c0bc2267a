"""Owns how a stream is read in one reply and rebuilt exactly, groups and pending entries included. Pure.

XINFO STREAM key FULL COUNT 0 tells everything at one point of the history (measured on 6.2, 7.0, 8.1, 8.2, 9.1):
entries, last id, counters, and of each group the consumers and pending entries with delivery time and count.

Since 7.0 an XCLAIM of an entry that does not exist drops it instead of making it pending. A deleted but still
pending entry is therefore added as a placeholder in its place, claimed, and deleted again, which keeps it pending. What
was trimmed is trimmed again: XDEL would raise max-deleted-entry-id, which no command sets back to nothing.

Redis 8.2 takes no more for a group's entries-read than the stream's entries-added at that moment: that is raised first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from .values import Group, Pending, Stream

Command = list[bytes]
NO_ID = b"0-0"
IDS_PER_COMMAND = 500
PLACEHOLDER = (b"", b"")
TEMPORARY_GROUP = b"crossfade"  # makes an empty stream, and is destroyed at once
MORE_THAN_ANY = b"%d" % (2**63 - 1)  # entries


def read(key: bytes) -> Command:
    return [b"XINFO", b"STREAM", key, b"FULL", b"COUNT", b"0"]


def pairs(reply: Any) -> dict[bytes, Any]:
    """A map reply of either protocol version."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


def parse(reply: Any) -> Stream:
    """The stream in a decoded reply to `read`. Errors: KeyError, TypeError, ValueError for anything else."""
    info = pairs(reply)
    return Stream(
        entries={identity: tuple(fields) for identity, fields in info[b"entries"]},
        last_id=info[b"last-generated-id"],
        entries_added=info.get(b"entries-added"),
        max_deleted_id=info.get(b"max-deleted-entry-id"),
        groups=tuple(_parse_group(pairs(group)) for group in info[b"groups"]),
    )


def _parse_group(info: Mapping[bytes, Any]) -> Group:
    return Group(
        name=info[b"name"],
        last_id=info[b"last-delivered-id"],
        entries_read=info.get(b"entries-read"),
        consumers=tuple(pairs(consumer)[b"name"] for consumer in info[b"consumers"]),
        pending=tuple(Pending(*entry) for entry in info[b"pending"]),
    )


def size(stream: Stream) -> int:
    entries = sum(len(part) for fields in stream.entries.values() for part in fields)
    return entries + 16 * (len(stream.entries) + sum(len(group.pending) for group in stream.groups))


def id_order(identity: bytes) -> tuple[int, int]:
    first, _, second = identity.partition(b"-")
    return int(first), int(second)


def write(key: bytes, stream: Stream, *, shift_ms: int, counters: bool) -> Iterator[Command]:
    """The commands that make the stream where there is no such key. `counters`: the target is 7.0 or later."""
    placeholders = deleted_but_pending(stream, counters)
    entries = {**dict.fromkeys(placeholders, PLACEHOLDER), **stream.entries}
    for identity in sorted(entries, key=id_order) if placeholders else entries:
        yield [b"XADD", key, identity, *entries[identity]]
    first = next(iter(stream.entries), None)
    yield from finish(key, stream, len(stream.entries), first, placeholders, shift_ms=shift_ms, counters=counters)


def finish(
    key: bytes,
    stream: Stream,
    count: int,
    first: bytes | None,
    placeholders: list[bytes],
    *,
    shift_ms: int,
    counters: bool,
) -> Iterator[Command]:
    """What comes behind the `count` entries (the id of the `first`), and the placeholders among them, in their order:
    groups, and the counters."""
    if not count and not placeholders:
        yield from write_empty(key)
    yield from write_groups(key, stream.groups, stream.last_id, shift_ms, counters)
    yield from _drop(key, placeholders, first, counters)
    yield from write_counters(key, stream, count, counters)


def write_empty(key: bytes) -> Iterator[Command]:
    """The commands that make a stream without entries and groups."""
    yield [b"XGROUP", b"CREATE", key, TEMPORARY_GROUP, NO_ID, b"MKSTREAM"]
    yield [b"XGROUP", b"DESTROY", key, TEMPORARY_GROUP]


def deleted_but_pending(stream: Stream, counters: bool) -> list[bytes]:
    """Since 7.0 the last id cannot be set back below a deleted entry: pending ids above it stay behind (see `lost`).
    Only 6.2 can have any, after an XSETID."""
    wanted = {entry.id for group in stream.groups for entry in group.pending} - stream.entries.keys() - {NO_ID}
    last = id_order(stream.last_id)
    return sorted((identity for identity in wanted if not counters or id_order(identity) <= last), key=id_order)


def lost(stream: Stream, *, counters: bool) -> int:
    """How many pending entries the target cannot hold."""
    held = {*stream.entries, *deleted_but_pending(stream, counters)}
    return sum(entry.id not in held for group in stream.groups for entry in group.pending)


def _drop(key: bytes, placeholders: list[bytes], first: bytes | None, counters: bool) -> Iterator[Command]:
    """The commands that delete the placeholders again."""
    order = None if first is None else id_order(first)
    if counters and placeholders and (order is None or id_order(placeholders[0]) < order):
        yield trim_before(key, first)
        placeholders = [each for each in placeholders if order is not None and id_order(each) > order]
    for batch in batches(placeholders):
        yield [b"XDEL", key, *batch]


def trim_before(key: bytes, first: bytes | None) -> Command:
    """Nothing stays in front of this entry; None: nothing at all."""
    return [b"XTRIM", key, b"MAXLEN", b"=", b"0"] if first is None else [b"XTRIM", key, b"MINID", b"=", first]


def write_groups(
    key: bytes, groups: Sequence[Group], last_id: bytes, shift_ms: int, counters: bool
) -> Iterator[Command]:
    """The commands that make the groups of a stream that is there. `write_counters` sets right what they do to
    entries-added."""
    if counters and last_id != NO_ID and any(group.entries_read for group in groups):
        yield [b"XSETID", key, last_id, b"ENTRIESADDED", MORE_THAN_ANY, b"MAXDELETEDID", NO_ID]
    for group in groups:
        yield from write_group(key, group, shift_ms, counters)


def write_group(key: bytes, group: Group, shift_ms: int, counters: bool) -> Iterator[Command]:
    """The commands that make a group with its consumers and pending entries, whose messages must be there."""
    read_so_far = [b"ENTRIESREAD", b"%d" % group.entries_read] if counters and group.entries_read is not None else []
    yield [b"XGROUP", b"CREATE", key, group.name, group.last_id, b"MKSTREAM", *read_so_far]
    for consumer in group.consumers:
        yield [b"XGROUP", b"CREATECONSUMER", key, group.name, consumer]
    for (consumer, delivered_ms, count), entries in groupby(group.pending, _delivery):
        claim = [b"TIME", b"%d" % max(0, delivered_ms + shift_ms), b"RETRYCOUNT", b"%d" % count, b"FORCE", b"JUSTID"]
        for batch in batches([entry.id for entry in entries]):
            yield [b"XCLAIM", key, group.name, consumer, b"0", *batch, *claim]


def _delivery(entry: Pending) -> tuple[bytes, int, int]:
    return entry.consumer, entry.delivered_ms, entry.count


def write_counters(key: bytes, stream: Stream, length: int, counters: bool) -> Iterator[Command]:
    """The last id stays at that of the last entry unless it is set: entries behind it were deleted. `length`: how many
    entries there are (`stream` may be one without its entries)."""
    if stream.last_id == NO_ID and not stream.entries_added:
        return
    if counters and stream.entries_added is not None and stream.max_deleted_id is not None:
        added = b"%d" % stream.entries_added
        yield [b"XSETID", key, stream.last_id, b"ENTRIESADDED", added, b"MAXDELETEDID", stream.max_deleted_id]
    elif counters:  # from 6.2, as a server of 7.0 loads such a stream: nothing was ever deleted
        yield [b"XSETID", key, stream.last_id, b"ENTRIESADDED", b"%d" % length, b"MAXDELETEDID", NO_ID]
    else:
        yield [b"XSETID", key, stream.last_id]


def batches(ids: list[bytes]) -> Iterable[list[bytes]]:
    return (ids[start : start + IDS_PER_COMMAND] for start in range(0, len(ids), IDS_PER_COMMAND))
