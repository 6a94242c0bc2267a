"""Streams in pages, by id; groups at the end, at one point. Pure.

The mirror's copy has the entries up to `_last`, and, until the end, those that were deleted meanwhile. A pending entry
whose message is deleted already gets a placeholder in its page: only what is there can be made pending (see
backfill/streams.py). The last page claims, deletes and trims, and sets the ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import hiredis

from backfill.rebuild import Command, counters
from backfill.streams import (
    NO_ID,
    PLACEHOLDER,
    batches,
    id_order,
    pairs,
    trim_before,
    write_counters,
    write_empty,
    write_groups,
)
from backfill.values import Group, Pending, Stream
from proxy.bigkeys.pages import Broken, Pager, Stated, Terms
from resp.frames import decode

MAX_GONE = 500_000  # ids of entries to be deleted at the end
EVERYTHING = b"1000000000"
FROM_START, TO_END = b"-", b"+"

LATER = frozenset([b"XADD", b"XTRIM", b"XACK", b"XCLAIM", b"XREADGROUP", b"XGROUP"])  # effects that a later page shows
GROUPS = (b"CREATE", b"SETID", b"DESTROY", b"CREATECONSUMER", b"DELCONSUMER")
SHOWN = LATER | {b"XAUTOCLAIM"} | {b"XGROUP " + name for name in GROUPS}
Entries = list[tuple[bytes, Sequence[bytes]]]


class StreamPager(Pager):
    kind, length, shown = b"stream", b"XLEN", SHOWN

    def __init__(self, key: bytes, terms: Terms) -> None:
        super().__init__(key, terms)
        self._last = b""
        self._groups: list[bytes] = []
        self._gone: dict[bytes, None] = {}
        self._ending = False  # the end was reached: ask for everything about the groups
        self._count = 0
        self._counters = counters(terms.mirror_version)

    def read(self) -> list[Command]:
        key, start = self.key, b"(" + self._last if self._last else FROM_START
        self._count = self._elements
        count = b"%d" % self._count
        commands = [
            [b"XRANGE", key, start, TO_END, b"COUNT", count],
            [b"XRANGE", key, FROM_START, TO_END, b"COUNT", b"1"],
            [b"XINFO", b"STREAM", key],
            [b"XINFO", b"GROUPS", key],
        ]
        for group in self._groups:
            commands.append([b"XPENDING", key, group, start, TO_END, count])
        if self._ending:
            for group in self._groups:
                commands.append([b"XINFO", b"CONSUMERS", key, group])
                commands.append([b"XPENDING", key, group, FROM_START, TO_END, EVERYTHING])
        return commands

    def take(self, size: int, now_ms: int, replies: Sequence[Any]) -> list[Command]:
        listed, head, info, groups, *told = replies
        entries: Entries = [(identity, fields) for identity, fields in listed]
        found = [pairs(group) for group in groups]
        names = [group[b"name"] for group in found]
        if names != self._groups:  # whose pending entries are not in this reply
            self._groups = names
            return []
        for reply in told:
            if isinstance(reply, hiredis.ReplyError):
                raise Broken(str(reply))
        self._adapt(len(entries), sum(len(part) for _, fields in entries for part in fields))
        last_id = pairs(info)[b"last-generated-id"]
        page, reached_end = self._page(entries, told[: len(names)], last_id)
        statements: list[Command] = [[b"XADD", self.key, identity, *fields] for identity, fields in page]
        if page:
            self._last = page[-1][0]
        if reached_end and self._ending:
            details = told[len(names) :]
            made = [
                group_of(facts, consumers, pending, now_ms)
                for facts, consumers, pending in zip(found, details[::2], details[1::2], strict=True)
            ]
            statements += self._end(size, head, pairs(info), made)
            self.complete = True
        self._ending = reached_end
        return statements

    def _page(self, entries: Entries, pending: Sequence[Any], last_id: bytes) -> tuple[Entries, bool]:
        """What to add, placeholders included, as far as both entries and pending entries are known; and whether that is
        everything."""
        ends = [entries[-1][0]] if len(entries) >= self._count else []
        ends += [rows[-1][0] for rows in pending if len(rows) >= self._count]
        end = min(map(id_order, ends), default=None)
        there = {identity for identity, _ in entries}
        dead = {row[0] for rows in pending for row in rows} - there - {NO_ID}
        if self._counters:  # the last id cannot be set back below a deleted entry (only 6.2 can have such)
            dead = {identity for identity in dead if id_order(identity) <= id_order(last_id)}
        page = entries + [(identity, PLACEHOLDER) for identity in dead]
        if dead:
            page.sort(key=lambda entry: id_order(entry[0]))
        if end is not None:
            page = [entry for entry in page if id_order(entry[0]) <= end]
        self._delete([identity for identity, _ in page if identity in dead])
        return page, end is None

    def _end(self, size: int, head: Sequence[Any], info: dict[bytes, Any], groups: list[Group]) -> Iterator[Command]:
        stream = Stream({}, info[b"last-generated-id"], info.get(b"entries-added"), info.get(b"max-deleted-entry-id"))
        if not self._last:
            yield from write_empty(self.key)
        yield from write_groups(self.key, groups, stream.last_id, self.terms.shift_ms, self._counters)
        first = id_order(head[0][0]) if head else None
        yield trim_before(self.key, head[0][0] if head else None)
        # Trimming leaves the highest deleted id alone, XDEL does not: it is for what was deleted by XDEL
        gone = [identity for identity in self._gone if first is not None and id_order(identity) > first]
        for batch in batches(gone):
            yield [b"XDEL", self.key, *batch]
        yield from write_counters(self.key, stream, size, self._counters)

    # -- effects -------------------------------------------------------------------------------------------------

    def state(self, command: Command, expected: bytes | None) -> list[Stated]:
        name = command[0].upper()
        if name == b"XDEL":
            self._delete(command[2:])
        elif name in (b"XDELEX", b"XACKDEL"):
            self._delete(_deleted(command, expected))
        elif name not in LATER:
            raise Broken(f"{name.decode(errors='replace')} while it was copied")
        return []

    def _delete(self, ids: Sequence[bytes]) -> None:
        self._gone.update(dict.fromkeys(ids))
        if len(self._gone) > MAX_GONE:
            raise Broken(f"more than {MAX_GONE:,} entries were deleted while it was copied")


def group_of(facts: dict[bytes, Any], consumers: Sequence[Any], pending: Sequence[Any], now_ms: int) -> Group:
    """A group in the decoded replies to XINFO GROUPS (its part), XINFO CONSUMERS and XPENDING key group - + n."""
    return Group(
        name=facts[b"name"],
        last_id=facts[b"last-delivered-id"],
        entries_read=facts.get(b"entries-read"),
        consumers=tuple(pairs(consumer)[b"name"] for consumer in consumers),
        pending=tuple(Pending(identity, owner, now_ms - idle, count) for identity, owner, idle, count in pending),
    )


def _deleted(command: Command, expected: bytes | None) -> list[bytes]:
    """XDELEX and XACKDEL … IDS n id…: 1 says that the entry is deleted."""
    at = next(index for index, word in enumerate(command) if word.upper() == b"IDS" and index > 1)
    ids = command[at + 2 : at + 2 + int(command[at + 1])]
    answers = decode(expected) if expected is not None else []
    return [identity for identity, answer in zip(ids, answers, strict=True) if answer == 1]
