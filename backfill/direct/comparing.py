"""`crossfade compare`: two servers, key by key, both ways, without a proxy.

Owns the run. A page of the source's keys is read on both sides as DUMP payloads; what is equal byte for byte and has
the same deadline is equal. The others are read by type and judged by `compare`; what differs still is looked at again
after a pause, ROUNDS times, as it may have changed between the two reads; then it is a finding. Keys that only the
target has are found by a scan of the target. Big keys are compared in pages (`comparing_pages`).

Memory: the bytes of a few groups, and MAX_SUSPECTS keys, whatever the number of keys.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

import hiredis
import trio

from resp.encode import encode

from ..codec import Believed, Form, Unreadable, WrongType, parse, read_commands
from ..compare import FOOTER_BYTES, Difference, Status, difference
from ..counts import Counts, verdict
from ..scan import START
from ..url import Url
from ..values import State
from . import bulk
from .comparing_pages import compare_big
from .copier import BUDGET_BYTES, GROUP_BYTES, GROUP_KEYS, KEY_BYTES, PAGED_BYTES, UNKNOWN_BYTES, Copier
from .limits import Budget, Rate
from .nurseries import open_nursery
from .pages import BigKeys
from .pipe import Pipe, Ticket
from .selection import Selection
from .sides import Facts, expect, keyspace, learn, shift_between
from .tally import Place, Tally
from .walking import COUNT, copy_functions

MAX_SUSPECTS = 50_000  # keys to be looked at again; when there are as many, that comes first
MAX_SHOWN = 100  # findings kept to be shown; all are counted, and told to `found`
ATTEMPTS = 8  # at a key whose type changes whenever it is read
CLOCK_S = 10.0


@dataclass(frozen=True, slots=True)
class ComparePlan:
    """What to compare. `sample`: a share of the keys (1.0: all), or with `sample_keys` so many. Times in seconds."""

    source: Url
    target: Url
    selection: Selection
    tolerance_ms: int = 1000
    rounds: int = 3
    pause: float = 1.0
    sample: float = 1.0
    sample_keys: int = 0
    seed: int = 0
    fix: bool = False
    keys_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference that is one. db -1: not a key but a library of functions."""

    db: int
    key: bytes
    status: str  # of STATUSES
    detail: str


@dataclass(slots=True)
class Report(Counts):
    """What a comparison found so far."""

    fixed: int = 0  # of those that differed
    total: int = 0
    seconds: float = 0.0
    complete: bool = False
    findings: list[Finding] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        del document["findings"]
        return document


@dataclass(slots=True)
class _Pair:
    """Keys read on both sides."""

    db: int
    keys: list[bytes]
    ends: list[int]
    counts: list[tuple[int, int]]
    tickets: tuple[Ticket, Ticket]
    cost: int


class Comparison:
    """One run. `report` at any time; `run()` once."""

    def __init__(self, plan: ComparePlan, found: Callable[[Finding], None] = lambda finding: None) -> None:
        self.report = Report()
        self._plan = plan
        self._found = found
        self._began = time.monotonic()
        self._share = plan.sample
        self._shift_ms = 0

    def __repr__(self) -> str:
        return f"<Comparison {self.report.checked} checked, {self.report.different} differ>"

    async def run(self) -> None:
        """All of it. Errors: ConnectError, ConnectionLost, ServerRefuses."""
        plan = self._plan
        async with (
            Pipe.open(plan.source.with_db(0), name="crossfade-compare") as source,
            Pipe.open(plan.target.with_db(0), name="crossfade-compare") as target,
        ):
            facts = await learn(source), await learn(target)
            self._shift_ms = await shift_between(source, target)
            run = _Run(self, plan, (source, target), facts)
            async with open_nursery() as nursery:
                nursery.start_soon(self._keep_clock, source, target)
                nursery.start_soon(run.judge_all)
                if plan.fix:
                    nursery.start_soon(run.copier.run)
                await run.everything()
                nursery.cancel_scope.cancel()
        self.report.complete = True
        self.report.seconds = round(time.monotonic() - self._began, 3)

    @property
    def shift_ms(self) -> int:
        return self._shift_ms

    async def _keep_clock(self, source: Pipe, target: Pipe) -> None:
        while True:
            await trio.sleep(CLOCK_S)
            self._shift_ms = await shift_between(source, target)

    def note_total(self, total: int) -> None:
        self.report.total = total
        if self._plan.sample_keys:
            self._share = min(1.0, self._plan.sample_keys / total) if total else 1.0

    def sampled(self, keys: list[bytes]) -> list[bytes]:
        """By a hash of the name, so that both sides' scans choose the same."""
        if self._share >= 1.0:
            return keys
        limit = int(self._share * 2**32)
        return [key for key in keys if zlib.crc32(key, self._plan.seed) < limit]

    def finding(self, finding: Finding) -> None:
        report = self.report
        report.found(finding.status)
        if len(report.findings) < MAX_SHOWN:
            report.findings.append(finding)
        self._found(finding)


