"""Blocking commands as attempts in the lane: directly behind the write that may serve them, first come first served."""

from __future__ import annotations

import pytest

from proxy.lines import AT_ONCE
from proxy.waiters import last_id, timeout_seconds
from proxy.watch import State
from tests.proxy.stage import ERROR, NIL_ARRAY, OK, ONE, QUEUED, Stage, array, bulk, number

POPPED = array(bulk("q"), bulk("a"))
NOTHING = (OK, QUEUED, array(NIL_ARRAY))
ATTEMPT = ["MULTI", "BLPOP q 0", "EXEC"]


def something(frame: bytes) -> tuple[bytes, ...]:
    return OK, QUEUED, array(frame)


def waiting(stage: Stage, command: str = "BLPOP q 0") -> object:
    """A client whose first attempt came back empty."""
    client = stage.client()
    client.says(command)
    assert stage.lane.got() == ["MULTI", command, "EXEC"]
    stage.lane.answers(*NOTHING)
    assert client.hears() == b""
    return client


def test_served_at_once(stage: Stage) -> None:
    client = stage.client()
    client.says("BLPOP q 0")
    assert stage.lane.got() == ATTEMPT
    stage.lane.answers(*something(POPPED))
    assert client.hears() == POPPED
    assert stage.mirror.got() == ["LPOP q"]
    assert not stage.hub.waiters.keys


def test_the_attempt_is_directly_behind_the_write(stage: Stage) -> None:
    client, pusher = waiting(stage), stage.client()
    pusher.says("RPUSH q a", "DEL q")
    assert stage.lane.got() == ["RPUSH q a", *ATTEMPT, "DEL q"]
    stage.lane.answers(ONE, *something(POPPED), b":0\r\n")
    assert client.hears() == POPPED  # type: ignore[attr-defined]
    assert pusher.hears() == ONE + b":0\r\n"
    assert [command for command in stage.mirror.got() if "PTTL" not in command] == ["RPUSH q a", "LPOP q"]


def test_a_push_in_a_block_serves_behind_its_exec(stage: Stage) -> None:
    waiting(stage)
    stage.client().says("MULTI", "RPUSH q a", "EXEC")
    assert stage.lane.got() == ["MULTI", "RPUSH q a", "EXEC", *ATTEMPT]


def test_first_come_first_served(stage: Stage) -> None:
    first, second = waiting(stage), waiting(stage)
    stage.client().says("RPUSH q a b")
    assert stage.lane.got() == ["RPUSH q a b", *ATTEMPT, *ATTEMPT]
    stage.lane.answers(number(2), *something(POPPED), *something(array(bulk("q"), bulk("b"))))
    assert first.hears() == POPPED  # type: ignore[attr-defined]
    assert second.hears() == array(bulk("q"), bulk("b"))  # type: ignore[attr-defined]


def test_a_push_while_the_first_attempt_is_in_flight(stage: Stage) -> None:
    stage.client().says("BLPOP q 0")
    stage.client().says("RPUSH q a")
    stage.lane.got()
    stage.lane.answers(*NOTHING, ONE)
    assert stage.lane.got() == ATTEMPT


def test_a_push_while_an_attempt_is_in_flight(stage: Stage) -> None:
    """The next attempt waits for the answer of the first: two at once might take two elements for one client. To the
    client it is as if its command had arrived a round trip later."""
    waiting(stage)
    stage.hub.waiters.poll()
    stage.hub.flush()
    stage.lane.got()
    stage.client().says("RPUSH q a")
    assert stage.lane.got() == ["RPUSH q a"]
    stage.lane.answers(OK, QUEUED, b"*1\r\n*-1\r\n", b":1\r\n")
    stage.hub.flush()
    assert stage.lane.got() == ATTEMPT


def test_times_out(stage: Stage) -> None:
    client = waiting(stage, "BLPOP q 0.5")
    stage.now += 0.6
    stage.hub.waiters._expire(stage.now)
    stage.hub.flush()
    assert client.hears() == NIL_ARRAY  # type: ignore[attr-defined]
    assert not stage.hub.waiters.keys


