"""`crossfade compare`: two servers, key by key, both ways, without a proxy.

Owns the run. A page of the source's keys is read on both sides as DUMP payloads; what is equal byte for byte and has
the same deadline is equal. The others are read by type and judged (`looking`); what differs still is looked at again
after a pause, ROUNDS times, as it may have changed between the two reads; then it is a finding. Keys that only the
target has are found by a scan of the target. Killed at any time, it goes on (`comparing_progress`): what was found is
on the disk, with the checkpoint that says so, before any of it is mended.

Memory: the bytes of a few groups, and MAX_SUSPECTS keys, whatever the number of keys.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import hiredis
import trio

from resp.encode import encode

from ..compare import FOOTER_BYTES, Status
from ..errors import BackfillError
from ..findings import Finding, FindingsFile
from ..scan import START
from ..url import Url
from . import bulk
from .comparing_progress import ComparisonFile, Page, Progress, Report, Stage
from .copier import BUDGET_BYTES, GROUP_BYTES, GROUP_KEYS, KEY_BYTES, PAGED_BYTES, Copier
from .limits import Budget, Rate
from .looking import Look, by_db
from .nurseries import open_nursery
from .pages import BigKeys
from .patience import TROUBLE, Patience
from .pipe import Pipe, Ticket
from .selection import Selection
from .sides import Facts, expect, fence, keyspace, learn, shift_between
from .tally import Place, Position, Tally
from .walking import COUNT, copy_functions, missing_on

MAX_SUSPECTS = 50_000  # keys to be looked at again; when there are as many, that comes first
CLOCK_S = 10.0
SAVE_S = 1.0
SAVES_SHARE = 20  # saving takes at most one part in so many of the time

Say = Callable[[str], None]
Take = Callable[[Page, list[bytes]], Awaitable[None]]  # what is done with the keys of a page


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
    patience: float = 60.0  # without any progress, once both servers were there


@dataclass(slots=True)
class _Pair:
    """Keys read on both sides."""

    page: Page
    keys: list[bytes]
    ends: list[int]
    counts: list[tuple[int, int]]
    tickets: tuple[Ticket, Ticket]
    cost: int


class Comparison:
    """One run. `report` at any time; `run()` once. Without a checkpoint it cannot go on after a kill."""

    def __init__(
        self,
        plan: ComparePlan,
        checkpoint: ComparisonFile | None = None,
        findings: FindingsFile | None = None,
        say: Say = lambda text: None,
    ) -> None:
        self._plan = plan
        self._checkpoint, self._findings, self._say = checkpoint, findings, say
        self._began = time.monotonic()
        self._progress = Progress(share=plan.sample, seed=plan.seed)
        self._run_ids: tuple[str, str] | None = None  # of the processes that the progress is of
        self._fences: list[int] = []  # ids of our connections to the target
        self._connected = False
        self._patience = Patience(plan.patience, say)
        self._one_save = trio.Lock()

    def __repr__(self) -> str:
        return f"<Comparison {self._progress!r}>"

    @property
    def report(self) -> Report:
        return self._progress.report

    async def run(self) -> None:
        """All of it. Errors: ConnectError, ConnectionLost, ServerRefuses, CheckpointError, FindingsError."""
        self._load()
        try:
            await self._attempts_until_done()
            self.report.complete = True
        finally:
            self.report.seconds = round(time.monotonic() - self._began, 3)
            self._end()

    def _load(self) -> None:
        saved = self._checkpoint.load() if self._checkpoint is not None else None
        if self._findings is not None:
            if saved is None:
                self._findings.begin()
            else:
                self._findings.go_on(saved.findings_bytes)
        if saved is not None:
            assert self._checkpoint is not None
            self._progress, self._run_ids, self._fences = saved.progress, saved.run_ids, saved.client_ids
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(saved.at))
            told = f"{self.report.checked:,} keys were compared before (--restart begins anew)"
            self._say(f"going on from the checkpoint {self._checkpoint.path} of {when}: {told}")

    async def _attempts_until_done(self) -> None:
        while True:
            try:
                return await self._attempt()
            except TROUBLE as problem:
                trouble: BackfillError = problem
            if not self._connected:
                raise trouble
            await self._patience.again(trouble, self._progress.reached)

    async def _attempt(self) -> None:
        plan = self._plan
        self._progress.go_back()
        async with (
            Pipe.open(plan.source.with_db(0), name="crossfade-compare") as source,
            Pipe.open(plan.target.with_db(0), name="crossfade-compare") as target,
        ):
            facts = await learn(source), await learn(target)
            await self._same_processes(target, facts)
            self._connected = True
            self._fences.append(target.wire.client_id)
            look = Look(
                (plan.source, plan.target),
                (source, target),
                facts,
                types=plan.selection.types,
                tolerance_ms=plan.tolerance_ms,
                paged_bytes=PAGED_BYTES,
            )
            look.shift_ms = await shift_between(source, target)
            big = BigKeys(plan.source, plan.target, facts, self._fences, types=plan.selection.types, live=False)
            run = _Run(plan, self._progress, self._findings, (source, target), facts, look, big, self._save)
            async with open_nursery() as nursery:
                nursery.start_soon(self._keep_clock, source, target, look)
                nursery.start_soon(self._save_regularly)
                nursery.start_soon(run.judge_all)
                if plan.fix:
                    nursery.start_soon(run.copier.run)
                await run.everything()
                nursery.cancel_scope.cancel()

    async def _same_processes(self, target: Pipe, facts: tuple[Facts, Facts]) -> None:
        """Fence what earlier connections left behind; begin anew where a server is not the one that it was."""
        before, run_ids = self._run_ids, (facts[0].run_id, facts[1].run_id)
        if before is not None and before[1] == run_ids[1]:
            for client_id in self._fences:
                await fence(target, client_id)
        self._fences.clear()
        if before is None or before == run_ids:
            self._run_ids = run_ids
            return
        which = "source" if before[0] != run_ids[0] else "target"
        kept = self._findings.put_aside() if self._findings is not None else None
        rest = f" (what was found so far is in {kept})" if kept is not None else ""
        self._say(f"the {which} was restarted, or is another server: the comparison begins anew{rest}")
        self._progress, self._run_ids = Progress(share=self._plan.sample, seed=self._plan.seed), run_ids
        self._patience.begin_anew()
        await self._save()
        if self._findings is not None:
            self._findings.empty()

    @staticmethod
    async def _keep_clock(source: Pipe, target: Pipe, look: Look) -> None:
        while True:
            await trio.sleep(CLOCK_S)
            look.shift_ms = await shift_between(source, target)

    # -- the checkpoint --------------------------------------------------------------------------------------------

    def _document(self) -> dict[str, Any] | None:
        if self._checkpoint is None or self._run_ids is None:
            return None
        size = self._findings.size if self._findings is not None else 0
        return self._checkpoint.document(self._progress, self._run_ids, self._fences, size)

    def _write(self, document: dict[str, Any]) -> None:
        """The findings first: what the checkpoint says of them must be there."""
        assert self._checkpoint is not None
        if self._findings is not None:
            self._findings.sync()
        self._checkpoint.write(document)

    async def _save(self) -> None:
        """Errors: CheckpointError, FindingsError."""
        if (document := self._document()) is not None:
            await self._saving(document)

    async def _saving(self, document: dict[str, Any]) -> None:
        async with self._one_save:
            await trio.to_thread.run_sync(self._write, document)

    async def _save_regularly(self) -> None:
        while True:
            began = trio.current_time()
            await self._save()
            await trio.sleep(max(SAVE_S, SAVES_SHARE * (trio.current_time() - began)))

    def _end(self) -> None:
        if self._checkpoint is None:
            return
        if self.report.complete:
            self._checkpoint.remove()
        elif (document := self._document()) is not None:
            self._write(document)


class _Run:
    """The work on two open pipes."""

    def __init__(
        self,
        plan: ComparePlan,
        progress: Progress,
        findings: FindingsFile | None,
        pipes: tuple[Pipe, Pipe],
        facts: tuple[Facts, Facts],
        look: Look,
        big: BigKeys,
        save: Callable[[], Awaitable[None]],
    ) -> None:
        self._plan, self._progress, self._findings = plan, progress, findings
        self._source, self._target = self._pipes = pipes
        self._absolute = tuple(b"PEXPIRETIME" in each.commands for each in facts)
        self._look, self._save = look, save
        self._budget = Budget(BUDGET_BYTES)
        self._rate = Rate(plan.keys_rate)
        self._big: set[Place] = set()  # of the suspects
        self._to_judge, self._judged = trio.open_memory_channel[_Pair](inf)  # bounded by the budget
        self._under_way = 0
        self._idle = trio.lowlevel.ParkingLot()
        self._dump = True  # both sides show payloads
        self._tally = Tally()
        self.copier = Copier(
            *pipes, facts, self._tally, big, types=plan.selection.types, keys_rate=Rate(0), bytes_rate=Rate(0)
        )

    async def everything(self) -> None:
        progress = self._progress
        if progress.mending:
            await self._mend()
        stages = {
            Stage.SOURCE: self._compare_source,
            Stage.TARGET: self._compare_target,
            Stage.FUNCTIONS: self._compare_functions,
        }
        while progress.stage is not Stage.DONE:
            await stages[progress.stage]()

    async def _compare_source(self) -> None:
        selection, progress = self._plan.selection, self._progress
        sizes = await keyspace(self._source)
        total = progress.report.total = sum(count for db, count in sizes.items() if selection.has_db(db))
        if self._plan.sample_keys and progress.position == Position():
            progress.share = min(1.0, self._plan.sample_keys / total) if total else 1.0
        await self._scan(self._source, sizes, self._compare)

    async def _compare_target(self) -> None:
        await self._scan(self._target, await keyspace(self._target), self._look_for_extras)

    async def _scan(self, pipe: Pipe, dbs: dict[int, int], take: Take) -> None:
        """A whole stage, from the position on."""
        position = self._progress.position
        for db in sorted(filter(self._plan.selection.has_db, dbs)):
            if db not in position.done:
                await self._scan_db(pipe, db, position.cursor if position.db == db else START, take)
        await self._wait_idle()
        await self._second_look()
        self._progress.go_on()

    async def _scan_db(self, pipe: Pipe, db: int, cursor: bytes, take: Take) -> None:
        selection = self._plan.selection
        options = selection.scan_options()
        types = selection.types if len(selection.types) > 1 else frozenset()
        while True:
            if self._progress.suspected >= MAX_SUSPECTS:
                await self._wait_idle()
                await self._second_look()
            command = encode([b"SCAN", cursor, *options, b"COUNT", b"%d" % COUNT])
            cursor, keys = expect((await pipe.send(command, 1, db).wait())[0], "SCAN")
            keys = self._sampled(selection.filter(keys))
            if types and keys:
                kinds = await pipe.pipeline([[b"TYPE", key] for key in keys], db)
                keys = [key for key, kind in zip(keys, kinds, strict=True) if kind in types]
            page = self._progress.begin_page(db, cursor, len(keys))
            if keys:
                await self._rate.take(len(keys))
                await take(page, keys)
            self._progress.looked_at(page)
            if cursor == START:
                return

    def _sampled(self, keys: list[bytes]) -> list[bytes]:
        """By a hash of the name, so that both sides' scans choose the same."""
        progress = self._progress
        if progress.share >= 1.0:
            return keys
        limit = int(progress.share * 2**32)
        return [key for key in keys if zlib.crc32(key, progress.seed) < limit]

    # -- first look ------------------------------------------------------------------------------------------------

    async def _compare(self, page: Page, keys: list[bytes]) -> None:
        names = bulk.encoded(keys)
        sizes = await self._look.sizes(page.db, names)
        small = [index for index, size in enumerate(sizes) if size < PAGED_BYTES]
        if len(small) < len(keys):
            for index in sorted(set(range(len(keys))).difference(small)):
                self._big.add((page.db, keys[index]))
                page.suspects.append((page.db, keys[index]))
            keys, names, sizes = ([column[index] for index in small] for column in (keys, names, sizes))  # type: ignore[assignment]
        start = 0
        for end in bulk.cut(sizes, GROUP_KEYS, GROUP_BYTES) if keys else []:
            await self._read(page, keys[start:end], names[start:end], sizes[start:end])
            start = end

    async def _read(self, page: Page, keys: list[bytes], names: list[bytes], sizes: list[int]) -> None:
        if not self._dump:
            page.suspects += [(page.db, key) for key in keys]
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
        page.pending += 1
        self._under_way += 1
        await self._budget.take(cost)
        first = self._source.send(b"".join(data[0]), sum(one for one, _ in counts), page.db)
        second = self._target.send(b"".join(data[1]), sum(two for _, two in counts), page.db)
        self._to_judge.send_nowait(_Pair(page, keys, ends, counts, (first, second), cost))

    async def judge_all(self) -> None:
        """Judge what was read, until cancelled. Errors: ConnectionLost."""
        async for pair in self._judged:
            replies = await pair.tickets[0].wait(), await pair.tickets[1].wait()
            self._judge(pair, replies)
            self._progress.looked_at(pair.page)
            self._budget.give(pair.cost)
            self._under_way -= 1
            if not self._under_way:
                self._idle.unpark_all()

    def _judge(self, pair: _Pair, replies: tuple[list[Any], list[Any]]) -> None:
        page, start, positions = pair.page, 0, [0, 0]
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
            page.suspects += [(page.db, key) for key in unequal]
            page.equal += len(keys) - len(unequal)

    def _unequal(
        self, keys: list[bytes], a: tuple[list[int], list[bytes | None]], b: tuple[list[int], list[bytes | None]]
    ) -> list[bytes]:
        shift, tolerance = self._look.shift_ms, self._plan.tolerance_ms
        return [
            key
            for key, until_a, until_b, value_a, value_b in zip(keys, a[0], b[0], a[1], b[1], strict=True)
            if (value_a is None or value_b is None or value_a[:-FOOTER_BYTES] != value_b[:-FOOTER_BYTES])
            or (until_a != until_b and (until_a < 0 or until_b < 0 or abs(until_b - until_a - shift) > tolerance))
        ]

    async def _wait_idle(self) -> None:
        while self._under_way:
            await self._idle.park()

    async def _look_for_extras(self, page: Page, keys: list[bytes]) -> None:
        missing = await missing_on(self._source, self._plan.selection, page.db, keys)
        page.suspects += [(page.db, key) for key in missing]

    # -- second look -----------------------------------------------------------------------------------------------

    async def _second_look(self) -> None:
        """What is no finding at the first look by type is none; what is, is looked at again after a pause. Until the
        last look the suspects stay what they are."""
        suspects = dict.fromkeys(self._progress.suspects)
        left, findings = list(suspects), dict[Place, Finding]()
        for round_ in range(self._plan.rounds):
            findings = await self._look.differences(left, self._big)
            left = list(findings)
            if not left or round_ == self._plan.rounds - 1:
                break
            await trio.sleep(self._plan.pause)
        self._found(list(findings.values()), len(suspects))
        self._big.clear()
        if self._progress.mending:
            await self._save()
            await self._mend()

    def _found(self, findings: list[Finding], suspects: int = 0) -> None:
        """Tell, and count: one step."""
        if self._findings is not None and findings:
            self._findings.tell(findings)
        self._progress.judged(findings, suspects=suspects, mend=self._plan.fix)

    # -- mending ---------------------------------------------------------------------------------------------------

    async def _mend(self) -> None:
        """Copy what differs, delete what is extra, and look whether that helped."""
        places = self._progress.mending
        libraries = [name for db, name in places if db < 0]
        if libraries:
            left = await self._mend_functions(libraries)
        else:
            self.copier.shift_ms = self._look.shift_ms
            for db, keys in by_db(places).items():
                await self._target.enter(db)
                await self.copier.look_and_add(db, keys)
            await self.copier.wait_idle()
            left = len(await self._look.differences(places, set()))
        self._progress.mended(left)

    async def _compare_functions(self) -> None:
        if self._plan.selection.everything:
            libraries = await self._libraries(0), await self._libraries(1)
            names = sorted(libraries[0].keys() | libraries[1].keys())
            self._found([_library(name, *libraries) for name in names if _differs(name, *libraries)])
        self._progress.go_on()
        if self._progress.mending:
            await self._save()
            await self._mend()

    async def _mend_functions(self, names: list[bytes]) -> int:
        """How many of these libraries differ still."""
        await copy_functions(self._source, self._target, self._tally)
        libraries = await self._libraries(0), await self._libraries(1)
        return sum(_differs(name, *libraries) for name in names)

    async def _libraries(self, side: int) -> dict[bytes, bytes]:
        """Name -> code; nothing where the server has no functions, or does not show them."""
        reply = await self._pipes[side].call(b"FUNCTION", b"LIST", b"WITHCODE")
        if isinstance(reply, hiredis.ReplyError):
            return {}
        found = {}
        for row in reply:
            facts = row if isinstance(row, dict) else dict(zip(row[::2], row[1::2], strict=True))
            found[facts[b"library_name"]] = facts[b"library_code"]
        return found


def _differs(name: bytes, a: dict[bytes, bytes], b: dict[bytes, bytes]) -> bool:
    return a.get(name) != b.get(name)


def _library(name: bytes, a: dict[bytes, bytes], b: dict[bytes, bytes]) -> Finding:
    status = Status.MISSING if name not in b else Status.EXTRA if name not in a else Status.VALUE
    where = {Status.MISSING: "only on the source", Status.EXTRA: "only on the target"}
    detail = f"a library of functions {where.get(status, 'with other code on the target')}"
    return Finding(-1, name, status.value, detail)
