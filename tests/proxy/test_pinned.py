"""Pinned connections: replies in order, no state left behind for the next session, held keys copied afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.moving import Moving
from tests.proxy.stage import (
    ERROR,
    NIL,
    OK,
    ONE,
    QUEUED,
    ZERO,
    Client,
    FakeLink,
    Stage,
    array,
    bulk,
    number,
    run_at_once,
)

CONFIRMED = array(bulk("subscribe"), bulk("c"), number(1))
GONE = array(bulk("unsubscribe"), bulk("c"), number(0))
MESSAGE = array(bulk("message"), bulk("c"), bulk("hello"))


QUIET_PONG = array(bulk("pong"), bulk(""))  # from RESP2 subscribers
PONG = b"+PONG\r\n"


def move(stage: Stage, *answers: bytes) -> list[str]:
    """A flip, to the pinned connections: what their heirs were asked. `answers`: OK for each, without any."""
    moving = Moving(stage.hub, stage._dial)
    pins = list(stage.hub.pins)
    before: list[Any] = [pin.link for pin in pins]
    for pin in pins:
        run_at_once(moving.dial_for, pin)
    moving.prepare()
    for pin, link in zip(pins, before, strict=True):
        if not pin.in_multi:
            assert link.got()[-1] == "PING"
            link.answers(PONG)
    asked = stage.pin.got()
    assert not moving.ready
    stage.pin.answers(*answers or [OK] * len(asked))
    assert moving.ready and not moving.problems()
    moving.leave_behind()
    moving.hand_over()
    assert not any(link.wire.open for link in before)
    return asked


def subscriber(stage: Stage) -> Client:
    """A client that has subscribed to c, and heard so."""
    client = stage.client()
    client.says("SUBSCRIBE c")
    stage.pin.answers(CONFIRMED, QUIET_PONG)
    client.hears()
    return client


def prepared(stage: Stage) -> tuple[Moving, FakeLink]:
    """A flip under way, as far as the questions to the only pinned connection's heir; and that connection."""
    moving, old = Moving(stage.hub, stage._dial), stage.pin
    (pin,) = stage.hub.pins
    run_at_once(moving.dial_for, pin)
    moving.prepare()
    return moving, old


