"""The mirror queue: in order, every reply judged, nothing lost silently, never in a client's way."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import pytest
import trio

from backfill.codec import Form
from proxy.effects.model import Effect
from proxy.mirror import MANY, Mirror
from resp.encode import encode
from tests.proxy.stage import CLOCK, ERROR, NIL, OK, ONE, OOM, QUEUED, Stage, array, bulk, dumped, number

FOREVER = number(-1)


def write(stage: Stage, command: str, reply: bytes = OK) -> None:
    """A client's write, answered by the serving side."""
    client = stage.clients[0] if stage.clients else stage.client()
    client.says(command)
    stage.lane.got()
    stage.lane.answers(reply)
    assert client.hears() == reply


def test_the_same_reply_settles(stage: Stage) -> None:
    write(stage, "SET k v")
    assert stage.mirror.got() == ["SET k v"]
    stage.mirror.answers(OK)
    assert (stage.hub.mirror.judge.settled, stage.dirty) == (1, {})
    assert stage.hub.settled


@pytest.mark.parametrize("reply", [OOM, ERROR, number(2), NIL])
def test_another_reply_makes_the_key_dirty(stage: Stage, reply: bytes) -> None:
    write(stage, "SADD k m", ONE)
    assert stage.mirror.got() == ["PTTL k", "SADD k m"]
    stage.mirror.answers(FOREVER, reply)
    assert list(stage.dirty) == [(0, b"k")]
    assert stage.hub.mirror.judge.differed == 1


@pytest.mark.parametrize(
    ("pttl", "dirty"), [(number(-1), False), (number(-2), True), (number(1), True), (number(60_000), False)]
)
def test_expiry_guard(stage: Stage, pttl: bytes, dirty: bool) -> None:
    """The key may have expired on one side only: near its deadline there, or gone already."""
    write(stage, "INCR n", number(7))
    stage.mirror.got()
    stage.mirror.answers(pttl, number(7))
    assert bool(stage.dirty) is dirty


def test_the_guards_limit_grows_with_age(stage: Stage) -> None:
    write(stage, "INCR n", number(7))
    stage.now += 30
    stage.mirror.answers(number(29_000), number(7))
    assert stage.dirty


def test_a_guard_that_is_refused_counts_as_gone(stage: Stage) -> None:
    write(stage, "INCR n", number(7))
    stage.mirror.answers(b"-NOPERM no\r\n", number(7))
    assert stage.dirty


def test_a_guard_is_for_one_effect_only(stage: Stage) -> None:
    write(stage, "INCR n", number(7))
    write(stage, "SET k v")
    stage.mirror.answers(number(-2), number(7), OK)
    assert list(stage.dirty) == [(0, b"n")]


def test_dbs(stage: Stage) -> None:
    client = stage.client(db=2)
    client.says("SET k v")
    stage.lane.answers(OK, OK)
    assert stage.mirror.got() == ["SELECT 2", "SET k v"]


def test_a_db_that_the_mirror_does_not_have(stage: Stage) -> None:
    stage.lane.dbs.add(9)
    client = stage.client(db=9)
    client.says("SET k v")
    stage.lane.answers(OK, OK)
    assert client.hears() == OK
    assert stage.mirror.got() == []
    assert stage.dirty == {(9, b"k"): "the mirror side has no db 9"}


def test_without_a_connection_keys_are_remembered(stage: Stage) -> None:
    stage.mirror.breaks()
    write(stage, "MSET a 1 b 2")
    assert set(stage.dirty) == {(0, b"a"), (0, b"b")}
    stage.new_mirror()
    stage.hub.flush()
    assert "DUMP a" in stage.lane.got()


def test_a_lost_connection_makes_everything_unacknowledged_dirty(stage: Stage) -> None:
    write(stage, "SET a 1")
    write(stage, "SPOP s", bulk("m"))
    stage.mirror.breaks()
    assert set(stage.dirty) == {(0, b"a"), (0, b"s")}
    assert stage.hub.mirror.queued_bytes == 0


def test_a_copy_lost_with_its_connection_is_made_again(stage: Stage) -> None:
    stage.hub.repair.mark((0, b"k"), "why")
    stage.hub.flush()
    stage.lane.got()
    stage.lane.answers(OK, QUEUED, QUEUED, QUEUED, dumped(b"one"))
    assert stage.mirror.got()
    stage.mirror.breaks()
    assert stage.dirty
    stage.new_mirror()
    stage.hub.flush()
    stage.copies(b"one")
    assert not stage.dirty


