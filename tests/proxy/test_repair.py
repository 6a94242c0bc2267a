"""Dirty keys through read, copy and acknowledgement, with everything that can be refused in between."""

from __future__ import annotations

import pytest

from backfill.codec import Form
from proxy import repair as repair_module
from proxy import together
from proxy.dirty import MARK_BYTES
from proxy.repair import READS_UNDER_WAY
from tests.proxy.stage import CLOCK, ERROR, NIL, OK, OOM, QUEUED, Stage, array, bulk, dumped, number

K = (0, b"k")
VERSION = b"-ERR DUMP payload version or checksum are wrong\r\n"
HEAD = (array(*map(bulk, CLOCK)), number(-1))


def start(stage: Stage, *places: tuple[int, bytes]) -> None:
    for place in places or (K,):
        stage.hub.repair.mark(place, "why")
    stage.hub.flush()


def reads(stage: Stage, *parts: bytes) -> None:
    """The serving side answers one read."""
    assert stage.lane.got()[0] == "MULTI"
    stage.lane.answers(OK, *[QUEUED] * len(parts), array(*parts))


def test_a_copy(stage: Stage) -> None:
    start(stage)
    assert stage.lane.got() == ["MULTI", "TIME", "PTTL k", "DUMP k", "EXEC"]
    stage.lane.answers(OK, QUEUED, QUEUED, QUEUED, dumped(b"payload"))
    assert stage.mirror.got() == ["RESTORE k 0 payload REPLACE"]
    stage.mirror.answers(OK)
    assert not stage.dirty
    assert stage.hub.repair.copies == 1


def test_a_deadline(stage: Stage) -> None:
    start(stage)
    stage.lane.answers(OK, QUEUED, QUEUED, QUEUED, dumped(b"payload", 5000))
    assert stage.mirror.got() == ["RESTORE k 1700000005000 payload REPLACE ABSTTL"]


def test_a_missing_key_is_deleted(stage: Stage) -> None:
    start(stage)
    stage.lane.answers(OK, QUEUED, QUEUED, QUEUED, dumped(None))
    assert stage.mirror.got() == ["DEL k"]


def test_not_deleted_while_frozen(stage: Stage) -> None:
    stage.hub.repair.frozen = "the source came back with far fewer keys"
    start(stage)
    stage.lane.answers(OK, QUEUED, QUEUED, QUEUED, dumped(None))
    assert stage.mirror.got() == []
    assert stage.dirty


def test_later_writes_follow_the_copy(stage: Stage) -> None:
    start(stage)
    client = stage.client()
    client.says("APPEND k x")
    stage.lane.answers(OK, QUEUED, QUEUED, QUEUED, dumped(b"payload"), number(4))
    assert [command.split()[0] for command in stage.mirror.got()] == ["RESTORE", "PTTL", "APPEND"]
    stage.mirror.answers(OK, number(-1), number(4))
    assert not stage.dirty


def test_another_version_of_the_server(stage: Stage) -> None:
    """One refused payload is enough: from then on keys are rebuilt by type."""
    start(stage)
    stage.lane.got()
    stage.lane.answers(OK, QUEUED, QUEUED, QUEUED, dumped(b"payload"))
    stage.mirror.answers(VERSION)
    stage.mirror.got()
    reads(stage, *HEAD, b"+list\r\n")
    reads(stage, *HEAD, b"+list\r\n", array(bulk("a"), bulk("b")))
    assert stage.mirror.got() == ["MULTI", "DEL k", "RPUSH k a b", "EXEC"]
    stage.mirror.answers(OK, QUEUED, QUEUED, array(number(0), number(2)))
    assert not stage.dirty
    start(stage, (0, b"other"))
    assert "DUMP other" not in stage.lane.got()


def test_a_type_that_changes_all_the_time_is_not_read_at_full_speed(stage: Stage) -> None:
    stage.hub.repair._form = Form.STRUCT
    start(stage)
    for turn in range(1000):
        if not stage.lane.got():
            break
        kind = b"+list\r\n" if turn % 2 else b"+string\r\n"
        wrong = [b"-WRONGTYPE no\r\n"] if turn else []
        stage.lane.answers(OK, *[QUEUED] * (3 + len(wrong)), array(*HEAD, kind, *wrong))
    else:
        pytest.fail("1,000 reads in a row")
    assert stage.dirty


@pytest.mark.parametrize("reply", [OOM, ERROR, b"-BUSYKEY no\r\n"])
def test_a_refused_copy_waits_for_its_retry(stage: Stage, reply: bytes) -> None:
    start(stage)
    stage.lane.got()
    stage.lane.answers(OK, QUEUED, QUEUED, QUEUED, dumped(b"payload"))
    stage.mirror.answers(reply)
    assert stage.lane.got() == []
    assert stage.dirty
    stage.now += 60
    assert stage.hub.repair.retry()
    stage.hub.flush()
    stage.mirror.got()
    stage.copies(b"payload")
    assert not stage.dirty


