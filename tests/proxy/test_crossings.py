"""What counts as touched while its keys cross: the rule by which a copy without a place in the order is believed."""

from __future__ import annotations

from proxy.dirty import DirtyKeys, Place
from proxy.ferry.crossings import Crossings
from proxy.journal import BARRIER_DB, ENTRY

A, B, C = b"a", b"b", b"c"
KEYS = [A, B, C]


def entry(db: int, key: bytes) -> bytes:
    return ENTRY.pack(db, len(key)) + key


class Log:
    """Crossings of db 0, and what happens meanwhile."""

    def __init__(self) -> None:
        self.dirty = DirtyKeys()
        self.crossings = Crossings(self.dirty)

    def write(self, *keys: bytes, db: int = 0) -> None:
        self.crossings.now.written.append(b"".join(entry(db, key) for key in keys))

    def clean(self, key: bytes) -> None:
        self.crossings.now.cleaned.append((0, key))

    def settle(self) -> None:
        self.crossings.settled(self.crossings.turn())

    def begin(self, number: int = 1) -> None:
        self.crossings.begin(number, 0, KEYS, page=number)

    def end(self, number: int = 1) -> set[bytes]:
        return self.crossings.end(number)[1]


def test_what_nobody_writes_is_not_touched() -> None:
    log = Log()
    log.begin()
    log.write(b"another")
    assert log.end() == set()


def test_what_is_written_while_it_is_open_is_touched() -> None:
    log = Log()
    log.begin()
    log.write(A, b"another")
    log.settle()
    log.write(B)
    assert log.end() == {A, B}


def test_what_was_written_before_and_has_not_settled_is_touched() -> None:
    """It may be read before the write, and written behind its effect."""
    log = Log()
    log.write(A)
    log.settle()
    log.write(B)
    log.crossings.turn()
    log.write(C)
    log.begin()
    assert log.end() == {B, C}


def test_what_settles_while_it_is_open_is_touched_all_the_same() -> None:
    log = Log()
    log.write(A)
    log.begin()
    log.settle()
    log.settle()
    assert log.end() == {A}


def test_a_later_crossing_does_not_lose_what_an_earlier_one_needs() -> None:
    log = Log()
    log.write(A)
    log.begin(1)
    log.settle()
    log.begin(2)
    log.settle()
    assert log.end(2) == set()
    assert log.end(1) == {A}


def test_keys_of_another_db_are_others() -> None:
    log = Log()
    log.begin()
    log.write(A, db=1)
    assert log.end() == set()


def test_what_is_marked_at_the_end_is_touched() -> None:
    log = Log()
    log.dirty.mark((0, A), "an effect was lost")
    log.begin()
    log.dirty.hold((0, B), "a write is in flight elsewhere")
    assert log.end() == {A, B}


def test_what_became_clean_meanwhile_is_touched() -> None:
    """A write on a connection of its own is copied behind its reply: the crossing may have read what was before it, and
    have written that behind the copy."""
    log = Log()
    log.begin()
    log.clean(A)
    assert log.end() == {A}


def test_a_key_tells_when_it_becomes_clean() -> None:
    keys, told = DirtyKeys(), list[Place]()
    keys.cleaned = told
    keys.mark((0, A), "test")
    taken = keys.take()
    assert taken is not None
    keys.queued((0, A), 7)
    assert not told
    assert keys.settled((0, A), 7) and told == [(0, A)]


def test_a_command_that_touches_every_key_touches_all() -> None:
    log = Log()
    log.begin()
    log.write(b"FLUSHALL", db=BARRIER_DB)
    assert log.end() == {A, B, C}


def test_the_log_is_kept_for_no_longer_than_it_is_needed() -> None:
    log = Log()
    for _ in range(100):
        log.write(A)
        log.settle()
    assert log.crossings.size < 50
    log.begin()
    for _ in range(100):
        log.write(A)
        log.settle()
    assert log.crossings.size > 500
    log.end()
    log.settle()
    assert log.crossings.size == 0