def test_not_while_an_attempt_is_in_flight(stage: Stage) -> None:
    """What the attempt takes must go to this client."""
    client = waiting(stage, "BLPOP q 0.5")
    stage.client().says("RPUSH q a")
    stage.now += 0.6
    stage.hub.waiters._expire(stage.now)
    stage.lane.answers(ONE, *something(POPPED))
    assert client.hears() == POPPED  # type: ignore[attr-defined]


def test_what_a_client_took_that_left_is_mirrored(stage: Stage) -> None:
    client = stage.client()
    client.says("BLPOP q 0")
    client.leaves()
    stage.lane.answers(*something(POPPED))
    assert stage.mirror.got() == ["LPOP q"]


def test_a_wrong_type_at_first_is_an_error_and_later_is_waited_out(stage: Stage) -> None:
    wrong = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
    client = stage.client()
    client.says("BLPOP q 0")
    stage.lane.got()
    stage.lane.answers(*something(wrong))
    assert client.hears() == wrong
    patient = waiting(stage)
    stage.client().says("SET q 1")
    stage.lane.answers(OK, *something(wrong))
    assert patient.hears() == b""  # type: ignore[attr-defined]
    assert len(stage.hub.waiters) == 1


def test_a_malformed_command_gets_the_servers_words(stage: Stage) -> None:
    client = stage.client()
    client.says("BLPOP q")
    stage.lane.answers(OK, ERROR, b"-EXECABORT Transaction discarded because of previous errors.\r\n")
    assert client.hears() == ERROR


def popped(element: str) -> tuple[bytes, ...]:
    return something(array(bulk("q"), bulk(element)))


def test_one_behind_a_push_that_serves_it_is_as_good_as_served(stage: Stage) -> None:
    first, second, third = waiting(stage), waiting(stage), waiting(stage)
    stage.client().says("RPUSH q a")
    stage.client().says("RPUSH q b")
    assert stage.lane.got() == ["RPUSH q a", *ATTEMPT, "RPUSH q b", *ATTEMPT]
    stage.lane.answers(ONE, *popped("a"), ONE, *popped("b"))
    assert [client.hears() for client in (first, second, third)] == [  # type: ignore[attr-defined]
        POPPED,
        array(bulk("q"), bulk("b")),
        b"",
    ]


def test_another_stands_in_for_one_whose_attempt_is_in_flight(stage: Stage) -> None:
    first, second = waiting(stage), waiting(stage)
    stage.hub.waiters.poll()  # only who is first in line looks
    stage.hub.flush()
    assert stage.lane.got() == ATTEMPT
    stage.client().says("RPUSH q a", "DEL q")
    assert stage.lane.got() == ["RPUSH q a", *ATTEMPT, "DEL q"]
    stage.lane.answers(*NOTHING, ONE, *popped("a"), ONE)
    assert (first.hears(), second.hears()) == (POPPED, b"")  # type: ignore[attr-defined]


def test_who_wants_something_else_waits_for_that_attempt(stage: Stage) -> None:
    first, second = waiting(stage), waiting(stage, "BRPOP q 0")
    stage.hub.waiters.poll()
    stage.hub.flush()
    stage.lane.got()
    stage.client().says("RPUSH q a b")
    assert stage.lane.got() == ["RPUSH q a b"]
    stage.lane.answers(*NOTHING, number(2))
    assert stage.lane.got() == ["MULTI", "BLPOP q 0", "EXEC", "MULTI", "BRPOP q 0", "EXEC"]
    stage.lane.answers(*popped("a"), *popped("b"))
    assert (first.hears(), second.hears()) == (POPPED, array(bulk("q"), bulk("b")))  # type: ignore[attr-defined]


def test_nobody_overtakes_while_an_attempt_is_in_flight(stage: Stage) -> None:
    stage.client().says("BLPOP q 0")
    stage.client().says("RPUSH q a")
    stage.client().says("BRPOP q 0")
    assert stage.lane.got() == [*ATTEMPT, "RPUSH q a"]
    stage.lane.answers(*NOTHING, ONE)
    assert stage.lane.got() == [*ATTEMPT, "MULTI", "BRPOP q 0", "EXEC"]