def test_a_transaction_that_was_not_executed_is_no_copy(stage: Stage) -> None:
    stage.hub.repair._form = Form.STRUCT
    stage.hub.repair._believed[K] = b"list"  # type: ignore[assignment]
    start(stage)
    reads(stage, *HEAD, b"+list\r\n", array(bulk("a")))
    stage.mirror.answers(OK, QUEUED, QUEUED, b"*-1\r\n")
    assert stage.dirty


def test_half_a_rebuild_is_no_copy(stage: Stage) -> None:
    stage.hub.repair._form = Form.STRUCT
    stage.hub.repair._believed[K] = b"list"  # type: ignore[assignment]
    start(stage)
    reads(stage, *HEAD, b"+list\r\n", array(bulk("a")))
    stage.mirror.answers(OK, QUEUED, QUEUED, array(number(1), OOM))
    assert stage.dirty


# -- small keys together -----------------------------------------------------------------------------------------------

A, B, C = ((0, name) for name in (b"a", b"b", b"c"))
CLOCK_ARRAY = array(*map(bulk, CLOCK))


def start_together(stage: Stage, *places: tuple[int, bytes], size: int = 50) -> list[str]:
    """As a backfill does: their sizes are known."""
    for place in places:
        stage.hub.repair.expect(place, size)
        stage.hub.repair.mark_unordered(place, "backfill", lag=True)
    stage.hub.flush()
    return stage.lane.got()


def test_small_keys_are_read_together(stage: Stage) -> None:
    sent = start_together(stage, A, B, C)
    assert sent == ["MULTI", "TIME", "PTTL a", "PTTL b", "PTTL c", "DUMP a", "DUMP b", "DUMP c", "EXEC"]
    left = number(-1), number(5000), number(-2)
    stage.lane.answers(OK, *[QUEUED] * 7, array(CLOCK_ARRAY, *left, bulk("one"), bulk("two"), NIL))
    assert stage.mirror.got() == ["RESTORE a 0 one REPLACE", "RESTORE b 1700000005000 two REPLACE ABSTTL", "DEL c"]
    stage.mirror.answers(OK, OK, number(0))
    assert not stage.hub.repair.keys


def test_with_deadlines_that_are_told_as_such(stage: Stage) -> None:
    stage.roles.serving_facts.commands = frozenset([b"PEXPIRETIME"])
    sent = start_together(stage, A, B)
    assert sent == ["MULTI", "TIME", "PEXPIRETIME a", "PEXPIRETIME b", "DUMP a", "DUMP b", "EXEC"]
    stage.lane.answers(OK, *[QUEUED] * 5, array(CLOCK_ARRAY, number(-1), number(1800000000000), bulk("x"), bulk("y")))
    assert stage.mirror.got() == ["RESTORE a 0 x REPLACE", "RESTORE b 1800000000000 y REPLACE ABSTTL"]


def test_later_writes_follow_all_copies_of_a_group(stage: Stage) -> None:
    start_together(stage, A, B)
    client = stage.client()
    client.says("APPEND b x")
    stage.lane.answers(
        OK, *[QUEUED] * 5, array(CLOCK_ARRAY, number(-1), number(-1), bulk("one"), bulk("two")), number(4)
    )
    assert [" ".join(words.split()[:2]) for words in stage.mirror.got()] == [
        "RESTORE a",
        "RESTORE b",
        "PTTL b",
        "APPEND b",
    ]


def test_a_key_of_a_group_that_is_damaged_meanwhile_is_read_again(stage: Stage) -> None:
    start_together(stage, A, B)
    stage.hub.repair.mark_unordered(B, "written on a connection of its own")
    stage.lane.answers(OK, *[QUEUED] * 5, array(CLOCK_ARRAY, number(-1), number(-1), bulk("one"), bulk("two")))
    stage.mirror.answers(OK, OK)
    assert A not in stage.hub.repair.keys and B in stage.hub.repair.keys
    assert "DUMP b" in stage.lane.got()


def test_a_key_of_a_group_that_was_forgotten_meanwhile_is_not_copied(stage: Stage) -> None:
    start_together(stage, A, B)
    stage.hub.repair.forget()
    stage.hub.repair.mark_unordered(B, "found again")
    stage.lane.answers(OK, *[QUEUED] * 5, array(CLOCK_ARRAY, number(-1), number(-1), bulk("one"), bulk("two")))
    assert stage.mirror.got() == []
    assert B in stage.hub.repair.keys


