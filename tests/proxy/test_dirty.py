"""Which keys must be copied: single transitions, and a model that knows what both sides really hold."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.dirty import MARK_BYTES, TRANSITIONS, DirtyKeys, Event, Mark, Step

K = (0, b"k")


def take(keys: DirtyKeys) -> Any:
    """The place of the next read."""
    taken = keys.take()
    return None if taken is None else taken[0]


def queued(keys: DirtyKeys, seq: int = 5) -> DirtyKeys:
    """K with its copy in the mirror queue."""
    keys.mark(K, "why")
    assert take(keys) == K
    keys.queued(K, seq)
    return keys


def test_read_copy_settled() -> None:
    keys = queued(DirtyKeys())
    assert K in keys
    assert keys.settled(K, 5)
    assert K not in keys
    assert keys.under_way == 0


@pytest.mark.parametrize(("seq", "clean"), [(4, True), (6, False), (None, False)])
def test_damage_while_the_copy_is_queued(seq: int | None, clean: bool) -> None:
    """What went wrong before the copy is cured by it."""
    keys = queued(DirtyKeys())
    keys.mark(K, "answered differently", seq=seq)
    assert keys.settled(K, 5) is clean
    assert (take(keys) == K) is not clean


def test_damage_while_the_read_is_in_the_lane() -> None:
    keys = DirtyKeys()
    keys.mark(K, "why")
    keys.take()
    keys.mark(K, "a lane reply: before the read's own")
    keys.queued(K, 5)
    assert keys.settled(K, 5)


def test_unordered_damage_is_never_covered_by_what_is_under_way() -> None:
    keys = DirtyKeys()
    keys.mark(K, "why")
    keys.take()
    keys.mark_unordered(K, "somewhere else")
    keys.queued(K, 5)
    assert not keys.settled(K, 5)
    assert take(keys) == K


def test_held_keys_are_not_read() -> None:
    keys = DirtyKeys()
    keys.hold(K, "in flight elsewhere")
    keys.hold(K, "twice")
    assert take(keys) is None
    keys.release(K)
    assert take(keys) is None
    keys.release(K)
    assert take(keys) == K


def test_the_reply_of_an_older_read_says_nothing() -> None:
    """It may be older than what was noticed since."""
    keys = DirtyKeys()
    keys.mark(K, "why")
    taken = keys.take()
    assert taken is not None
    keys.forget()
    keys.mark(K, "again")
    keys.take()
    assert not keys.reading(*taken)


def test_a_hold_while_the_copy_is_queued() -> None:
    keys = queued(DirtyKeys())
    keys.hold(K, "in flight elsewhere")
    assert not keys.settled(K, 5)
    assert take(keys) is None
    keys.release(K)
    assert take(keys) == K


def test_an_old_acknowledgement_settles_nothing() -> None:
    keys = queued(DirtyKeys())
    keys.again_all([K])
    keys.take()
    keys.queued(K, 9)
    assert not keys.settled(K, 5)
    assert keys.settled(K, 9)


def test_failed_copies_wait_for_their_retry() -> None:
    keys = queued(DirtyKeys())
    keys.failed(K, "OOM", due=10.0)
    assert take(keys) is None
    assert keys.retry(9.9) == 0
    assert [place for place, _ in keys.failing()] == [K]
    assert keys.retry(10.0) == 1
    assert take(keys) == K


def test_a_copy_that_was_damaged_may_rest_which_is_no_failure() -> None:
    keys = DirtyKeys()
    keys.mark(K, "answered differently")
    for lag in (True, False):
        keys.take()
        keys.queued(K, 5)
        keys.mark_unordered(K, "changed while a script ran", lag=True)
        keys.mark(K, "answered differently", lag=lag, seq=6)
        keys.rest(K, due=10.0)
        assert keys.dirty == (not lag)  # what it was marked for before is cured
        assert take(keys) is None and not list(keys.failing())
        keys.retry(10.0)


def test_a_copy_that_is_wanted_is_any_that_is_still_to_be_acknowledged() -> None:
    keys = queued(DirtyKeys())
    keys.want(K, "backfill")
    assert keys.settled(K, 5)
    keys.want(K, "backfill")
    assert (take(keys), keys.dirty) == (K, 0)


def test_lag_is_not_dirt_until_something_goes_wrong() -> None:
    keys = DirtyKeys()
    keys.mark(K, "a script", lag=True)
    assert (len(keys), keys.dirty) == (1, 0)
    keys.mark(K, "answered differently")
    assert (len(keys), keys.dirty) == (1, 1)
    keys.take()
    keys.queued(K, 1)
    keys.settled(K, 1)
    assert (len(keys), keys.dirty) == (0, 0)


def test_swapdb_moves_the_marks() -> None:
    keys = DirtyKeys()
    keys.mark((0, b"a"), "why")
    keys.mark((1, b"b"), "why")
    keys.mark((2, b"c"), "why")
    keys.relabel(0, 1)
    taken = {take(keys) for _ in range(6)}
    assert taken >= {(1, b"a"), (0, b"b"), (2, b"c")}


def test_swapdb_with_a_copy_under_way() -> None:
    keys = queued(DirtyKeys())
    keys.relabel(0, 1)
    assert not keys.settled(K, 5)
    assert take(keys) == (1, b"k")
    assert keys.under_way == 1


def test_a_release_after_swapdb() -> None:
    """The write is in the db of either name: both are read."""
    keys = DirtyKeys()
    keys.hold(K, "in flight elsewhere")
    keys.relabel(0, 1)
    keys.release(K)
    assert {take(keys), take(keys)} == {(0, b"k"), (1, b"k")}


def test_many_holds_and_releases_take_no_memory() -> None:
    """With the mirror side away nothing is taken."""
    keys = DirtyKeys()
    for _ in range(1000):
        keys.hold(K, "in flight elsewhere")
        keys.release(K)
    assert keys.waiting < 10


def test_every_step_lists_its_events() -> None:
    assert set(TRANSITIONS) == set(Step)
    with pytest.raises(KeyError):
        Mark("why", lag=False).advance(Event.SETTLED)


KEYS = [b"a", b"b"]
places = st.tuples(st.sampled_from([0, 1]), st.sampled_from(KEYS))


class Model(RuleBasedStateMachine):
    """Two servers, what is on its way between them, and the proxy's rules for what it must mark.

    A value is the tuple of what was appended since it was last set. The lane holds commands that were sent; the serving
    side runs them when it likes, in order; the replies are taken later. The mirror queue holds effects and copies.
    """

    def __init__(self) -> None:
        super().__init__()
        self.keys = DirtyKeys()
        self.serving: dict[Any, tuple] = {}
        self.mirror: dict[Any, tuple] = {}
        self.lane: deque[list[Any]] = deque()  # [what, place, value, executed, reply]
        self.queue: deque[list[Any]] = deque()  # [seq, what, place, value, expected]
        self.elsewhere: list[list[Any]] = []  # [place, value, executed]: writes on pinned connections
        self.seq = 0
        self.swapped_at = 0
        self.fresh = 0

    def value(self) -> int:
        self.fresh += 1
        return self.fresh

    # -- the serving side ----------------------------------------------------------------------------------------

    def run(self, what: str, place: Any, value: Any) -> Any:
        if what == "append":
            self.serving[place] = (*self.serving.get(place, ()), value)
            return len(self.serving[place])
        if what == "set":
            self.serving[place] = (value,)
        elif what == "delete":
            self.serving.pop(place, None)
        elif what == "swap":
            self.serving = {(1 - db, key): found for (db, key), found in self.serving.items()}
        elif what == "read":
            return self.serving.get(place)
        return None

    @rule(what=st.sampled_from(["append", "set", "delete"]), place=places)
    def client_writes(self, what: str, place: Any) -> None:
        self.lane.append([what, place, self.value(), False, None])

    @rule()
    def repair_reads(self) -> None:
        taken = self.keys.take()
        if taken is not None:
            place, serial = taken
            self.lane.append(["read", place, serial, False, None])

    @rule()
    def lane_executes(self) -> None:
        for item in self.lane:
            if not item[3]:
                item[3], item[4] = True, self.run(*item[:3])
                return

    @precondition(lambda self: self.lane and self.lane[0][3])
    @rule()
    def lane_replies(self) -> None:
        what, place, value, _, reply = self.lane.popleft()
        if what == "read":
            if self.keys.reading(place, value):
                self.seq += 1
                self.queue.append([self.seq, "copy", place, reply, None])
                self.keys.queued(place, self.seq)
            return
        self.seq += 1
        self.queue.append([self.seq, what, place, value, reply])
        if what == "swap":
            self.swapped_at = self.seq
            self.keys.relabel(0, 1)

    @precondition(lambda self: self.lane and self.lane[0][3] and self.lane[0][0] in ("append", "set", "delete"))
    @rule()
    def lane_replies_but_the_queue_is_full(self) -> None:
        _, place, *_ = self.lane.popleft()
        self.keys.mark(place, "mirror queue full")

    @rule()
    def lane_is_lost(self) -> None:
        """A swap that is lost sends everything back to filling: not in this model."""
        if any(item[0] == "swap" for item in self.lane):
            return
        lost, self.lane = self.lane, deque()
        for what, place, value, *_ in lost:
            if what == "read":
                if self.keys.reading(place, value):
                    self.keys.failed(place, "lane lost")
            else:
                self.keys.mark_unordered(place, "lane lost")

    # -- pinned connections --------------------------------------------------------------------------------------

    @rule(place=places)
    def pinned_write_is_sent(self, place: Any) -> None:
        self.keys.hold(place, "pinned")
        self.elsewhere.append([place, self.value(), False])

    @rule(data=st.data())
    def pinned_write_is_executed(self, data: st.DataObject) -> None:
        waiting = [write for write in self.elsewhere if not write[2]]
        if waiting:
            write = data.draw(st.sampled_from(waiting))
            self.run("append", write[0], write[1])
            write[2] = True

    @rule(data=st.data())
    def pinned_write_is_answered(self, data: st.DataObject) -> None:
        done = [write for write in self.elsewhere if write[2]]
        if done:
            write = data.draw(st.sampled_from(done))
            self.elsewhere.remove(write)
            self.keys.release(write[0])

    # -- the mirror side -----------------------------------------------------------------------------------------

    def apply(self, entry: list[Any]) -> Any:
        _, what, place, value, _ = entry
        if what == "append":
            self.mirror[place] = (*self.mirror.get(place, ()), value)
            return len(self.mirror[place])
        if what == "set":
            self.mirror[place] = (value,)
        elif what == "swap":
            self.mirror = {(1 - db, key): found for (db, key), found in self.mirror.items()}
        elif what == "delete" or (what == "copy" and value is None):
            self.mirror.pop(place, None)
        else:
            self.mirror[place] = value
        return None

    def damaged(self, entry: list[Any], reason: str) -> None:
        """An effect older than the last SWAPDB is known under both names."""
        seq, _, place, *_ = entry
        self.keys.mark(place, reason, seq=seq)
        if seq < self.swapped_at:
            self.keys.mark((1 - place[0], place[1]), reason, seq=seq)

    @precondition(lambda self: self.queue)
    @rule(refused=st.booleans(), rests=st.booleans())
    def mirror_answers(self, refused: bool, rests: bool = False) -> None:
        entry = self.queue.popleft()
        seq, what, place, _, expected = entry
        if what == "copy":
            if refused:
                if self.keys.is_queued(place, seq):
                    self.keys.failed(place, "OOM", due=1.0)
            else:
                self.apply(entry)
                if rests and self.keys.is_queued(place, seq) and self.keys.damaged(place):
                    self.keys.rest(place, due=1.0)
                else:
                    self.keys.settled(place, seq)
        elif what == "swap":
            self.apply(entry)
        elif refused or self.apply(entry) != expected:
            self.damaged(entry, "differs")

    @rule(applied=st.integers(0, 3))
    def mirror_is_lost(self, applied: int) -> None:
        """Some of what was sent is applied all the same. A swap that is lost: as above."""
        if any(entry[1] == "swap" for entry in self.queue):
            return
        lost, self.queue = list(self.queue), deque()
        for entry in lost[:applied]:
            self.apply(entry)
        for entry in lost:
            if entry[1] != "copy":
                self.damaged(entry, "mirror lost")
        self.keys.again_all(self.keys.queued_places())

    @rule()
    def retry(self) -> None:
        self.keys.retry(1.0)

    # -- what must hold ------------------------------------------------------------------------------------------

    def clean(self) -> set[Any]:
        """Places of which nothing is on its way."""
        swapping = any(item[0] == "swap" for item in (*self.lane, *(entry[1:] for entry in self.queue)))
        if swapping:
            return set()
        busy = {item[1] for item in self.lane if item[0] != "read"} | {entry[2] for entry in self.queue}
        busy |= {(db, write[0][1]) for write in self.elsewhere for db in (0, 1)}
        return {(db, key) for db in (0, 1) for key in KEYS} - busy

    @invariant()
    def clean_means_equal(self) -> None:
        for place in self.clean():
            if place not in self.keys:
                assert self.mirror.get(place) == self.serving.get(place), place

    @invariant()
    def counts_are_right(self) -> None:
        steps = [mark.step for mark in self.keys._marks.values()]
        assert self.keys.under_way == sum(step is not Step.WAITING for step in steps)
        assert 0 <= self.keys.dirty <= len(self.keys)
        assert self.keys.bytes == sum(MARK_BYTES + len(key) for _, key in self.keys.places())

    def teardown(self) -> None:
        """Left alone, everything becomes clean, and so equal."""
        for write in list(self.elsewhere):
            if not write[2]:
                self.run("append", write[0], write[1])
            self.keys.release(write[0])
        self.elsewhere.clear()
        for _ in range(20):
            self.keys.retry(1.0)
            for _ in range(8):
                self.repair_reads()
            while self.lane:
                self.lane_executes()
                if self.lane[0][3]:
                    self.lane_replies()
            while self.queue:
                self.mirror_answers(False)
        assert len(self.keys) == 0
        assert self.mirror == self.serving


class Swapping(Model):
    """The same with SWAPDB in the lane."""

    @precondition(lambda self: not any(item[0] == "swap" for item in self.lane))
    @rule()
    def client_swaps(self) -> None:
        self.lane.append(["swap", None, None, False, None])


SETTINGS = settings(max_examples=40, stateful_step_count=30, deadline=None)
Model.TestCase.settings = Swapping.TestCase.settings = SETTINGS
TestModel = Model.TestCase
TestSwapping = Swapping.TestCase