def test_nor_because_of_another_key(stage: Stage) -> None:
    """Who waits for two keys would take what lies under one of them for somebody who came before."""
    stage.client().says("BLPOP q 0")
    stage.client().says("RPUSH q a")
    stage.client().says("BLPOP q other 0")
    stage.client().says("RPUSH other b")
    assert stage.lane.got() == [*ATTEMPT, "RPUSH q a", "RPUSH other b"]
    stage.lane.answers(*NOTHING, ONE, ONE)
    assert stage.lane.got() == [*ATTEMPT, "MULTI", "BLPOP q other 0", "EXEC"]


def test_what_is_taken_for_one_who_left_is_for_the_next(stage: Stage) -> None:
    first, second = waiting(stage), waiting(stage)
    stage.client().says("RPUSH q a")
    first.leaves()  # type: ignore[attr-defined]
    stage.lane.answers(ONE, *popped("a"))
    assert second.hears() == POPPED  # type: ignore[attr-defined]


def test_what_others_pushed_is_for_who_came_first(stage: Stage) -> None:
    """Even if it is found by the attempt of one who has just come."""
    first, second = waiting(stage), stage.client()
    second.says("BLPOP q 0")
    stage.lane.answers(*popped("a"))
    assert (first.hears(), second.hears()) == (POPPED, b"")  # type: ignore[attr-defined]
    stage.lane.answers(*NOTHING)  # there might have been more
    assert stage.lane.got()[-3:] == ATTEMPT
    stage.client().says("RPUSH q b")
    assert stage.lane.got() == ["RPUSH q b", *ATTEMPT]


def test_a_crowd_costs_what_it_is_served(stage: Stage) -> None:
    for _ in range(100):
        waiting(stage)
    for write, attempts in {"RPUSH q a": 1, "RPUSH q b c": 2, "DEL q": 0, "SADD s q": 0, "EVAL x 1 q": AT_ONCE}.items():
        stage.hub.watch.state = State.ON
        stage.client().says(write)
        assert stage.lane.got() == [write, *ATTEMPT * attempts]


def test_as_long_as_all_find_something_more_are_tried(stage: Stage) -> None:
    """How many elements there are is not known."""
    for _ in range(20):
        waiting(stage)
    stage.hub.waiters.touched_places([(0, b"q")])
    for attempts in (1, 2, 4):
        stage.hub.flush()
        assert stage.lane.got() == ATTEMPT * attempts
        stage.lane.answers(*[frame for _ in range(attempts) for frame in popped("a")])
    stage.lane.answers(*popped("b"), *[frame for _ in range(7) for frame in NOTHING])
    assert stage.lane.got() == ATTEMPT * 8
    assert len(stage.hub.waiters) == 20 - 1 - 2 - 4 - 1


def test_a_chain_of_moves_is_served_at_once(stage: Stage) -> None:
    mover = stage.client()
    mover.says("BRPOPLPUSH q r 0")
    stage.lane.got()
    stage.lane.answers(OK, QUEUED, QUEUED, array(b"+none\r\n", NIL_ARRAY))
    waiting(stage, "BLPOP r 0")
    stage.client().says("RPUSH q a", "DEL r")
    sent = stage.lane.got()
    assert sent == ["RPUSH q a", "MULTI", "TYPE q", "BRPOPLPUSH q r 0", "EXEC", "MULTI", "BLPOP r 0", "EXEC", "DEL r"]


@pytest.mark.parametrize(
    "command",
    [
        "BLPOP",
        "BLPOP q nan",
        "BLPOP q inf",
        "BLPOP q 1e400",
        "BLMPOP",
        "BLMPOP 0 x",
        "XREAD BLOCK",
        "XREAD BLOCK x STREAMS",
        "XREADGROUP BLOCK 0 STREAMS s",
        "XREAD BLOCK 0 $",
        f"XREAD BLOCK {'9' * 400} STREAMS s 0",
        f"XREAD BLOCK {'9' * 5000} STREAMS s 0",
        f"BLPOP q {'9' * 5000}",
    ],
)
def test_no_command_breaks_the_proxy(stage: Stage, command: str) -> None:
    client = stage.client()
    client.says(command)
    refused = [OK, ERROR, b"-EXECABORT no\r\n"] if len(stage.lane.got()) == 3 else []
    stage.lane.answers(*refused)
    assert client.session.open


