"""Owns an import: the records of a file, in order, onto a server; what is wrong, with its line; when to stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from backfill.client import Client
from backfill.direct.selection import Selection
from backfill.errors import BackfillError, ConnectionLost

from .big_keys import BigKey
from .records import Bad, FileError, Head, Piece, item_size
from .writing import Done, Existing, Outcome, Target, Ttl

MAX_NAMED = 1000  # of problems in a report
BATCH_KEYS = 500
BATCH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Problem:
    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


class Stopped(BackfillError):
    """The import ended before the file did. What stands before that line is imported."""


@dataclass(slots=True)
class ImportReport:
    """What was done. `problems`: the first records that failed; `losses`: the first that were imported, but not all
    that is in them."""

    records: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    filtered: int = 0
    bad: int = 0
    problems: list[Problem] = field(default_factory=list)
    lossy: int = 0
    losses: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Policy:
    """`into_db`: the db for all records, whatever they say. `skip_bad`: go on behind a bad record."""

    existing: Existing = Existing.FAIL
    ttl: Ttl = Ttl.AUTO
    skip_bad: bool = False
    into_db: int | None = None


async def import_records(
    client: Client,
    found: Iterator[Piece | Bad],
    wanted: Selection,
    policy: Policy,
    report: ImportReport,
    progress: Callable[[int], None] = lambda records: None,
) -> None:
    """Import them all; `report` is true at any time. Errors: Stopped, BackfillError."""
    work = _Import(await Target.of(client), wanted, policy, report, progress)
    try:
        for one in found:
            await work.take(one)
        await work.flush()
    except FileError as problem:
        await work.give_up(flush=True)
        text = problem.text if problem.text.startswith("line ") else f"behind line {work.line}: {problem.text}"
        raise Stopped(text) from None
    except ConnectionLost as problem:
        raise ConnectionLost(f"{problem.text}; behind line {work.line}, run the same command again") from None
    except Stopped:
        await work.give_up(flush=False)
        raise


class _Import:
    """Puts whole keys into batches, and hands on the pieces of big ones."""

    def __init__(
        self, target: Target, wanted: Selection, policy: Policy, report: ImportReport, progress: Callable[[int], None]
    ) -> None:
        self._target = target
        self._wanted = wanted
        self._policy = policy
        self._report = report
        self._progress = progress
        self._batch: list[Piece] = []
        self._names: set[bytes] = set()
        self._bytes = 0
        self._db = -1
        self._big: BigKey | None = None
        self._ignored = False  # the key that goes on is not wanted
        self.line = 0

    async def take(self, one: Piece | Bad) -> None:
        """Errors: Stopped."""
        if isinstance(one, Bad):
            await self._bad(one)
            return
        self.line = max(self.line, one.head.line)
        if one.first:
            self._report.records += 1
            self._ignored = not self._is_wanted(one.head)
            self._report.filtered += self._ignored
        if self._ignored:
            return
        if one.first and one.last:
            await self._small(one)
        else:
            await self._piece(one)

    def _is_wanted(self, head: Head) -> bool:
        wanted = self._wanted
        return (
            wanted.has_db(head.db or 0) and wanted.admits(head.key) and (not wanted.types or head.kind in wanted.types)
        )

    def _db_of(self, head: Head) -> int:
        return self._policy.into_db if self._policy.into_db is not None else head.db or 0

    async def _small(self, piece: Piece) -> None:
        if self._db_of(piece.head) != self._db or piece.head.key in self._names:
            await self.flush()
        self._db = self._db_of(piece.head)
        self._batch.append(piece)
        self._names.add(piece.head.key)
        self._bytes += sum(map(item_size, piece.items))
        if len(self._batch) >= BATCH_KEYS or self._bytes >= BATCH_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write what waits. Errors: Stopped."""
        batch, self._batch, self._names, self._bytes = self._batch, [], set(), 0
        if not batch:
            return
        await self._target.enter(self._db)
        await self._target.clock()
        policy = self._policy
        done = await self._target.write(batch, policy.existing, policy.ttl, stop=not policy.skip_bad)
        for one in done:
            if one.outcome is not Outcome.FAILED:
                self._note(one)
        for one in done:
            if one.outcome is Outcome.FAILED:
                self._note(one)
        self._progress(self._report.records)

    async def _piece(self, piece: Piece) -> None:
        if piece.first:
            await self.flush()
            await self._target.enter(self._db_of(piece.head))
            await self._target.clock()
            self._big = BigKey(self._target, piece.head, self._policy.existing, self._policy.ttl)
            await self._big.begin()
        assert self._big is not None
        await self._big.write(piece)
        self._progress(self._report.records)
        if piece.last:
            big, self._big = self._big, None
            self._note(await big.finish())

    async def _bad(self, bad: Bad) -> None:
        if self._big is not None:
            big, self._big = self._big, None
            await big.drop()
        else:
            self._report.records += 1
        await self.flush()
        self.line = max(self.line, bad.line)
        self._fail(Problem(bad.line, bad.text))

    async def give_up(self, *, flush: bool) -> None:
        """The file cannot be read on, or shall not."""
        if self._big is not None:
            await self._big.drop()
        if flush:
            await self.flush()

    def _note(self, done: Done) -> None:
        if done.outcome is Outcome.FAILED:
            self._fail(Problem(done.head.line, done.text))
            return
        self._report.outcomes[done.outcome] += 1
        if done.text:
            self._report.lossy += 1
            if len(self._report.losses) < MAX_NAMED:
                self._report.losses.append(Problem(done.head.line, done.text))

    def _fail(self, problem: Problem) -> None:
        self._report.bad += 1
        if not self._policy.skip_bad:
            raise Stopped(str(problem))
        if len(self._report.problems) < MAX_NAMED:
            self._report.problems.append(problem)
