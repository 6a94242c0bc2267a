"""From replies to effects: only what was executed, merged blocks, deadlines, and what cannot be mirrored by name."""

from __future__ import annotations

import pytest

from proxy.effects.model import Effect
from proxy.recorder import LATE_SECONDS, merge, other_db, sets_deadline
from tests.proxy.stage import ERROR, NIL, OK, ONE, QUEUED, Stage, array, bulk, number, words


def mirrored(stage: Stage, command: str | list[bytes], reply: bytes) -> list[str]:
    client = stage.client()
    client.says(command)
    stage.lane.got()
    stage.lane.answers(reply)
    return stage.mirror.got()


def test_errors_are_not_mirrored(stage: Stage) -> None:
    assert mirrored(stage, "INCR text", ERROR) == []
    assert mirrored(stage, "SET k v GET", ERROR) == []
    assert not stage.dirty


def test_random_commands_become_what_they_did(stage: Stage) -> None:
    assert mirrored(stage, "SPOP s", bulk("m")) == ["SREM s m"]
    assert mirrored(stage, "SPOP s", NIL) == []


def test_derived_commands_are_copied(stage: Stage) -> None:
    assert mirrored(stage, "SUNIONSTORE d a b", number(3)) == []
    assert stage.dirty == {(0, b"d"): "state copy"}
    assert stage.hub.repair.keys.dirty == 0


def test_scripts_are_copied_also_when_they_failed(stage: Stage) -> None:
    mirrored(stage, [b"EVAL", b"x", b"2", b"a", b"b"], ERROR)
    assert set(stage.dirty) == {(0, b"a"), (0, b"b")}


@pytest.mark.parametrize(("command", "places"), [("MOVE k 3", {(0, b"k"), (3, b"k")}), ("COPY a b DB 2", {(2, b"b")})])
def test_move_and_copy_reach_another_db(stage: Stage, command: str, places: set) -> None:
    mirrored(stage, command, ONE)
    assert set(stage.dirty) == places


def test_a_relative_deadline_that_was_long_in_flight(stage: Stage) -> None:
    client = stage.client()
    client.says("SET k v EX 100")
    stage.now += 2 * LATE_SECONDS
    stage.lane.answers(OK)
    [sent] = stage.mirror.got()
    assert sent.startswith("SET k v PXAT ")
    assert list(stage.dirty) == [(0, b"k")]


def test_a_relative_deadline_in_time(stage: Stage) -> None:
    assert mirrored(stage, "EXPIRE k 100", ONE)[0].startswith("PEXPIREAT k ")
    assert not stage.dirty


def test_a_flush_inside_a_block_stays_at_its_place(stage: Stage) -> None:
    client = stage.client()
    client.says("MULTI", "SET a 1", "FLUSHDB", "SET b 2", "SET c 3", "EXEC")
    stage.lane.answers(OK, *[QUEUED] * 4, array(OK, OK, OK, OK))
    assert stage.mirror.got() == ["SET a 1", "FLUSHDB", "MULTI", "SET b 2", "SET c 3", "EXEC"]


def test_only_what_succeeded_of_a_block(stage: Stage) -> None:
    client = stage.client()
    client.says("MULTI", "INCR text", "SET b 2", "EXEC")
    stage.lane.answers(OK, QUEUED, QUEUED, array(ERROR, OK))
    assert stage.mirror.got() == ["SET b 2"]


def test_merged_effects() -> None:
    expire = Effect(((b"PEXPIREAT", b"k", b"5"),), (ONE,), (b"k",), relative=True)
    incr = Effect(((b"INCR", b"k"),), (ONE,), (b"k",), (b"k",))
    push = Effect(((b"LPUSH", b"l", b"x"),), (ONE,), (b"l",), (b"l",), was_absent=True)
    merged = merge([expire, incr, push], 3)
    assert merged.commands == (*expire.commands, *incr.commands, *push.commands)
    assert merged.keys == (b"k", b"l")
    assert merged.guard == (b"k",)
    assert merged.copies == ((3, b"k"),)  # its deadline could fall between the two
    assert merged.relative


@pytest.mark.parametrize(
    ("command", "yes"), [("PEXPIREAT k 1", True), ("SET k v PXAT 1", True), ("SET k v", False), ("DEL k", False)]
)
def test_what_sets_a_deadline(command: str, yes: bool) -> None:
    assert sets_deadline(Effect((tuple(words(command)),))) is yes


@pytest.mark.parametrize(
    ("command", "db"),
    [
        ("MOVE k 3", 3),
        ("MOVE k", None),
        ("MOVE k x", None),
        ("MOVE k " + "9" * 5000, None),
        ("COPY a b DB 2 REPLACE", 2),
        ("COPY a b REPLACE", None),
        ("COPY a b DB", None),
        ("COPY DB DB", None),
        ("GET k", None),
    ],
)
def test_other_db(command: str, db: int | None) -> None:
    args = words(command)
    assert other_db(args[0], args) == db


def test_scripts_in_use(stage: Stage) -> None:
    mirrored(stage, [b"EVALSHA", b"ABC", b"0"], ONE)
    mirrored(stage, [b"EVALSHA", b"unknown", b"0"], b"-NOSCRIPT No matching script.\r\n")
    assert stage.hub.recorder.scripts.used() == [b"abc"]


def test_a_block_teaches_its_scripts(stage: Stage) -> None:
    client = stage.client()
    client.says("MULTI", [b"EVAL", b"return 1", b"0"], "SET k v", "EXEC")
    stage.lane.answers(OK, QUEUED, QUEUED, array(ONE, OK))
    assert stage.mirror.got() == ["SCRIPT LOAD return 1", "SET k v"]


def test_what_cannot_be_mirrored_is_named(stage: Stage) -> None:
    roles = stage.roles
    roles.serving_facts.commands = frozenset([b"MODULE.WRITE"])
    client = stage.client()
    client.says("MODULE.WRITE k v")
    stage.pin.answers(OK)
    assert dict(stage.hub.recorder.unmirrored) == {"MODULE.WRITE: keys unknown": 1}