class _Run:
    """The work on two open pipes."""

    def __init__(
        self, owner: Comparison, plan: ComparePlan, pipes: tuple[Pipe, Pipe], facts: tuple[Facts, Facts]
    ) -> None:
        self._owner, self._plan = owner, plan
        self._source, self._target = self._pipes = pipes
        self._facts = facts
        self._absolute = tuple(b"PEXPIRETIME" in each.commands for each in facts)
        self._budget = Budget(BUDGET_BYTES)
        self._rate = Rate(plan.keys_rate)
        self._suspects: list[Place] = []
        self._big: set[Place] = set()
        self._to_judge, self._judged = trio.open_memory_channel[_Pair](inf)  # bounded by the budget
        self._under_way = 0
        self._idle = trio.lowlevel.ParkingLot()
        self._dump = True  # both sides show payloads
        tally = Tally()
        big = BigKeys(plan.source, plan.target, facts, [], live=False)
        self.copier = Copier(*pipes, facts, tally, big, keys_rate=Rate(0), bytes_rate=Rate(0))
        self._tally = tally

    async def everything(self) -> None:
        selection = self._plan.selection
        sizes, there = await keyspace(self._source), await keyspace(self._target)
        self._owner.note_total(sum(count for db, count in sizes.items() if selection.has_db(db)))
        for db in sorted(filter(selection.has_db, sizes)):
            await self._scan(db, self._source, self._compare)
        await self._wait_idle()
        await self._second_look()
        for db in sorted(filter(selection.has_db, there)):
            await self._scan(db, self._target, self._look_for_extras)
        await self._second_look()
        if selection.everything:
            await self._compare_functions()

    async def _scan(self, db: int, pipe: Pipe, take: Callable[[int, list[bytes]], Any]) -> None:
        selection = self._plan.selection
        options = selection.scan_options()
        types = selection.types if len(selection.types) > 1 else frozenset()
        cursor = START
        while True:
            command = encode([b"SCAN", cursor, *options, b"COUNT", b"%d" % COUNT])
            cursor, keys = expect((await pipe.send(command, 1, db).wait())[0], "SCAN")
            keys = self._owner.sampled(selection.filter(keys))
            if types and keys:
                kinds = await pipe.pipeline([[b"TYPE", key] for key in keys], db)
                keys = [key for key, kind in zip(keys, kinds, strict=True) if kind in types]
            if keys:
                await self._rate.take(len(keys))
                await take(db, keys)
            if len(self._suspects) >= MAX_SUSPECTS:
                await self._wait_idle()
                await self._second_look()
            if cursor == START:
                return

    # -- first look ------------------------------------------------------------------------------------------------

    async def _compare(self, db: int, keys: list[bytes]) -> None:
        names = bulk.encoded(keys)
        sizes = await self._sizes(db, names)
        small = [index for index, size in enumerate(sizes) if size < PAGED_BYTES]
        if len(small) < len(keys):
            for index in sorted(set(range(len(keys))).difference(small)):
                self._big.add((db, keys[index]))
                self._suspects.append((db, keys[index]))
            keys, names, sizes = ([column[index] for index in small] for column in (keys, names, sizes))  # type: ignore[assignment]
        start = 0
        for end in bulk.cut(sizes, GROUP_KEYS, GROUP_BYTES) if keys else []:
            await self._read(db, keys[start:end], names[start:end], sizes[start:end])
            start = end

    async def _sizes(self, db: int, names: list[bytes]) -> list[int]:
        """The larger of the two sides' sizes in memory, of each key."""
        data, count = bulk.probe(names, types=False)
        tickets = [pipe.send(data, count, db) for pipe in self._pipes]
        told = [await ticket.wait() for ticket in tickets]
        if any(hiredis.ReplyError in set(map(type, replies)) for replies in told):
            return [UNKNOWN_BYTES] * count
        return [max(a or 0, b or 0) for a, b in zip(*told, strict=True)]

    async def _read(self, db: int, keys: list[bytes], names: list[bytes], sizes: list[int]) -> None:
        if not self._dump:
            self._suspects += [(db, key) for key in keys]
            return
        ends = bulk.cut(sizes, bulk.BLOCK_KEYS, bulk.BLOCK_BYTES)
        data: tuple[list[bytes], list[bytes]] = [], []
        counts = []
        start = 0
        for end in ends:
            blocks = [bulk.read_block(names[start:end], absolute=absolute) for absolute in self._absolute]
            for parts, (block, _) in zip(data, blocks, strict=True):
                parts.append(block)
            counts.append((blocks[0][1], blocks[1][1]))
            start = end
        cost = 2 * sum(sizes) + KEY_BYTES * len(keys)
        self._under_way += 1
        await self._budget.take(cost)
        first = self._source.send(b"".join(data[0]), sum(one for one, _ in counts), db)
        second = self._target.send(b"".join(data[1]), sum(two for _, two in counts), db)
        self._to_judge.send_nowait(_Pair(db, keys, ends, counts, (first, second), cost))

    async def judge_all(self) -> None:
        """Judge what was read, until cancelled. Errors: ConnectionLost."""
        async for pair in self._judged:
            replies = await pair.tickets[0].wait(), await pair.tickets[1].wait()
            self._judge(pair, replies)
            self._budget.give(pair.cost)
            self._under_way -= 1
            if not self._under_way:
                self._idle.unpark_all()

    def _judge(self, pair: _Pair, replies: tuple[list[Any], list[Any]]) -> None:
        report, start, positions = self._owner.report, 0, [0, 0]
        for end, counts in zip(pair.ends, pair.counts, strict=True):
            keys = pair.keys[start:end]
            sides = [
                bulk.parse_block(end - start, replies[side][at : at + counts[side]], absolute=self._absolute[side])
                for side, at in enumerate(positions)
            ]
            positions = [at + count for at, count in zip(positions, counts, strict=True)]
            start = end
            a, b = sides
            if isinstance(a, hiredis.ReplyError) or isinstance(b, hiredis.ReplyError):
                self._dump = False  # not allowed here: everything is read by type
                unequal = keys
            else:
                unequal = self._unequal(keys, a, b)
            self._suspects += [(pair.db, key) for key in unequal]
            report.are_equal(len(keys) - len(unequal))

    def _unequal(
        self, keys: list[bytes], a: tuple[list[int], list[bytes | None]], b: tuple[list[int], list[bytes | None]]
    ) -> list[bytes]:
        shift, tolerance = self._owner.shift_ms, self._plan.tolerance_ms
        return [
            key
            for key, until_a, until_b, value_a, value_b in zip(keys, a[0], b[0], a[1], b[1], strict=True)
            if (value_a is None or value_b is None or value_a[:-FOOTER_BYTES] != value_b[:-FOOTER_BYTES])
            or (until_a != until_b and (until_a < 0 or until_b < 0 or abs(until_b - until_a - shift) > tolerance))
        ]

    async def _wait_idle(self) -> None:
        while self._under_way:
            await self._idle.park()

    async def _look_for_extras(self, db: int, keys: list[bytes]) -> None:
        there = await self._source.pipeline([[b"EXISTS", key] for key in keys], db)
        self._suspects += [(db, key) for key, count in zip(keys, there, strict=True) if expect(count, "EXISTS") == 0]

    # -- second look -----------------------------------------------------------------------------------------------

    async def _second_look(self) -> None:
        """What is no finding at the first look by type is none; what is, is looked at again after a pause."""
        suspects, self._suspects = self._suspects, []
        findings: dict[Place, Finding] = {}
        for round_ in range(self._plan.rounds):
            findings = await self._differences(suspects)
            self._owner.report.are_equal(len(suspects) - len(findings))
            suspects = list(findings)
            if not suspects or round_ == self._plan.rounds - 1:
                break
            await trio.sleep(self._plan.pause)
        for finding in findings.values():
            self._owner.finding(finding)
        if self._plan.fix and findings:
            await self._fix(list(findings))
        self._big.clear()

    async def _differences(self, places: list[Place]) -> dict[Place, Finding]:
        found: dict[Place, Finding] = {}
        by_db: dict[int, list[bytes]] = {}
        for db, key in places:
            by_db.setdefault(db, []).append(key)
        for db, keys in by_db.items():
            sizes = await self._sizes(db, bulk.encoded(keys))
            start = 0
            small: list[bytes] = []
            small_sizes: list[int] = []
            for key, size in zip(keys, sizes, strict=True):
                if size >= PAGED_BYTES or (db, key) in self._big:
                    await self._compare_big((db, key), found)
                else:
                    small.append(key)
                    small_sizes.append(size)
            for end in bulk.cut(small_sizes, bulk.BLOCK_KEYS, GROUP_BYTES) if small else []:
                await self._compare_by_type(db, small[start:end], found)
                start = end
        return found

    async def _compare_big(self, place: Place, found: dict[Place, Finding]) -> None:
        plan = self._plan
        outcome = await compare_big(
            plan.source, plan.target, self._facts, place, shift_ms=self._owner.shift_ms, tolerance_ms=plan.tolerance_ms
        )
        self._note(place, outcome, found)

    async def _compare_by_type(self, db: int, keys: list[bytes], found: dict[Place, Finding]) -> None:
        first = await self._states(0, db, keys)
        second = await self._states(1, db, keys)
        for key, a, b in zip(keys, first, second, strict=True):
            outcome: Difference | Unreadable | None
            if isinstance(a, State) and isinstance(b, State):
                outcome = difference(a, b, shift_ms=self._owner.shift_ms, tolerance_ms=self._plan.tolerance_ms)
            else:
                outcome = a if isinstance(a, Unreadable) else b if isinstance(b, Unreadable) else None
            self._note((db, key), outcome, found)

    @staticmethod
    def _note(place: Place, outcome: Difference | Unreadable | None, found: dict[Place, Finding]) -> None:
        if outcome is not None:
            found[place] = Finding(*place, *verdict(outcome))

    async def _states(self, side: int, db: int, keys: Iterable[bytes]) -> list[State | Unreadable]:
        """The keys' states in form STRUCT, each at one point."""
        known: dict[bytes, State | Unreadable] = {}
        believed: dict[bytes, Believed] = dict.fromkeys(keys)
        left = list(believed)
        for _ in range(ATTEMPTS):
            if not left:
                break
            reads = [read_commands(k, Form.STRUCT, believed[k], known=self._facts[side].commands) for k in left]
            blocks = [[[b"MULTI"], *commands, [b"EXEC"]] for commands in reads]
            replies = await self._pipes[side].pipeline([command for block in blocks for command in block], db)
            position, again = 0, []
            for key, block in zip(left, blocks, strict=True):
                part = replies[position : position + len(block)]
                position += len(block)
                outcome = _parsed(key, part, believed[key])
                if isinstance(outcome, WrongType):
                    believed[key] = outcome
                    again.append(key)
                else:
                    known[key] = outcome
            left = again
        return [known.get(key, Unreadable("its type changes faster than it can be read")) for key in believed]

    # -- fixing, functions -----------------------------------------------------------------------------------------

    async def _fix(self, places: list[Place]) -> None:
        """Copy what differs, delete what is extra, and look whether that helped."""
        by_db: dict[int, list[bytes]] = {}
        for db, key in places:
            by_db.setdefault(db, []).append(key)
        self.copier.shift_ms = self._owner.shift_ms
        for db, keys in by_db.items():
            await self._target.enter(db)
            await self.copier.look_and_add(db, keys)
        await self.copier.wait_idle()
        self._owner.report.fixed += len(places) - len(await self._differences(places))

    async def _compare_functions(self) -> None:
        listing = [b"FUNCTION", b"LIST", b"WITHCODE"]
        sides = [await pipe.call(*listing) for pipe in self._pipes]
        libraries = [_libraries(reply) for reply in sides]
        differ = 0
        for name in sorted(libraries[0].keys() | libraries[1].keys()):
            a, b = (side.get(name) for side in libraries)
            status = Status.MISSING if b is None else Status.EXTRA if a is None else Status.VALUE
            if a != b:
                differ += 1
                where = {Status.MISSING: "only on the source", Status.EXTRA: "only on the target"}
                detail = f"a library of functions {where.get(status, 'with other code on the target')}"
                self._owner.finding(Finding(-1, name, status.value, detail))
        if differ and self._plan.fix:
            await copy_functions(self._source, self._target, self._tally)
            after = _libraries(await self._target.call(*listing))
            self._owner.report.fixed += differ - sum(libraries[0].get(n) != after.get(n) for n in after | libraries[0])


def _parsed(key: bytes, replies: list[Any], believed: Believed) -> State | WrongType | Unreadable:
    if not isinstance(replies[-1], list):
        return Unreadable(str(next((reply for reply in replies if isinstance(reply, hiredis.ReplyError)), "no EXEC")))
    return parse(key, Form.STRUCT, replies[-1], believed)


def _libraries(reply: Any) -> dict[bytes, bytes]:
    """Name -> code; nothing where the server has no functions, or does not show them."""
    if isinstance(reply, hiredis.ReplyError):
        return {}
    found = {}
    for row in reply:
        facts = row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True))
        found[facts[b"library_name"]] = facts[b"library_code"]
    return found
