"""The copy of keys from one server straight to another: groups of keys, read on one pipe, written on another.

Owns the order. All groups go through one queue, are read down one pipe and written down one pipe, so what is written
later was formed later; a group's keys are read after it was formed. Hence a key that changes while it is under way
needs nothing but another group, formed after the change: it overwrites whatever was there. That is all that `live`
builds on. A key above PAGED_BYTES is copied by `pages`: with a place in the same queue and alone, or, where nobody
builds on the order (`ordered`), beside the others.

Memory: BUDGET_BYTES under way. An error that concerns one key is put down in the tally; one that concerns the server
ends the copy (ServerRefuses, ConnectionLost), to be begun again at the tally's position.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import hiredis
import trio

from resp.encode import encode

from ..codec import Believed, Form, Unreadable, WrongType, losses, parse, read_commands, refused, write_commands
from ..errors import BackfillError, ServerRefuses, is_passing
from ..values import State
from . import bulk
from .groups import Asking, Group, Probe, Reading, Writing
from .limits import Budget, Rate
from .nurseries import open_nursery
from .pages import BigKeys, Changing
from .pipe import Pipe
from .sides import Facts, expect
from .tally import MAX_FAILED, MAX_LOSSY, Page, Place, Tally

BUDGET_BYTES = 12 * 1024 * 1024  # expected of the values under way; what Python needs for them is about the double
KEY_BYTES = 200  # what a key costs here, whatever its value
GROUP_KEYS = 1000
GROUP_BYTES = 512 * 1024
PAGED_BYTES = 2 * 1024 * 1024  # as MEMORY USAGE has it: 20,000 small elements; DUMP takes about 5 ms for them
NO_LIMIT_BYTES = 64 * 1024 * 1024  # no payload of a key below PAGED_BYTES is larger
UNKNOWN_BYTES = 1024  # where MEMORY USAGE is not allowed
ATTEMPTS = 8  # at a key whose type changes whenever it is read
SKEW_MS = 100  # clocks further apart: the deadlines of hash fields inside a payload would be wrong by that much


class Copier:
    """`run` it, `add` to it, wait until it is `idle`."""

    def __init__(
        self,
        source: Pipe,
        target: Pipe,
        facts: tuple[Facts, Facts],
        tally: Tally,
        big: BigKeys,
        *,
        types: frozenset[bytes] = frozenset(),
        struct: bool = False,
        ordered: bool = True,
        keys_rate: Rate,
        bytes_rate: Rate,
    ) -> None:
        self.shift_ms = 0
        self.form = Form.STRUCT if struct else Form.DUMP
        self.on_stream: Callable[[Place], None] | None = None
        self._source, self._target = source, target
        self._source_facts, self._target_facts = facts
        self._absolute = b"PEXPIRETIME" in facts[0].commands
        self._sizes_known = True
        self._types = types
        self._tally = tally
        self._big = big
        self._ordered = ordered
        self._keys_rate, self._bytes_rate = keys_rate, bytes_rate
        self._group_keys = keys_rate.portion(GROUP_KEYS)
        self._budget = Budget(BUDGET_BYTES)
        self._under_way = 0  # groups formed and not settled
        self._unsettled = 0  # writes sent and not answered
        self._idle = trio.lowlevel.ParkingLot()
        self._to_write, self._written = trio.open_memory_channel[Reading | Asking | Group](inf)  # bounded by the budget
        self._to_page, self._paging = trio.open_memory_channel[Group](inf)
        self._to_settle, self._settling = trio.open_memory_channel[Writing](inf)
        self._to_retry, self._retrying = trio.open_memory_channel[Group](inf)

    def __repr__(self) -> str:
        return f"<Copier {self.form.value} {self._under_way} groups under way {self._budget}>"

    @property
    def idle(self) -> bool:
        return not self._under_way

    async def wait_idle(self) -> None:
        while self._under_way:
            await self._idle.park()

    async def run(self) -> None:
        """Work until cancelled. Errors: ConnectionLost, ServerRefuses."""
        async with open_nursery() as nursery:
            nursery.start_soon(self._write_all)
            nursery.start_soon(self._page_all)
            nursery.start_soon(self._settle_all)
            nursery.start_soon(self._retry_all)

    # -- forming groups --------------------------------------------------------------------------------------------

    def probe(self, db: int, keys: list[bytes], *, types: bool = False) -> Probe:
        """What to ask about these keys: their sizes, and with `types` (or for form STRUCT) their types."""
        names = bulk.encoded(keys)
        return Probe(db, keys, names, *bulk.probe(names, types=types or self.form is Form.STRUCT))

    async def look_and_add(self, db: int, keys: list[bytes]) -> None:
        """Probe these keys and copy them. Those that the source does not have, or not of a type that is meant, are
        deleted on the target. Errors: ConnectionLost, ServerRefuses."""
        probe = self.probe(db, keys, types=bool(self._types))
        replies = await self._source.send(probe.data, probe.count, db).wait()
        await self.add(probe, replies, types=self._types)
        if self._types:
            others = [key for key, kind in zip(keys, replies[len(keys) :], strict=True) if kind not in self._types]
            await self._ask(db, others)

    async def _ask(self, db: int, keys: list[bytes]) -> None:
        """What these keys are now; then see `_remove`."""
        for start in range(0, len(keys), GROUP_KEYS):
            part = keys[start : start + GROUP_KEYS]
            group = Group(db, part, bulk.encoded(part), [0] * len(part), cost=KEY_BYTES * len(part))
            self._under_way += 1
            await self._budget.take(group.cost)
            ticket = self._source.send(bulk.ask_types(group.names), len(part), db)
            self._to_write.send_nowait(Asking(group, ticket))

    async def add(
        self, probe: Probe, replies: list[Any], page: Page | None = None, types: frozenset[bytes] = frozenset()
    ) -> None:
        """Copy keys of which `replies` were told, as soon as there is room; with `types`, only such.
        Errors: ConnectionLost, ServerRefuses."""
        count = len(probe.keys)
        sizes, kinds = self._sizes(replies[:count]), replies[count:]
        whole = Group(probe.db, probe.keys, probe.names, sizes, page)
        if types:
            chosen = [index for index, kind in enumerate(kinds) if kind in types]
            whole = whole.chosen(chosen)
            kinds = [kinds[index] for index in chosen]
            if page is not None:
                self._tally.done_with(page, count - len(chosen))
        whole.believed = kinds if self.form is Form.STRUCT else []
        start = 0
        for end in self._ends(whole.sizes):
            await self._start(whole.part(start, end))
            start = end

    def _sizes(self, replies: list[Any]) -> list[int]:
        if hiredis.ReplyError in set(map(type, replies)):
            text = str(next(reply for reply in replies if isinstance(reply, hiredis.ReplyError)))
            if is_passing(text):
                raise ServerRefuses(f"MEMORY USAGE: {text}", text)
            self._sizes_known = False
            self._tally.note(f"the source does not allow MEMORY USAGE: big keys are read in one piece ({text})")
            return [UNKNOWN_BYTES] * len(replies)
        return [size or 0 for size in replies] if None in replies else replies

    def _ends(self, sizes: list[int]) -> list[int]:
        """As `bulk.cut`, with each big key for itself."""
        if not sizes:
            return []
        if max(sizes) < PAGED_BYTES:
            return bulk.cut(sizes, self._group_keys, GROUP_BYTES)
        ends, start = [], 0
        for index in [i for i, size in enumerate(sizes) if size >= PAGED_BYTES] + [len(sizes)]:
            before = sizes[start:index]
            ends += [start + end for end in bulk.cut(before, self._group_keys, GROUP_BYTES)] if before else []
            ends += [index + 1] if index < len(sizes) else []
            start = index + 1
        return ends

    async def _start(self, group: Group) -> None:
        """Send the read of a group, or put a big key in the queue."""
        self._under_way += 1
        count = len(group.keys)
        big = count == 1 and group.sizes[0] >= PAGED_BYTES
        group.cost = KEY_BYTES if big else sum(group.sizes) + KEY_BYTES * count
        await self._budget.take(group.cost)
        await self._keys_rate.take(count)
        if big:
            if self._ordered:
                self._to_write.send_nowait(group)
            else:
                self._to_page.send_nowait(group)
            return
        await self._bytes_rate.take(sum(group.sizes))
        form = group.form or self.form
        parts, ends, counts = self._read_dump(group) if form is Form.DUMP else self._read_struct(group)
        ticket = self._source.send(b"".join(parts), sum(counts), group.db)
        self._to_write.send_nowait(Reading(group, form, ticket, ends, counts))

    def _read_dump(self, group: Group) -> tuple[list[bytes], list[int], list[int]]:
        ends = bulk.cut(group.sizes, bulk.BLOCK_KEYS, bulk.BLOCK_BYTES)
        parts, counts, start = [], [], 0
        for end in ends:
            block, count = bulk.read_block(group.names[start:end], absolute=self._absolute, types=bool(self._types))
            parts.append(block)
            counts.append(count)
            start = end
        return parts, ends, counts

    def _read_struct(self, group: Group) -> tuple[list[bytes], list[int], list[int]]:
        """A MULTI for each key."""
        parts, counts = [], []
        for believed, key in zip(group.believed or [None] * len(group.keys), group.keys, strict=True):
            commands = read_commands(key, Form.STRUCT, believed, known=self._source_facts.commands)
            parts += [encode(command) for command in ([b"MULTI"], *commands, [b"EXEC"])]
            counts.append(len(commands) + 2)
        return parts, list(range(1, len(counts) + 1)), counts

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _write_all(self) -> None:
        async for item in self._written:
            if isinstance(item, Group):
                await self._all_settled()
                await self._copy_big(item)
                continue
            replies = await item.ticket.wait()
            if isinstance(item, Asking):
                await self._write_none(item.group, replies)
                continue
            write = self._write_dump if item.form is Form.DUMP else self._write_struct
            unwanted = write(item, replies)
            if unwanted is not None:
                await self._remove(unwanted)
                self._done(unwanted)

    async def _write_none(self, group: Group, replies: list[Any]) -> None:
        """What is of a type that is meant by now is copied."""
        meant = [index for index, kind in enumerate(replies) if expect(kind, "TYPE") in self._types]
        if meant:
            self._again(group, meant, self.form, [])
        await self._remove(group.chosen(set(range(len(group.keys))).difference(meant)))
        self._done(group)

    async def _remove(self, group: Group) -> None:
        """Keys that the source has not, or not of a type that is meant, are deleted on the target, if they are of such
        a type there: what is of another type was not put there by us. Nothing is written between the look and the DEL,
        as the only writer waits here."""
        if not group.keys:
            return
        kinds = await self._target.send(bulk.ask_types(group.names), len(group.keys), group.db).wait()
        there = [index for index, kind in enumerate(kinds) if expect(kind, "TYPE") in self._types]
        gone = set(range(len(kinds))).difference(there)
        self._tally.settled(group.db, [group.keys[index] for index in gone], group.page)
        if there:
            rest = group.chosen(there)
            rest.cost = 0
            self._under_way += 1
            self._unsettled += 1
            ticket = self._target.send(bulk.delete(rest.names), len(there), group.db)
            self._to_settle.send_nowait(Writing(rest, Form.DUMP, ticket, [], list(range(len(there)))))

    def _write_dump(self, item: Reading, replies: list[Any]) -> Group | None:
        """Write what was read. What is to be removed instead."""
        group = item.group
        deadlines: list[int] = []
        payloads: list[bytes | None] = []
        aside: list[int] = []  # indexes of what goes another way
        start = position = 0
        for end, count in zip(item.ends, item.counts, strict=True):
            part = replies[position : position + count]
            outcome = bulk.parse_block(end - start, part, absolute=self._absolute, types=self._types)
            if isinstance(outcome, hiredis.ReplyError):
                self._cannot_dump(outcome)
                aside += range(start, end)
                outcome = [-1] * (end - start), [b""] * (end - start)
            deadlines += outcome[0]
            payloads += outcome[1]
            start, position = end, position + count
        if aside:
            self._again(group, aside, Form.STRUCT, [])
        aside += self._unfit(group, payloads)
        if aside:
            left = sorted(set(range(len(group.keys))).difference(aside))
            group = group.chosen(left)
            deadlines, payloads = [deadlines[index] for index in left], [payloads[index] for index in left]
        unwanted = None
        if self._types and None in payloads:
            unwanted = self._split_off(group, [index for index, payload in enumerate(payloads) if payload is None])
            left = [index for index, payload in enumerate(payloads) if payload is not None]
            group = group.chosen(left)
            deadlines, payloads = [deadlines[index] for index in left], [payloads[index] for index in left]
        self._send_restores(group, deadlines, payloads)
        return unwanted

    def _split_off(self, group: Group, indexes: list[int]) -> Group:
        """Some keys as a group of their own, under way and costing nothing."""
        part = group.chosen(indexes)
        part.cost = 0
        self._under_way += 1
        return part

    def _cannot_dump(self, error: hiredis.ReplyError) -> None:
        """The source does not show its keys in this way."""
        if not refused(error):
            raise ServerRefuses(f"reading from the source: {error}", str(error))
        self._tally.note(f"the source does not allow DUMP: keys are rebuilt by type ({error})")
        self.form = Form.STRUCT

    def _unfit(self, group: Group, payloads: list[bytes | None]) -> list[int]:
        """Which cannot go as payloads; they are put on another way. Tells of streams."""
        limit, skewed = self._target_facts.max_bulk, abs(self.shift_ms) > SKEW_MS
        if self.on_stream is None and not skewed and limit >= NO_LIMIT_BYTES and self._sizes_known:
            return []
        unfit = []
        for index, payload in enumerate(payloads):
            kind = payload[0] if payload else -1
            if kind in bulk.STREAMS and self.on_stream is not None:
                self.on_stream((group.db, group.keys[index]))
            if payload is not None and len(payload) > limit:
                text = f"{len(payload):,} bytes; the target takes {limit:,} (proto-max-bulk-len)"
                self._failed(group, group.keys[index], text)
                unfit.append(index)
            elif skewed and kind in bulk.WITH_FIELD_DEADLINES:
                self._again(group, [index], Form.STRUCT, [])
                unfit.append(index)
        return unfit

    def _send_restores(self, group: Group, deadlines: list[int], payloads: list[bytes | None]) -> None:
        if not group.keys:
            self._done(group)
            return
        nothing: list[int] = []
        if None in payloads:
            nothing = [index for index, payload in enumerate(payloads) if payload is None]
        self._tally.size += sum(map(len, filter(None, payloads)))
        data = bulk.restores(group.names, deadlines, payloads, self.shift_ms)
        ticket = self._target.send(data, len(group.keys), group.db)
        self._unsettled += 1
        self._to_settle.send_nowait(Writing(group, Form.DUMP, ticket, [], nothing))

    def _write_struct(self, item: Reading, replies: list[Any]) -> Group | None:
        """Write what was read. What is to be removed instead."""
        group, facts = item.group, self._target_facts
        unwanted: list[int] = []
        sent: list[int] = []
        data: list[bytes] = []
        counts: list[int] = []
        nothing: list[int] = []
        position = 0
        for index, (key, count) in enumerate(zip(group.keys, item.counts, strict=True)):
            state = self._parse(group, index, replies[position : position + count])
            position += count
            if state is None:
                continue
            if self._types and state.kind not in self._types:
                unwanted.append(index)
                continue
            commands = write_commands(state, shift_ms=self.shift_ms, target=facts.commands, version=facts.version)
            longest = max(len(arg) for command in commands for arg in command)
            if longest > facts.max_bulk:
                self._failed(group, key, f"{longest:,} bytes; the target takes {facts.max_bulk:,} (proto-max-bulk-len)")
                continue
            self._note_losses((group.db, key), state)
            if state.missing:
                nothing.append(len(counts))
            if len(commands) > 1:
                commands = [[b"MULTI"], *commands, [b"EXEC"]]
            data += map(encode, commands)
            counts.append(len(commands))
            sent.append(index)
            self._tally.size += state.size
        rest = group.chosen(sent)
        removed = self._split_off(group, unwanted) if unwanted else None
        if not counts:
            self._done(rest)
            return removed
        ticket = self._target.send(b"".join(data), sum(counts), group.db)
        self._unsettled += 1
        self._to_settle.send_nowait(Writing(rest, Form.STRUCT, ticket, counts, nothing))
        return removed

    def _parse(self, group: Group, index: int, replies: list[Any]) -> State | None:
        """The state in the replies to one MULTI; None when the key was put aside."""
        key, outcome = group.keys[index], replies[-1]
        believed = group.believed[index] if group.believed else None
        if not isinstance(outcome, list):
            text = str(next((reply for reply in replies if isinstance(reply, hiredis.ReplyError)), "no EXEC"))
            state: State | WrongType | Unreadable = Unreadable(text)
        else:
            state = parse(key, Form.STRUCT, outcome, believed)
        match state:
            case WrongType() if group.attempts < ATTEMPTS:
                self._again(group, [index], Form.STRUCT, [state])
            case WrongType():
                self._failed(group, key, "its type, or its fields, change faster than they can be read")
            case Unreadable(reason):
                if is_passing(reason):
                    raise ServerRefuses(f"reading from the source: {reason}", reason)
                self._failed(group, key, f"the source does not show it: {reason}")
            case State():
                if state.kind == b"stream" and self.on_stream is not None:
                    self.on_stream((group.db, key))
                return state
        return None

    def _note_losses(self, place: Place, state: State) -> None:
        lost = losses(state, target=self._target_facts.commands, version=self._target_facts.version)
        if lost and len(self._tally.lossy) < MAX_LOSSY:
            self._tally.lossy[place] = "; ".join(lost)
        elif place in self._tally.lossy:
            del self._tally.lossy[place]

    # -- settling --------------------------------------------------------------------------------------------------

    async def _settle_all(self) -> None:
        async for item in self._settling:
            replies = await item.ticket.wait()
            self._unsettled -= 1
            group = item.group
            if hiredis.ReplyError in set(map(type, replies)) or item.counts:
                self._settle_singly(item, replies)
            else:
                self._tally.settled(group.db, group.keys, group.page)
                deleted = sum([replies[index] for index in item.nothing]) if item.nothing else 0
                self._tally.deleted += deleted
                self._tally.copied += len(group.keys) - len(item.nothing)
            self._done(group)

    def _settle_singly(self, item: Writing, replies: list[Any]) -> None:
        group = item.group
        position = 0
        for index, key in enumerate(group.keys):
            count = item.counts[index] if item.counts else 1
            error = _first_error(replies[position : position + count])
            if error is not None:
                self._refused(item, index, error)
            elif index in item.nothing:
                self._tally.deleted += replies[position]
                self._tally.settled(group.db, [key], group.page)
            else:
                self._tally.copied += 1
                self._tally.settled(group.db, [key], group.page)
            position += count

    def _refused(self, item: Writing, index: int, error: hiredis.ReplyError) -> None:
        """The target does not take this key as it was sent."""
        text = str(error)
        if is_passing(text):
            raise ServerRefuses(f"the target says: {text}", text)
        if text.startswith(("MOVED ", "ASK ", "CROSSSLOT")):
            raise ServerRefuses(f"the target is a node of a cluster, which is not supported: {text}", text)
        if item.form is Form.DUMP and refused(error):
            if "version or checksum" in text or not text.startswith("ERR Bad data"):
                self.form = Form.STRUCT  # nothing that this server dumps will ever be accepted there
            self._again(item.group, [index], Form.STRUCT, [])
            return
        self._failed(item.group, item.group.keys[index], f"the target refused it: {text}")

    def _failed(self, group: Group, key: bytes, why: str) -> None:
        self._tally.fail((group.db, key), why, group.page)
        if len(self._tally.failed) > MAX_FAILED:
            raise BackfillError(f"more than {MAX_FAILED:,} keys could not be copied; the last: {why}")

    def _again(self, group: Group, indexes: list[int], form: Form, believed: list[Believed]) -> None:
        """These keys are formed anew, behind everything else."""
        again = group.chosen(indexes)
        again.form, again.believed, again.attempts, again.cost = form, believed, group.attempts + 1, 0
        self._tally.rereads += bool(believed)
        self._under_way += 1  # until _retry_all has taken it
        self._to_retry.send_nowait(again)

    async def _retry_all(self) -> None:
        async for group in self._retrying:
            await self._start(group)
            self._one_less()

    def _done(self, group: Group) -> None:
        self._budget.give(group.cost)
        self._one_less()

    def _one_less(self) -> None:
        self._under_way -= 1
        if not self._under_way or not self._unsettled:
            self._idle.unpark_all()

    # -- big keys --------------------------------------------------------------------------------------------------

    async def _all_settled(self) -> None:
        """Everything formed before is on the target. Nothing formed later is written while the writer waits here."""
        while self._unsettled:
            await self._idle.park()

    async def _page_all(self) -> None:
        async for group in self._paging:
            await self._copy_big(group)

    async def _copy_big(self, group: Group) -> None:
        place = (group.db, group.keys[0])
        try:
            outcome = await self._big.copy(place, self.shift_ms)
        except Changing as problem:
            self._failed(group, group.keys[0], problem.text)
        except ServerRefuses as problem:
            if problem.passing:
                raise
            self._failed(group, group.keys[0], problem.text)
        else:
            await self._bytes_rate.take(outcome.size)
            self._tally.rereads += outcome.rereads
            self._tally.size += outcome.size
            if outcome.small:
                group.sizes = [0]
                self._again(group, [0], self.form, [])
            else:
                self._tally.big += 1
                self._tally.copied += 1
                if outcome.stream and self.on_stream is not None:
                    self.on_stream(place)
                if outcome.lost:
                    self._tally.lossy[place] = outcome.lost
                self._tally.settled(group.db, group.keys, group.page)
        self._done(group)


def _first_error(replies: list[Any]) -> hiredis.ReplyError | None:
    """The first error among the replies, also inside of an EXEC's."""
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            return reply
        if isinstance(reply, list):
            for inner in reply:
                if isinstance(inner, hiredis.ReplyError):
                    return inner
    return None
