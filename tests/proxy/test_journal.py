"""The journal: whatever is left on disk, a start reads exactly what was noted, or says that it cannot know."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import journal as module
from proxy.dirty import Place
from proxy.journal import (
    BARRIER_DB,
    CARRIED_AT_ONCE,
    INTACT,
    KEEP_SECONDS,
    MAGIC,
    MAX_RECORD_BYTES,
    OLD,
    RECORD,
    SEGMENT_SECONDS,
    Journal,
    JournalError,
    Sync,
    crossings,
    forget_crossing,
    note_crossing,
    read_segment,
    unsettled,
)

KEYS = [b"plain", b"", b"\r\n$5\r\n\x00\xff", b"x" * 70_000]
AWKWARD: set[Place] = {(0, key) for key in KEYS} | {(15, b"plain")}


class Clock:
    """A wall clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class FullDisk:
    """os.write as on a disk with so many bytes left: a short write, then ENOSPC. On the journal's files only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
        self.left = left
        self._write = os.write
        monkeypatch.setattr("proxy.journal.os.write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if "journal" not in os.readlink(f"/proc/self/fd/{fd}"):
            return self._write(fd, data)
        if not self.left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(fd, data[: self.left])
        self.left -= written
        return written


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(directory: Path, clock: Clock) -> Any:
    journal = Journal(directory, wall=clock)
    journal.open(settled=True)
    yield journal
    journal.close()


def note(journal: Journal, *keys: bytes, db: int = 0) -> None:
    journal.note(db, keys)
    journal.commit()


def retire(journal: Journal, last: int, marked: list[Place]) -> None:
    """As the proxy does it, in one go."""
    for _ in journal.carry(marked):
        pass
    journal.retire(last)


def segments(directory: Path, suffix: str = ".log") -> list[Path]:
    return sorted(directory.glob("*" + suffix))


def reopened(directory: Path, clock: Callable[[], float], *, settled: bool = False) -> Journal:
    journal = Journal(directory, wall=clock)
    journal.open(settled=settled)
    return journal


# -- what is noted is there after a crash ------------------------------------------------------------------------


def test_what_was_committed_is_unsettled_after_a_crash(journal: Journal, directory: Path) -> None:
    for db, key in sorted(AWKWARD):
        journal.note(db, (key,))
    journal.commit()
    assert unsettled(directory) == AWKWARD


def test_keys_noted_together(journal: Journal, directory: Path) -> None:
    """Of one length or not."""
    together = [(0, [b"a", b"b", b"a"]), (7, [b"", b""]), (1, [b"long", b"longer"]), (2, [b"alone"])]
    for db, keys in together:
        journal.note_many(db, keys)
    journal.commit()
    assert unsettled(directory) == {(db, key) for db, keys in together for key in keys}


def test_nothing_is_written_before_the_commit(journal: Journal, directory: Path) -> None:
    journal.note(0, [b"a"])
    assert unsettled(directory) == set()
    journal.commit()
    assert unsettled(directory) == {(0, b"a")}


def test_a_commit_is_one_write_to_the_operating_system(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a buffer of the process, which a SIGKILL would take along; and not one system call for each key."""
    calls: list[int] = []
    write = os.write

    def counted(fd: int, data: bytes) -> int:
        calls.append(len(data))
        return write(fd, data)

    monkeypatch.setattr("proxy.journal.os.write", counted)
    note(journal, b"a", b"b", b"c")
    journal.commit()
    assert len(calls) == 1
    assert journal.size == segments(directory)[0].stat().st_size


def test_crossings_are_known_until_they_have_ended(journal: Journal, directory: Path) -> None:
    note_crossing(directory, "1", 0, KEYS)
    note_crossing(directory, "2", 15, [b"plain"])
    assert crossings(directory) == AWKWARD and unsettled(directory) == set()
    journal.note_one(0, KEYS[0])  # one that is not fine
    journal.commit()
    forget_crossing(directory, "1")
    assert crossings(directory) == {(15, b"plain")} and unsettled(directory) == {(0, KEYS[0])}


def test_crossings_of_a_former_proxy_are_noted_again(journal: Journal, directory: Path) -> None:
    """Also after a stop that was clean: they are marked from now on, which only the journal makes durable."""
    note_crossing(directory, "1", 0, KEYS)
    journal.close()
    again = Journal(directory)
    again.open(settled=True)
    again.close()
    assert crossings(directory) == set() and unsettled(directory) == {(0, key) for key in KEYS}


def test_a_crossing_that_cannot_be_written_leaves_nothing(journal: Journal, directory: Path) -> None:
    path = directory / "1.crossing"
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        note_crossing(directory, "1", 0, KEYS)
    assert not path.is_symlink()


def test_files_are_for_their_owner_only(journal: Journal, directory: Path) -> None:
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in segments(directory)} == {0o600}