def test_a_full_queue_never_delays_a_client(stage: Stage) -> None:
    stage.hub.mirror._limit = 2000
    for number_ in range(20):
        write(stage, f"SET k{number_} v")
    assert 0 < len(stage.mirror.got()) < 20
    assert stage.dirty
    assert "full" in next(iter(stage.dirty.values()))


def test_a_block_is_one_transaction(stage: Stage) -> None:
    client = stage.client()
    client.says("MULTI", "SET a 1", "SET b 2", "GET a", "EXEC")
    stage.lane.got()
    stage.lane.answers(OK, QUEUED, QUEUED, QUEUED, array(OK, OK, bulk("1")))
    assert stage.mirror.got() == ["MULTI", "SET a 1", "SET b 2", "EXEC"]
    stage.mirror.answers(OK, QUEUED, QUEUED, array(OK, OOM))
    assert set(stage.dirty) == {(0, b"a"), (0, b"b")}


def test_a_transaction_that_was_not_executed(stage: Stage) -> None:
    client = stage.client()
    client.says("MULTI", "SET a 1", "SET b 2", "EXEC")
    stage.lane.answers(OK, QUEUED, QUEUED, array(OK, OK))
    stage.mirror.answers(OK, OOM, OOM, b"-EXECABORT Transaction discarded because of previous errors.\r\n")
    assert set(stage.dirty) == {(0, b"a"), (0, b"b")}


@pytest.mark.parametrize("command", ["FLUSHALL", "SWAPDB 0 1"])
def test_a_whole_db_command_that_did_not_arrive_costs_a_backfill(stage: Stage, command: str) -> None:
    write(stage, command)
    assert stage.mirror.got() == [command]
    stage.mirror.breaks()
    assert stage.fallbacks


def test_swapdb_with_a_bad_reply_to_come(stage: Stage) -> None:
    """What went wrong before the swap is in the other db behind it."""
    write(stage, "SET k v")
    write(stage, "SWAPDB 0 1")
    stage.mirror.answers(OOM, OK)
    assert (1, b"k") in stage.dirty


def test_a_message_that_nobody_heard_there(stage: Stage) -> None:
    write(stage, "PUBLISH c hello", ONE)
    assert stage.mirror.got() == ["PUBLISH c hello"]
    stage.mirror.answers(b":0\r\n")
    assert not stage.dirty


def test_what_the_connection_needs_is_refused(stage: Stage) -> None:
    stage.client(db=1).says("SET k v")
    stage.lane.answers(OK, OK)
    stage.mirror.answers(ERROR, OK)
    assert stage.hub.mirror.link is None
    assert list(stage.dirty) == [(1, b"k")]


def test_scripts_are_told(stage: Stage) -> None:
    client = stage.client()
    client.says([b"EVAL", b"return 1", b"1", b"k"])
    stage.lane.got()
    stage.lane.answers(ONE)
    assert stage.mirror.got() == ["SCRIPT LOAD return 1"]
    assert "DUMP k" in stage.lane.got()


def test_reads_of_our_own(stage: Stage) -> None:
    got: list[bytes | None] = []
    stage.hub.mirror.call(0, [[b"TIME"]], got.append)
    stage.hub.flush()
    assert stage.mirror.got() == ["MULTI", "TIME", "EXEC"]
    stage.mirror.answers(OK, QUEUED, array(array(*map(bulk, CLOCK))))
    assert got == [array(array(*map(bulk, CLOCK)))]
    stage.hub.mirror.call(0, [[b"TIME"]], got.append)
    stage.mirror.breaks()
    stage.hub.mirror.call(0, [[b"TIME"]], got.append)
    assert got[1:] == [None, None]


def test_lag_is_the_age_of_the_oldest_effect(stage: Stage) -> None:
    assert stage.hub.mirror.lag() == 0
    write(stage, "SET k v")
    stage.now += 2
    assert stage.hub.mirror.lag() == 2
    stage.mirror.answers(OK)
    assert stage.hub.mirror.lag() == 0


def test_detached_and_attached(stage: Stage) -> None:
    """A flip: the connection goes from one hand to the other with its db."""
    stage.client(db=2).says("SET k v")
    stage.lane.answers(OK, OK)
    stage.mirror.answers(OK, OK)
    link = stage.hub.mirror.detach()
    assert link is not None
    assert link.db == 2
    other = Mirror(stage.roles, lambda: 0.0)
    other.attach(link)
    assert other.idle


def test_an_unexpected_reply_is_a_broken_connection(stage: Stage) -> None:
    stage.mirror.answers(b"-ERR max number of clients reached\r\n")
    assert stage.hub.mirror.link is None


# -- what may wait -----------------------------------------------------------------------------------------------