def test_dollar_is_the_moment_of_the_call(stage: Stage) -> None:
    client = stage.client()
    client.says("XREAD BLOCK 0 STREAMS s $")
    assert stage.lane.got() == ["MULTI", "XINFO STREAM s", "XREAD BLOCK 0 STREAMS s $", "EXEC"]
    stage.lane.answers(OK, QUEUED, QUEUED, array(array(bulk("last-generated-id"), bulk("5-0")), NIL_ARRAY))
    stage.client().says("XADD s 6-0 f v")
    assert stage.lane.got() == ["XADD s 6-0 f v", "MULTI", "XREAD BLOCK 0 STREAMS s 5-0", "EXEC"]
    assert client.hears() == b""


@pytest.mark.parametrize(
    ("command", "seconds"),
    [
        ("BLPOP q 1.5", 1.5),
        ("BLMPOP 2 1 q LEFT", 2.0),
        ("XREAD BLOCK 1500 STREAMS s 0", 1.5),
        ("XREAD STREAMS s 0", None),
        ("BLPOP q x", None),
        ("XREADGROUP GROUP block c BLOCK 100 STREAMS s >", 0.1),
    ],
)
def test_timeouts(command: str, seconds: float | None) -> None:
    args = command.encode().split()
    assert timeout_seconds(args[0], args) == seconds


def test_last_id_of_no_stream() -> None:
    assert last_id(b"-ERR no such key\r\n") == b"0-0"
    assert last_id(b"%1\r\n$17\r\nlast-generated-id\r\n$3\r\n5-1\r\n") == b"5-1"


def test_a_lost_lane_with_an_attempt_in_flight(stage: Stage) -> None:
    """It may have taken an element: the key is dirty, and the client is disconnected as its server would."""
    reader, popper = stage.client(), stage.client()
    popper.says("BLPOP q 0")
    reader.says("XREAD BLOCK 0 STREAMS s 0")
    stage.lane.breaks()
    assert popper.hears() == b"<closed>"
    assert reader.hears() == b""
    assert list(stage.dirty) == [(0, b"q")]
    stage.new_lane()
    stage.hub.resume("the serving side is not connected")
    assert "XREAD BLOCK 0 STREAMS s 0" in stage.lane.got()


def test_waits_through_a_pause(stage: Stage) -> None:
    waiting(stage)
    stage.hub.pause("a flip is under way")
    stage.hub.waiters.poll()
    stage.hub.flush()
    assert stage.lane.got() == []
    stage.hub.resume("a flip is under way")
    assert stage.lane.got() == ATTEMPT


def test_unblock(stage: Stage) -> None:
    client, other = waiting(stage), stage.client()
    other.says(f"CLIENT UNBLOCK {client.session.id} ERROR")  # type: ignore[attr-defined]
    assert other.hears() == ONE
    assert client.hears() == b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"  # type: ignore[attr-defined]


def test_commands_behind_a_blocking_one_wait(stage: Stage) -> None:
    client = stage.client()
    client.says("GET a", "BLPOP q 0", "GET b")
    assert stage.lane.got() == ["GET a", *ATTEMPT]
    stage.lane.answers(bulk("1"), *something(POPPED))
    assert client.hears() == bulk("1") + POPPED
    assert stage.lane.got() == ["GET b"]


@pytest.mark.parametrize("command", ["BRPOPLPUSH q q 0", "BLMOVE q q RIGHT LEFT 0"])
def test_a_list_is_turned_once(stage: Stage, command: str) -> None:
    """Whoever moves an element to the key that he takes it from is not served a second time."""
    client = stage.client()
    client.says(command)
    assert stage.lane.got()[-2:] == [command, "EXEC"]
    stage.lane.answers(OK, QUEUED, QUEUED, array(b"+list\r\n", bulk("a")))
    assert client.hears() == bulk("a")
    assert stage.lane.got() == []