@given(
    batches=st.lists(st.lists(st.tuples(st.integers(0, 0xFFFFFFFE), st.binary(max_size=40)), max_size=5), max_size=5)
)
def test_any_batches_are_read_as_they_were_written(
    batches: list[list[Place]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("any") / "journal"
    journal = Journal(directory)
    journal.open(settled=True)
    for batch in batches:
        for db, key in batch:
            journal.note(db, (key,))
        journal.commit()
    journal.close()
    (path,) = segments(directory)
    assert list(read_segment(path)) == [place for batch in batches for place in batch]


# -- a torn tail -------------------------------------------------------------------------------------------------


def test_a_tail_torn_at_every_byte(journal: Journal, directory: Path) -> None:
    (path,) = segments(directory)
    ends = {0: 0, len(MAGIC): 0}  # bytes of the file -> records that are whole
    for number in range(1, 4):
        note(journal, b"first %d" % number, b"second", db=number)
        ends[path.stat().st_size] = number
    data = path.read_bytes()
    whole = 0
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole = ends.get(length, whole)
        found = list(read_segment(path))
        wanted = [(number, key) for number in range(1, whole + 1) for key in (b"first %d" % number, b"second")]
        assert found == wanted, f"torn after {length} bytes"


def test_a_damaged_byte_anywhere_ends_the_segment_there(journal: Journal, directory: Path) -> None:
    """Never an exception, never a key that nobody noted."""
    (path,) = segments(directory)
    note(journal, b"one")
    first = path.stat().st_size
    note(journal, b"two")
    data = path.read_bytes()
    for index in range(len(MAGIC), len(data)):
        damaged = bytearray(data)
        damaged[index] ^= 0x41
        path.write_bytes(damaged)
        found = list(read_segment(path))
        assert found == ([] if index < first else [(0, b"one")]), f"damaged at {index}"


@pytest.mark.parametrize("length", [MAX_RECORD_BYTES + 1, 0xFFFFFFFF])
def test_a_length_that_cannot_be_is_a_torn_tail(journal: Journal, directory: Path, length: int) -> None:
    note(journal, b"one")
    (path,) = segments(directory)
    with path.open("ab") as file:
        file.write(RECORD.pack(length, 0))
    assert list(read_segment(path)) == [(0, b"one")]


def test_entries_that_do_not_fill_their_record(journal: Journal, directory: Path) -> None:
    """A record whose checksum is right and whose content is not: written by something else. No exception may come of
    it, nor may it pass for a journal that is complete."""
    note(journal, b"one")
    (path,) = segments(directory)
    body = struct.pack("<I", 7)
    with path.open("ab") as file:
        file.write(RECORD.pack(len(body), zlib.crc32(body)) + body)
    with pytest.raises(JournalError):
        unsettled(directory)


def test_a_torn_segment_before_a_whole_one(journal: Journal, directory: Path, clock: Clock) -> None:
    note(journal, b"before", b"torn")
    note(journal, b"lost")
    journal.close()
    (path,) = segments(directory)
    path.write_bytes(path.read_bytes()[:-1])
    second = reopened(directory, clock)
    note(second, b"after")
    second.close()
    assert unsettled(directory) == {(0, b"before"), (0, b"torn"), (0, b"after")}


def test_an_empty_segment(journal: Journal, directory: Path) -> None:
    (directory / "000000000009.log").touch()
    note(journal, b"a")
    assert unsettled(directory) == {(0, b"a")}


# -- what cannot be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [b"crossfade journal 2\n", b"garbage", b"\x00" * 64, MAGIC[:-1] + b"\r\n"])
def test_another_version_is_an_error_that_names_the_file(journal: Journal, directory: Path, header: bytes) -> None:
    (path,) = segments(directory)
    path.write_bytes(header + path.read_bytes()[len(MAGIC) :])
    with pytest.raises(JournalError, match=r"000000000001\.log") as caught:
        unsettled(directory)
    assert "version" in caught.value.text


def test_without_its_mark_the_journal_is_not_complete(journal: Journal, directory: Path) -> None:
    note(journal, b"a")
    (directory / INTACT).unlink()
    assert unsettled(directory) is None


def test_no_journal_at_all_is_not_complete(directory: Path) -> None:
    assert unsettled(directory) is None


def test_a_barrier_means_every_key(journal: Journal, directory: Path) -> None:
    note(journal, b"a")
    assert unsettled(directory) == {(0, b"a")}
    journal.note_barrier(b"FLUSHALL")
    journal.commit()
    assert (BARRIER_DB, b"FLUSHALL") in set(read_segment(segments(directory)[0]))
    assert unsettled(directory) is None


def test_a_barrier_is_retired_as_soon_as_it_has_settled(journal: Journal, directory: Path) -> None:
    note(journal, b"a")
    assert not journal.due
    journal.note_barrier(b"SWAPDB")
    journal.commit()
    assert journal.due
    retire(journal, journal.rotate(), [])
    assert not journal.due
    assert unsettled(directory) == set()


# -- rotation ----------------------------------------------------------------------------------------------------


def test_settled_keys_leave_and_marked_keys_stay(journal: Journal, directory: Path) -> None:
    note(journal, b"settled", b"marked")
    last = journal.rotate()
    note(journal, b"new")
    assert unsettled(directory) == {(0, b"settled"), (0, b"marked"), (0, b"new")}
    retire(journal, last, [(0, b"marked")])
    assert unsettled(directory) == {(0, b"marked"), (0, b"new")}


def test_a_crash_between_rotation_and_retirement_loses_nothing(journal: Journal, directory: Path, clock: Clock) -> None:
    note(journal, b"a")
    journal.rotate()
    journal.close()
    assert unsettled(directory) == {(0, b"a")}
    again = reopened(directory, clock)
    note(again, b"b")
    assert unsettled(directory) == {(0, b"a"), (0, b"b")}
    retire(again, again.rotate(), [])
    assert unsettled(directory) == set()
    again.close()


def test_marked_keys_are_noted_before_the_old_segment_goes(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(journal, b"marked")
    last = journal.rotate()
    FullDisk(monkeypatch, 0)
    retire(journal, last, [(0, b"marked")])
    assert journal.problem
    assert (0, b"marked") in {place for path in segments(directory) for place in read_segment(path)}


def test_retired_segments_are_kept_for_some_minutes(journal: Journal, directory: Path, clock: Clock) -> None:
    note(journal, b"a")
    retire(journal, journal.rotate(), [])
    assert len(segments(directory, OLD)) == 1
    assert journal.recent() == {(0, b"a")}
    clock.now += KEEP_SECONDS / 2
    note(journal, b"b")
    retire(journal, journal.rotate(), [])
    assert journal.recent() == {(0, b"a"), (0, b"b")}
    clock.now += KEEP_SECONDS / 2 + 1
    retire(journal, journal.rotate(), [])
    assert journal.recent() == {(0, b"b")}
    assert journal.size == sum(path.stat().st_size for path in directory.glob("0*"))


def test_recent_has_what_is_not_committed_yet(journal: Journal) -> None:
    journal.note(3, [b"a"])
    assert journal.recent() == {(3, b"a")}


def test_a_segment_is_due_by_size_and_by_age(journal: Journal, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.now += SEGMENT_SECONDS + 1
    assert not journal.due  # nothing in it
    note(journal, b"a")
    assert journal.due
    journal.rotate()
    assert not journal.due
    monkeypatch.setattr(module, "SEGMENT_BYTES", 1000)
    note(journal, b"x" * 1000)
    assert journal.due


def test_marked_keys_that_are_carried_along_do_not_fill_a_segment(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would be begun anew each second, as long as the mirror side is away, with all of them on disk each time."""
    monkeypatch.setattr(module, "SEGMENT_BYTES", 1000)
    marked = [(0, b"%0100d" % n) for n in range(50)]
    note(journal, *(key for _, key in marked))
    assert journal.due
    retire(journal, journal.rotate(), marked)
    carried = journal.size
    assert not journal.due
    note(journal, b"x" * 2000)
    assert not journal.due  # not before as much is new as is carried
    note(journal, b"x" * carried)
    assert journal.due


def test_many_marked_keys_are_carried_in_portions(journal: Journal, directory: Path) -> None:
    """Clients get their turn in between."""
    marked = [(0, b"%d" % n) for n in range(CARRIED_AT_ONCE * 3)]
    last = journal.rotate()
    assert len(list(journal.carry(marked))) == 3
    journal.retire(last)
    assert unsettled(directory) == set(marked)


def test_retired_segments_are_bounded_in_bytes(
    journal: Journal, directory: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written in the last minutes is not known then, until as many minutes have passed."""
    monkeypatch.setattr(module, "KEEP_BYTES", 1000)
    for _ in range(3):
        note(journal, b"x" * 600)
        retire(journal, journal.rotate(), [])
    assert len(segments(directory, OLD)) == 1
    assert journal.recent() is None
    clock.now += KEEP_SECONDS + 1
    assert journal.recent() is not None


def test_more_keys_than_fit_into_memory_are_not_read_back(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(journal, *(b"%d" % n for n in range(10)))
    assert len(journal.recent() or ()) == len(unsettled(directory) or ()) == 10
    monkeypatch.setattr(module, "MAX_PLACES", 9)
    assert journal.recent() is None
    assert unsettled(directory) is None


def test_numbers_go_on_over_a_restart(journal: Journal, directory: Path, clock: Clock) -> None:
    note(journal, b"a")
    journal.rotate()
    journal.close()
    again = reopened(directory, clock)
    again.close()
    assert [path.name for path in segments(directory)] == [f"{number:012d}.log" for number in (1, 2, 3)]


def test_after_a_clean_stop_the_old_segments_are_settled(journal: Journal, directory: Path, clock: Clock) -> None:
    """They are still of use (a server may lose its last minutes), but no crash to come makes them unsettled again."""
    note(journal, b"a")
    journal.note_barrier(b"FLUSHALL")
    journal.commit()
    journal.close()
    again = reopened(directory, clock, settled=True)
    note(again, b"b")
    again.close()  # killed
    assert unsettled(directory) == {(0, b"b")}


# -- the disk is full --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1, RECORD.size, 20])
def test_a_full_disk_is_known_to_the_next_start(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    note(journal, b"before")
    FullDisk(monkeypatch, left)
    note(journal, b"does not fit")
    assert "No space left" in journal.problem
    assert unsettled(directory) is None
    (path,) = segments(directory)
    assert list(read_segment(path)) == [(0, b"before")]
    assert path.stat().st_size == journal.size  # the torn record is gone: what comes later can be read


def test_with_space_again_it_becomes_complete(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullDisk(monkeypatch, 5)
    note(journal, b"a")
    disk.left = 1 << 20
    note(journal, b"b")
    assert unsettled(directory) is None and journal.due
    retire(journal, journal.rotate(), [(0, b"marked")])
    assert not journal.problem
    assert unsettled(directory) == {(0, b"marked")}
    note(journal, b"c")
    assert unsettled(directory) == {(0, b"marked"), (0, b"c")}


def test_a_rotation_on_a_full_disk_can_be_tried_again(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(journal, b"before")
    disk = FullDisk(monkeypatch, 0)
    for left in (0, 0, 3):  # a header cut short is as bad as none
        disk.left = left
        with pytest.raises(OSError, match="No space left"):
            journal.rotate()
    note(journal, b"lost")
    disk.left = 1 << 20
    retire(journal, journal.rotate(), [])
    note(journal, b"after")
    assert unsettled(directory) == {(0, b"after")}


def test_a_rotation_that_fails_leaks_no_descriptor(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    FullDisk(monkeypatch, 0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError):
            journal.rotate()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_write_lost_after_the_rotation_is_not_forgiven_by_the_retirement(
    journal: Journal, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """retire() knows that everything *before* the rotation has settled; not so what failed to be noted since."""
    disk = FullDisk(monkeypatch, 0)
    note(journal, b"lost and settled")
    disk.left = len(MAGIC)
    last = journal.rotate()
    note(journal, b"lost and under way")
    disk.left = 1 << 20
    retire(journal, last, [])
    assert unsettled(directory) is None


# -- fsync -------------------------------------------------------------------------------------------------------


@pytest.fixture
def fsyncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    fsync = os.fsync

    def traced(fd: int) -> None:
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    monkeypatch.setattr("proxy.journal.os.fsync", traced)
    return calls


def with_policy(directory: Path, sync: Sync) -> Journal:
    journal = Journal(directory, sync=sync)
    journal.open(settled=True)
    return journal


def test_always_syncs_with_every_commit(directory: Path, fsyncs: list[str]) -> None:
    journal = with_policy(directory, Sync.ALWAYS)
    before = len(fsyncs)
    note(journal, b"a")
    note(journal, b"b")
    assert fsyncs[before:] == ["000000000001.log"] * 2
    journal.sync()
    assert len(fsyncs) == before + 2
    journal.close()


def test_everysec_syncs_when_told_and_only_what_is_new(directory: Path, fsyncs: list[str]) -> None:
    journal = with_policy(directory, Sync.EVERYSEC)
    before = len(fsyncs)
    note(journal, b"a")
    assert len(fsyncs) == before
    journal.sync()
    journal.sync()
    assert fsyncs[before:] == ["000000000001.log"]
    journal.close()


def test_never_does_not_sync(directory: Path, fsyncs: list[str]) -> None:
    journal = with_policy(directory, Sync.NEVER)
    note(journal, b"a")
    journal.sync()
    assert not fsyncs
    journal.close()


def test_everysec_does_not_forget_the_segment_that_was_rotated_away(directory: Path, fsyncs: list[str]) -> None:
    journal = with_policy(directory, Sync.EVERYSEC)
    note(journal, b"a")
    journal.rotate()
    journal.sync()
    assert "000000000001.log" in fsyncs
    journal.close()


def test_an_fsync_that_fails_is_a_problem(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = with_policy(directory, Sync.ALWAYS)

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("proxy.journal.os.fsync", fail)
    note(journal, b"a")
    assert "Input/output" in journal.problem
    assert unsettled(directory) is None
    monkeypatch.undo()
    journal.close()