def test_groups_have_one_db(stage: Stage) -> None:
    sent = start_together(stage, A, (1, b"a"), (1, b"b"), B)
    assert [words for words in sent if words.startswith(("SELECT", "DUMP"))] == [
        "DUMP a",
        "SELECT 1",
        "DUMP a",
        "DUMP b",
        "SELECT 0",
        "DUMP b",
    ]


def test_groups_have_a_bound(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "KEYS", 2)
    places = [(0, b"%d" % index) for index in range(5)]
    sent = start_together(stage, *places)
    assert [words for words in sent if words in ("MULTI", "EXEC")] == ["MULTI", "EXEC"] * 3
    assert len([words for words in sent if words.startswith("DUMP")]) == 5


def test_groups_have_a_bound_in_bytes(stage: Stage) -> None:
    sent = start_together(stage, A, B, C, size=together.BYTES // 2)
    assert sent.count("MULTI") == 2


def test_in_a_refused_group_each_key_is_read_alone(stage: Stage) -> None:
    start_together(stage, A, B)
    stage.lane.answers(OK, *[QUEUED] * 5, b"-EXECABORT no\r\n")
    assert stage.lane.got() == [
        "MULTI",
        "TIME",
        "PTTL a",
        "DUMP a",
        "EXEC",
        "MULTI",
        "TIME",
        "PTTL b",
        "DUMP b",
        "EXEC",
    ]


def test_a_key_that_may_not_be_read_costs_no_other_of_its_group(stage: Stage) -> None:
    start_together(stage, A, B)
    refusal = b"-NOPERM no\r\n"
    stage.lane.answers(OK, *[QUEUED] * 5, array(CLOCK_ARRAY, refusal, number(-1), refusal, bulk("two")))
    assert stage.mirror.got() == ["RESTORE b 0 two REPLACE"]
    assert [place for place, _ in stage.hub.repair.keys.failing()] == [A]


def test_a_group_that_is_lost_is_read_again(stage: Stage) -> None:
    start_together(stage, A, B)
    stage.lane.breaks()
    assert stage.hub.repair.keys.under_way == 0 and stage.hub.repair._together.reading_bytes == 0
    assert A in stage.hub.repair.keys and B in stage.hub.repair.keys


def queue_together(stage: Stage, *places: tuple[int, bytes]) -> None:
    """Read, and their copies queued."""
    start_together(stage, *places)
    count = len(places)
    payloads = [bulk(b"payload %b" % key) for _, key in places]
    stage.lane.answers(OK, *[QUEUED] * (2 * count + 1), array(CLOCK_ARRAY, *[number(-1)] * count, *payloads))
    assert [words.split()[1] for words in stage.mirror.got()] == [key.decode() for _, key in places]


def test_copies_of_a_group_are_answered_in_pieces(stage: Stage) -> None:
    queue_together(stage, A, B, C)
    assert stage.hub.mirror.queued == 3
    stage.mirror.answers(OK)
    stage.mirror.answers(OK)
    assert stage.hub.mirror.queued == 1 and stage.hub.repair.copies == 0
    stage.mirror.answers(OK)
    assert stage.hub.mirror.idle and stage.hub.mirror.queued == 0 and stage.hub.mirror.queued_bytes == 0
    assert not stage.hub.repair.keys and stage.hub.repair.copies == 3


def test_a_refused_copy_costs_no_other_of_its_group(stage: Stage) -> None:
    queue_together(stage, A, B, C)
    stage.mirror.answers(OK, b"-ERR Bad data format\r\n", OK)
    assert list(stage.hub.repair.keys.places()) == [B]
    assert stage.lane.got() == ["MULTI", "TIME", "PTTL b", "TYPE b", "EXEC"]


def test_a_write_behind_the_copies_of_a_group_that_goes_wrong(stage: Stage) -> None:
    queue_together(stage, A, B)
    client = stage.client()
    client.says("APPEND b x")
    stage.lane.answers(number(10))
    stage.mirror.got()
    stage.mirror.answers(OK, OK, number(-1), number(9))
    assert set(stage.dirty) == {B}


def test_a_group_of_which_the_copies_are_lost_is_read_one_by_one(stage: Stage) -> None:
    """One of them may be what the mirror side hangs up on."""
    queue_together(stage, A, B)
    stage.mirror.breaks()
    assert stage.hub.repair.keys.under_way == 0
    stage.new_mirror()
    for place in (A, B):
        stage.hub.repair.expect(place, 50)
    stage.hub.flush()
    assert [words for words in stage.lane.got() if words.startswith("DUMP") or words == "EXEC"] == [
        "DUMP a",
        "EXEC",
        "DUMP b",
        "EXEC",
    ]


@pytest.mark.parametrize("clock", [b"-NOPERM no\r\n", array(bulk("x"), bulk("y")), array()])
def test_a_group_without_a_clock(stage: Stage, clock: bytes) -> None:
    start_together(stage, A, B)
    stage.lane.answers(OK, *[QUEUED] * 5, array(clock, number(5000), number(5000), bulk("one"), bulk("two")))
    assert stage.mirror.got() == []
    assert {place for place, _ in stage.hub.repair.keys.failing()} == {A, B}


def test_copies_of_a_group_that_was_forgotten_are_nobodys(stage: Stage) -> None:
    queue_together(stage, A, B)
    told: list[tuple[int, bytes]] = []
    stage.hub.repair.copied = told.extend
    stage.hub.repair.forget()
    stage.hub.repair.mark_unordered(B, "found again")
    stage.mirror.answers(OK, OK)
    assert told == []
    assert list(stage.hub.repair.keys.places()) == [B]


def test_a_group_that_the_mirror_queue_does_not_take(stage: Stage) -> None:
    start_together(stage, A, B)
    stage.mirror.breaks()
    stage.lane.answers(OK, *[QUEUED] * 5, array(CLOCK_ARRAY, number(-1), number(-1), bulk("one"), bulk("two")))
    assert stage.hub.repair.keys.under_way == 0 and len(stage.hub.repair.keys) == 2
    stage.new_mirror()
    stage.hub.flush()
    assert sum(words.startswith("DUMP") for words in stage.lane.got()) == 2


@pytest.mark.parametrize("frame", [ERROR, b"-EXECABORT no\r\n", array(*HEAD, b"-NOPERM no\r\n")])
def test_a_refused_read(stage: Stage, frame: bytes) -> None:
    start(stage)
    stage.lane.answers(OK, QUEUED, QUEUED, QUEUED, frame)
    assert stage.mirror.got() == []
    assert stage.dirty
    assert sum(stage.hub.repair.failures.values()) == 1


def test_the_window(stage: Stage) -> None:
    start(stage, *[(0, b"%d" % n) for n in range(3 * READS_UNDER_WAY)])
    assert sum(command.startswith("DUMP") for command in stage.lane.got()) == READS_UNDER_WAY


def test_no_reads_for_a_mirror_that_is_away(stage: Stage) -> None:
    stage.mirror.breaks()
    start(stage)
    assert stage.lane.got() == []


def test_a_lost_lane_in_the_middle(stage: Stage) -> None:
    start(stage)
    stage.lane.breaks()
    assert stage.dirty
    stage.new_lane()
    stage.hub.flush()
    stage.copies(b"payload")
    assert not stage.dirty


def test_too_many_dirty_keys_send_everything_back_to_filling(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair_module, "DIRTY_BYTES", 10 * (MARK_BYTES + 1))
    stage.mirror.breaks()
    for n in range(11):
        stage.hub.repair.mark((0, b"%d" % n), "why")
    assert len(stage.fallbacks) == 1
    assert len(stage.hub.repair.keys) < 11


def test_too_many_held_keys_as_well(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair_module, "DIRTY_BYTES", 10 * (MARK_BYTES + 2))
    stage.client().says("WATCH k", *[f"SET k{n} v" for n in range(11)])
    assert stage.fallbacks


def test_swapdb_while_a_key_is_read(stage: Stage) -> None:
    start(stage)
    client = stage.client()
    client.says("SWAPDB 0 1")
    stage.lane.got()
    stage.lane.answers(OK, QUEUED, QUEUED, QUEUED, dumped(b"old"), OK)
    assert [command.split()[0] for command in stage.mirror.got()] == ["RESTORE", "SWAPDB"]
    stage.mirror.answers(OK, OK)
    assert "DUMP k" in stage.lane.got()  # again, wherever it is now


def test_a_mirror_without_that_db(stage: Stage) -> None:
    stage.lane.dbs.add(9)
    start(stage, (9, b"k"))
    stage.lane.answers(OK, OK, QUEUED, QUEUED, QUEUED, dumped(b"payload"))
    assert stage.mirror.got() == []
    assert stage.dirty == {(9, b"k"): "the mirror side has no db 9"}


@pytest.mark.parametrize("frame", [array(), b"*-1\r\n", array(number(1), number(1), number(1)), NIL])
def test_nonsense_from_the_server_does_not_break_the_lane(stage: Stage, frame: bytes) -> None:
    start(stage)
    stage.lane.answers(OK, QUEUED, QUEUED, QUEUED, frame)
    assert stage.dirty
    assert stage.hub.lane.link is not None