def test_watch_multi_exec(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k")
    assert stage.pin.got() == ["WATCH k"]
    stage.pin.answers(OK)
    client.says("GET k", "MULTI", "SET k 1")
    assert stage.pin.got() == ["GET k", "MULTI", "SET k 1"]
    stage.pin.answers(NIL, OK, QUEUED)
    client.says("EXEC")
    stage.pin.answers(array(OK))
    assert client.hears() == OK + NIL + OK + QUEUED + array(OK)
    assert client.session.pin is None
    stage.copies(b"one")
    assert not stage.dirty
    client.says("GET k")
    assert stage.lane.got() == ["GET k"]


def test_a_key_is_not_read_while_a_write_to_it_is_in_flight(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k")
    stage.pin.answers(OK)
    client.says("SET k 1")
    assert list(stage.dirty) == [(0, b"k")]
    assert stage.lane.got() == []
    stage.pin.answers(OK)
    assert stage.lane.got()[0] == "MULTI"


def test_commands_wait_until_the_lane_has_answered(stage: Stage) -> None:
    client = stage.client()
    client.says("GET a", "WATCH k", "GET b")
    assert stage.lane.got() == ["GET a"]
    assert not stage.dialled
    stage.lane.answers(NIL)
    assert stage.pin.got() == ["WATCH k", "GET b"]


def test_a_connection_without_state_is_used_again(stage: Stage) -> None:
    one, two = stage.client(), stage.client(db=3)
    one.says("WATCH k", "UNWATCH")
    stage.pin.answers(OK, OK)
    two.says("WATCH k")
    assert len(stage.dialled) == 1
    assert stage.pin.got() == ["WATCH k", "UNWATCH", "SELECT 3", "WATCH k"]


def test_a_write_of_a_client_that_left_is_seen_through(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "SET k 1")
    stage.pin.answers(OK)
    client.leaves()
    assert stage.pin.wire.open
    stage.pin.answers(OK)
    assert not stage.pin.wire.open
    assert stage.lane.got()[0] == "MULTI"  # k is read


def test_a_lost_connection_keeps_its_keys_held_until_it_is_fenced(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "SET k 1")
    stage.pin.breaks()
    assert client.hears() == b"<closed>"
    assert stage.lane.got() == []
    [(wire, then)] = stage.fences
    assert wire is stage.pin.wire
    then()
    stage.hub.flush()
    assert stage.lane.got()[0] == "MULTI"


def test_flush_on_a_pinned_connection_costs_a_backfill(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "FLUSHALL")
    stage.pin.answers(OK, OK)
    assert len(stage.fallbacks) == 1


def test_subscribe_and_messages(stage: Stage) -> None:
    client = stage.client()
    client.says("SUBSCRIBE c")
    assert stage.pin.got() == ["SUBSCRIBE c", "PING"]
    stage.pin.answers(CONFIRMED, MESSAGE, QUIET_PONG)
    assert client.hears() == CONFIRMED + MESSAGE
    client.says("UNSUBSCRIBE c")
    stage.pin.answers(GONE)
    assert client.hears() == GONE
    assert client.session.pin is None


def test_a_message_on_its_way_when_the_client_unsubscribes(stage: Stage) -> None:
    client, other = stage.client(), stage.client()
    client.says("SUBSCRIBE c")
    stage.pin.answers(CONFIRMED, QUIET_PONG)
    client.says("UNSUBSCRIBE c")
    stage.pin.answers(MESSAGE)
    other.says("WATCH k")
    stage.dialled[0].answers(GONE)
    assert client.hears() == CONFIRMED + MESSAGE + GONE
    assert other.hears() == b""


@pytest.mark.parametrize(
    ("inner", "replies"),
    [
        ("SUBSCRIBE c", array(CONFIRMED)),
        ("CLIENT TRACKING ON", array(OK)),
        ("HELLO 3", array(b"%0\r\n")),
        ("AUTH other secret", array(OK)),
    ],
)
def test_state_made_in_a_transaction_is_nobody_elses(stage: Stage, inner: str, replies: bytes) -> None:
    one, two = stage.client(), stage.client()
    one.says("WATCH k", "MULTI", inner, "EXEC")
    stage.pin.answers(OK, OK, QUEUED, replies)
    two.says("WATCH x")
    assert len(stage.dialled) == 2
    assert "WATCH x" not in stage.dialled[0].got()


def test_client_reply_in_a_transaction(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "MULTI", "CLIENT REPLY OFF", "EXEC")
    assert "CLIENT REPLY OFF" not in stage.pin.got()


def test_reset_in_a_transaction(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "MULTI")
    stage.pin.answers(OK, OK)
    client.says("RESET")
    assert "RESET" not in stage.pin.got()
    assert client.hears() == OK + OK + b"+RESET\r\n"
    assert client.session.pin is None


def test_select_refused_in_a_transaction(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "MULTI", "SELECT 99", "EXEC")
    stage.pin.answers(OK, OK, QUEUED, array(b"-ERR DB index is out of range\r\n"))
    assert client.session.db == 0
    client.says("GET k")
    assert stage.lane.got() == ["GET k"]


def test_a_write_behind_a_refused_select_in_a_transaction(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "MULTI", "SELECT 99", "SET k 1", "EXEC")
    stage.pin.answers(OK, OK, QUEUED, QUEUED, array(b"-ERR DB index is out of range\r\n", OK))
    assert (0, b"k") in stage.dirty


def test_select_in_a_transaction(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "MULTI", "SELECT 2", "SET k 1", "EXEC")
    stage.pin.answers(OK, OK, QUEUED, QUEUED, array(OK, OK))
    assert (2, b"k") in stage.dirty
    client.says("GET k")
    assert [command for command in stage.lane.got() if "GET" in command] == ["GET k"]
    assert client.session.db == 2


def _tracking(stage: Stage) -> None:
    client = stage.client()
    client.says("HELLO 3")
    client.says("CLIENT TRACKING ON")
    client.hears()
    assert stage.pin.got() == ["HELLO 3", "CLIENT TRACKING ON"]
    stage.pin.answers(b"%0\r\n", OK)


@pytest.mark.parametrize("command", ["JSON.SET doc $ 1", "NEWCOMMAND k v"])
def test_writes_are_not_repeated_after_a_flip(stage: Stage, command: str) -> None:
    client = stage.client()
    client.says(command)
    stage.pin.answers(OK)
    stage.hub.pause("a flip is under way")
    assert command not in move(stage)


def test_tracking_goes_on_after_a_flip(stage: Stage) -> None:
    _tracking(stage)
    stage.clients[0].hears()
    assert move(stage) == ["HELLO 3", "CLIENT TRACKING ON", "PING"]
    stage.hub.flush()
    assert stage.clients[0].hears() == b">2\r\n$10\r\ninvalidate\r\n_\r\n"


def test_what_is_replayed_is_bounded(stage: Stage) -> None:
    _tracking(stage)
    client = stage.clients[0]
    for _ in range(100):
        client.says("CLIENT CACHING YES", "GET k")
        stage.pin.answers(OK, b"_\r\n")
    assert len(move(stage)) < 5


@pytest.mark.parametrize("command", ["FUNCTION LOAD REPLACE code", "SCRIPT LOAD body", "PUBLISH c hello"])
def test_writes_without_keys_reach_the_mirror(stage: Stage, command: str) -> None:
    client = stage.client()
    client.says("WATCH k", command)
    stage.pin.answers(OK, bulk("result"))
    assert stage.mirror.got() == [command]


def test_a_lost_exec_with_a_flush_in_it_costs_a_backfill(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "MULTI", "FLUSHALL", "EXEC")
    stage.pin.answers(OK, OK, QUEUED)
    stage.pin.breaks()
    for _, then in stage.fences:
        then()
    assert stage.fallbacks


def test_an_open_transaction_does_not_keep_its_keys_dirty(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "MULTI", "SET k 1")
    stage.pin.answers(OK, OK, QUEUED)
    assert stage.hub.settled


def test_an_aborted_transaction(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "MULTI", "SET k 1", "EXEC")
    stage.pin.answers(OK, OK, QUEUED, b"*-1\r\n")
    assert client.hears() == OK + OK + QUEUED + b"*-1\r\n"
    assert client.session.pin is None


def test_exec_returns_nil_when_a_flip_came_behind_watch(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "MULTI", "INCR k")
    stage.pin.answers(OK, OK, QUEUED)
    client.hears()
    assert move(stage, PONG, OK, QUEUED) == ["PING", "MULTI", "INCR k"]
    client.says("EXEC", "PING")
    assert stage.pin.got() == ["DISCARD", "PING"]
    assert client.hears() == b"*-1\r\n"
    stage.pin.answers(OK, PONG)
    assert client.hears() == PONG


def test_an_open_transaction_is_replayed_after_a_flip(stage: Stage) -> None:
    client = stage.client()
    client.says("MULTI")
    stage.pin.answers(OK)
    client.says("INCR k")
    stage.pin.answers(QUEUED)
    client.hears()
    assert move(stage, PONG, OK, QUEUED) == ["PING", "MULTI", "INCR k"]
    client.says("EXEC")
    assert stage.pin.got() == ["EXEC"]
    stage.pin.answers(array(ONE))
    assert client.hears() == array(ONE)


def test_resp3_subscribers_do_not_hear_of_a_flip(stage: Stage) -> None:
    client = stage.client()
    client.says("HELLO 3")
    client.says("SUBSCRIBE c")
    stage.pin.answers(b"%0\r\n", CONFIRMED.replace(b"*", b">", 1), PONG)
    client.hears()
    confirmation = CONFIRMED.replace(b"*", b">", 1)
    asked = move(stage, b"%0\r\n", confirmation, MESSAGE.replace(b"*", b">", 1), PONG)
    assert asked == ["HELLO 3", "SUBSCRIBE c", "PING"]
    assert client.hears() == b""
    stage.pin.answers(MESSAGE.replace(b"*", b">", 1))
    assert client.hears() == MESSAGE.replace(b"*", b">", 1)


def test_a_message_on_its_way_when_a_flip_begins(stage: Stage) -> None:
    """It comes out of the old side before the other one serves."""
    client = subscriber(stage)
    moving, old = prepared(stage)
    assert stage.pin.got() == ["SUBSCRIBE c", "PING"]
    stage.pin.answers(CONFIRMED, QUIET_PONG)
    assert moving.ready and not stage.hub.drained, "the old side may still have something to tell"
    old.answers(MESSAGE)
    assert not stage.hub.drained
    old.answers(QUIET_PONG)
    assert stage.hub.drained
    assert client.hears() == MESSAGE


def test_a_flip_that_is_given_up_leaves_pinned_sessions_alone(stage: Stage) -> None:
    client = subscriber(stage)
    moving, old = prepared(stage)
    stage.pin.answers(b"-NOPERM no\r\n", PONG)
    assert "SUBSCRIBE: NOPERM no" in moving.problems()[0]
    moving.close()
    assert not stage.pin.wire.open and old.wire.open
    old.answers(QUIET_PONG, MESSAGE)
    assert client.hears() == MESSAGE


def test_monitor_is_told_from_replies(stage: Stage) -> None:
    line = b'+1339518083.107412 [0 127.0.0.1:60866] "get" "k"\r\n'
    client = stage.client()
    client.says("MONITOR")
    stage.pin.answers(OK, line)
    assert client.hears() == OK + line
    client.says("PING")
    stage.pin.answers(line, PONG)
    assert client.hears() == line + PONG
    assert client.session.owed == 0


def test_a_refused_unknown_command_marks_nothing(stage: Stage) -> None:
    client = stage.client()
    client.says("NOSUCH k")
    stage.pin.answers(b"-ERR unknown command 'NOSUCH'\r\n")
    assert client.hears() == b"-ERR unknown command 'NOSUCH'\r\n"
    assert not stage.hub.recorder.unmirrored


def test_error_and_zero_replies_release_what_is_held(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "SET k 1", "DEL k")
    stage.pin.answers(OK, ERROR, ZERO)
    stage.copies(None)
    assert not stage.dirty


def test_select_with_very_many_digits_in_a_transaction(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "MULTI", "SELECT " + "9" * 5000)
    assert client.session.open


def test_a_refused_subscription_to_several_channels(stage: Stage) -> None:
    client = stage.client()
    client.says("SUBSCRIBE a b c")
    stage.pin.answers(b"-NOPERM this user has no permissions to access one of the channels\r\n", PONG)
    assert client.session.owed == 0
    assert stage.hub.pins.idle


@pytest.mark.parametrize("resp", [2, 3])
def test_a_message_is_for_whoever_asked_before(stage: Stage, resp: int) -> None:
    """A subscription goes another way than what is published behind it: it is waited for."""
    subscriber, publisher, late = stage.client(), stage.client(), stage.client()
    if resp == 3:
        subscriber.says("HELLO 3")
    publisher.says("PUBLISH c before")
    assert stage.lane.got() == ["PUBLISH c before"]
    subscriber.says("SUBSCRIBE c")
    waiting: list[Any] = []
    stage.hub.pins.when = lambda condition, action: waiting.append((condition, action))  # type: ignore[method-assign]
    publisher.says("PUBLISH c one", "GET k")
    assert not stage.lane.got()
    stage.lane.answers(ZERO)
    ((condition, action),) = waiting
    assert not condition()
    late.says("SUBSCRIBE c")  # asked for later: not waited for
    pin = stage.dialled[0]
    confirmation = CONFIRMED if resp == 2 else CONFIRMED.replace(b"*", b">", 1)
    pin.answers(*([b"%0\r\n"] if resp == 3 else []), confirmation)
    assert not condition()
    pin.answers(QUIET_PONG if resp == 2 else PONG)
    assert condition()
    action()
    stage.serve()
    assert stage.lane.got() == ["PUBLISH c one", "GET k"]


def test_a_subscriber_that_leaves_is_not_waited_for(stage: Stage) -> None:
    subscriber, publisher = stage.client(), stage.client()
    subscriber.says("SUBSCRIBE c")
    stage.pin.breaks()
    publisher.says("PUBLISH c one")
    assert stage.lane.got() == ["PUBLISH c one"]


def test_a_refused_subscription_in_resp3(stage: Stage) -> None:
    """Its error is the client's, though nothing is awaited for it; the PING behind it is not."""
    client = stage.client()
    client.says("HELLO 3")
    client.hears()
    client.says("SSUBSCRIBE c")
    assert stage.pin.got()[-2:] == ["SSUBSCRIBE c", "PING"]
    stage.pin.answers(b"%0\r\n", ERROR, PONG)
    assert client.hears() == ERROR


def test_a_flip_names_the_keys_that_may_be_cached(stage: Stage) -> None:
    """Some clients know no other invalidation."""
    _tracking(stage)
    client = stage.clients[0]
    client.says("GET k", "SET l 1", "MGET m n")
    stage.pin.answers(NIL, OK, array(NIL, NIL))
    client.hears()
    move(stage)
    stage.hub.flush()
    head = b">2\r\n$10\r\ninvalidate\r\n"
    assert client.hears() == head + b"_\r\n" + head + array(bulk("k"), bulk("m"), bulk("n"))