def writes(stage: Stage, count: int) -> None:
    """So many, answered by the serving side; what that leads to is served, but the floor does not rest."""
    client = stage.clients[0] if stage.clients else stage.client()
    for index in range(count):
        client.session.read(encode([b"SET", b"k%d" % index, b"v"]))
    stage.hub.serve()
    stage.lane.owner.on_frames([OK] * count)
    stage.hub.serve()


def test_clients_writes_wait_until_the_floor_rests(stage: Stage) -> None:
    writes(stage, 3)
    assert stage.mirror.got() == []
    assert stage.clients[0].session.owed == 0
    stage.hub.mirror.flush()
    assert stage.mirror.got() == ["SET k0 v", "SET k1 v", "SET k2 v"]


def test_a_flush_by_anybody_sends_them(stage: Stage) -> None:
    writes(stage, 1)
    stage.hub.flush()
    assert stage.mirror.got() == ["SET k0 v"]


def test_they_do_not_wait_when_there_are_many(stage: Stage) -> None:
    for _ in range(MANY // 16):
        assert stage.mirror.got() == []
        writes(stage, 16)
    assert len(stage.mirror.got()) == MANY


def test_they_do_not_wait_when_somebody_waits_for_them(stage: Stage) -> None:
    stage.hub._conditions.append((lambda: stage.hub.mirror.judge.settled == 1, trio.Event()))
    writes(stage, 1)
    assert stage.mirror.got() == ["SET k0 v"]


def test_computed_effects_wait_as_well(stage: Stage) -> None:
    writes(stage, 1)
    stage.hub.mirror.effect(0, Effect(commands=((b"DEL", b"k"),), expected=(ONE,), keys=(b"k",)), 0.0)
    stage.hub.serve()
    assert stage.mirror.got() == []
    stage.hub.flush()
    assert stage.mirror.got() == ["SET k0 v", "DEL k"]


@pytest.mark.parametrize("what", ["call", "copy", "copies"])
def test_what_is_waited_for_takes_them_along(stage: Stage, what: str) -> None:
    mirror = stage.hub.mirror
    writes(stage, 1)
    if what == "call":
        mirror.call(0, [[b"TTL", b"k"]], lambda frame: None)
    elif what == "copy":
        mirror.copy((0, b"k"), [[b"DEL", b"k"]], Form.DUMP)
    else:
        mirror.copies([(0, b"k")], [encode([b"DEL", b"k"])])
    stage.hub.serve()
    assert stage.mirror.got()[0] == "SET k0 v"
    writes(stage, 1)
    assert stage.mirror.got() == [], "the hurry is over"


# -- what is counted ---------------------------------------------------------------------------------------------------

Words = list[bytes]
POPPED = b"member" * 300
SHAPES: dict[str, tuple[Callable[[bytes], Words], bytes]] = {
    "as sent": (lambda key: [b"SET", key, b"v" * 30], OK),
    "as sent, a long value": (lambda key: [b"SET", key, b"v" * 3000], OK),
    "as sent, a long key": (lambda key: [b"SET", key * 20, b"v"], OK),
    "guarded": (lambda key: [b"HSET", key, b"field", b"value"], ONE),
    "several keys": (lambda key: [b"MSET", key, b"value", b"other" + key, b"value"], OK),
    "rewritten": (lambda key: [b"SET", key, b"value", b"EX", b"100"], OK),
    "expects an element": (lambda key: [b"LPOP", key], bulk(POPPED)),
    "names an element": (lambda key: [b"SPOP", key], bulk(POPPED)),
}


@pytest.mark.parametrize("together", [1, 2, 16])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_an_effect_takes_in_memory_is_counted(stage: Stage, shape: str, together: int) -> None:
    """While the mirror side takes nothing: neither less than is kept (memory is bounded), nor far more (keys would be
    dirty for nothing)."""
    command, reply = SHAPES[shape]
    client, mirror, unsent = stage.client(), stage.hub.mirror, list[bytes]()
    stage.mirror.send = unsent.append  # type: ignore[method-assign, assignment]

    def write_keys(first: int, count: int) -> None:
        for start in range(first, first + count, together):
            client.says(*[command(b"key:%012d" % (start + index)) for index in range(together)])
            stage.lane.got()
            stage.lane.answers(*[bytes(bytearray(reply)) for _ in range(together)])  # as they come: each a new one
            client.hears()

    write_keys(0, 64)
    gc.collect()
    tracemalloc.start()
    counted = mirror.queued_bytes
    write_keys(1000, 640)
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    counted = mirror.queued_bytes - counted
    assert mirror.dropped == 0
    assert 0.97 * kept < counted < 1.5 * kept, (counted / 640, kept / 640)
