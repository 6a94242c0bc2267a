"""One client: any chunking of its bytes, bounded in both directions, closed exactly when it should be."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.session import HELD_BYTES, MAX_WINDOW, Mode
from resp.encode import encode
from tests.proxy.stage import NIL, OK, ONE, QUEUED, FakeLink, Stage, array, bulk, run_at_once, words

REPLIES = {"MULTI": OK, "TIME": array(bulk("1700000000"), bulk("0")), "PTTL": b":-1\r\n", "DUMP": NIL}


def answer(link: FakeLink) -> bool:
    """Play a server that answers 1 to everything; whether there was anything."""
    got, replies = link.got(), []
    block: list[bytes] | None = None
    for command in got:
        reply = REPLIES.get(command.split()[0], ONE)
        if command == "MULTI":
            block = []
        elif command == "EXEC" and block is not None:
            reply, block = array(*block), None
        elif block is not None:
            block.append(reply)
            reply = QUEUED
        replies.append(reply)
    if replies:
        link.answers(*replies)
    return bool(replies)


CONVERSATION = ["SET a 1", "GET a", "SELECT 1", "MULTI", "INCR n", "EXEC", "CLIENT ID", "GET b", "PING"]


@given(st.lists(st.integers(1, 40), max_size=12))
def test_any_chunking_gives_the_same_commands(cuts: list[int]) -> None:
    stage = Stage()
    try:
        client = stage.client()
        data = b"".join(encode(words(command)) for command in CONVERSATION)
        for cut in cuts:
            client.sends(data[:cut])
            data = data[cut:]
        client.sends(data)
        heard = b""
        while sum(answer(link) for link in (stage.lane, *stage.dialled, stage.mirror)):
            heard += client.hears()
        assert not client.session.backlog
        assert client.session.owed == 0
        assert heard == ONE * 3 + OK + QUEUED + array(ONE) + ONE * 3
    finally:
        stage.close()


def test_a_cut_command_waits_for_its_end(stage: Stage) -> None:
    client = stage.client()
    data = encode([b"SET", b"k", b"v"])
    for byte in data[:-1]:
        client.sends(bytes([byte]))
        assert stage.lane.got() == []
    client.sends(data[-1:])
    assert stage.lane.got() == ["SET k v"]


def test_commands_in_front_of_broken_bytes_are_answered_first(stage: Stage) -> None:
    client = stage.client()
    client.sends(encode([b"GET", b"a"]) + b"*1\r\n+x\r\n" + encode([b"GET", b"b"]))
    assert stage.lane.got() == ["GET a"]
    assert client.hears() == b""
    stage.lane.answers(NIL)
    assert client.hears() == NIL + b"-ERR Protocol error: expected '$', got '+'\r\n<closed>"
    assert stage.lane.got() == []


def test_quit_answers_what_is_owed_first(stage: Stage) -> None:
    client = stage.client()
    client.says("GET a", "QUIT", "SET a 1")
    stage.lane.answers(NIL)
    assert client.hears() == NIL + OK + b"<closed>"
    assert stage.lane.got() == ["GET a"]


def test_nothing_is_executed_behind_quit(stage: Stage) -> None:
    client = stage.client()
    client.says("QUIT", "SET a 1")
    assert client.hears() == OK + b"<closed>"
    assert stage.lane.got() == []


@pytest.mark.parametrize("bytes_", [encode([b"QUIT"]), b"*1\r\n+x\r\n"])
def test_a_muted_client_is_closed_too(stage: Stage, bytes_: bytes) -> None:
    client = stage.client()
    client.says("CLIENT REPLY OFF")
    client.sends(bytes_)
    assert client.hears().endswith(b"<closed>")
    assert not client.session.open


def test_client_reply_skip(stage: Stage) -> None:
    client = stage.client()
    client.says("CLIENT REPLY SKIP", "SET a 1", "GET a")
    stage.lane.answers(OK, bulk("1"))
    assert client.hears() == bulk("1")


def test_client_reply_off_and_on(stage: Stage) -> None:
    client = stage.client()
    client.says("GET a", "CLIENT REPLY OFF", "SET a 1", "CLIENT REPLY ON", "GET a")
    stage.lane.answers(NIL)
    stage.lane.answers(OK)
    assert client.hears() == NIL + OK
    stage.lane.answers(bulk("1"))
    assert client.hears() == bulk("1")


def test_a_client_that_streams_without_being_answered_is_not_read_for_ever(stage: Stage) -> None:
    """A serving side that hangs must not fill our memory (invariant 8)."""
    client = stage.client()
    sent = 0
    with pytest.raises(BlockingIOError):
        for _ in range(4000):
            client.says(*["SET k v"] * 100)
            sent += 1
    assert sent * 100 * len(encode([b"SET", b"k", b"v"])) < HELD_BYTES + 1024 * 1024  # the rest is in the kernel
    assert stage.hub.lane.pending <= MAX_WINDOW


def test_the_backlog_is_bounded_in_bytes(stage: Stage) -> None:
    client = stage.client()
    stage.hub.pause("test")
    value = b"x" * 60_000
    for _ in range(1000):
        try:
            client.says([b"SET", b"k", value])
        except BlockingIOError:
            break
    assert sum(len(args[2]) for args in client.session.backlog) < 32 * 1024 * 1024


def test_a_paused_client_goes_on_where_it_was(stage: Stage) -> None:
    client = stage.client()
    stage.hub.pause("test")
    client.says("SET a 1", "GET a")
    client.says("GET b")
    assert stage.lane.got() == []
    stage.hub.resume("test")
    stage.serve()
    assert stage.lane.got() == ["SET a 1", "GET a", "GET b"]


def test_a_client_that_does_not_read(stage: Stage) -> None:
    """Its replies are kept, its commands wait; it gets all of them in the end."""
    client = stage.client()
    reply = bulk("x" * 1_000_000)
    asked = 0
    for _ in range(10):
        client.says("GET big")
        if got := stage.lane.got():
            asked += len(got)
            stage.lane.answers(*[reply] * len(got))
    assert asked < 5
    assert client.session.choked
    heard = client.hears()
    while got := stage.lane.got():
        stage.lane.answers(*[reply] * len(got))
        heard += client.hears()
    assert heard == reply * 10


def test_events_after_the_end_do_no_harm(stage: Stage) -> None:
    """One batch of events may hold events of a client that was closed earlier in the batch."""
    client = stage.client()
    session = client.session
    session.close()
    session.on_readable()
    session.on_writable()
    session.close()
    assert session.mode is Mode.CLOSED
    assert stage.floor.events == {}


def test_replies_to_a_client_that_left(stage: Stage) -> None:
    client = stage.client()
    client.says("SET a 1", "GET a")
    client.leaves()
    stage.lane.answers(OK, bulk("1"))
    assert stage.mirror.got() == ["SET a 1"]
    assert not stage.hub.sessions


def test_killed_by_another_client(stage: Stage) -> None:
    victim, killer = stage.client(), stage.client()
    victim.says("SET a 1")
    killer.says(f"CLIENT KILL ID {victim.session.id}")
    assert killer.hears() == b":1\r\n"
    assert victim.hears() == b"<closed>"
    stage.lane.answers(OK)
    assert stage.mirror.got() == ["SET a 1"]


def test_the_end_of_input_is_not_the_end_of_output(stage: Stage) -> None:
    """`printf ... | nc`: what was asked is answered first."""
    client = stage.client()
    client.says("GET a")
    client.sock.shutdown(socket.SHUT_WR)
    stage.serve()
    stage.lane.answers(NIL)
    assert client.hears() == NIL + b"<closed>"


def test_the_end_of_input_behind_a_command_that_waits(stage: Stage) -> None:
    client = stage.client()
    client.says("GET a", "CLIENT ID")
    client.sock.shutdown(socket.SHUT_WR)
    stage.serve()
    stage.lane.answers(NIL)
    assert client.hears() == NIL + ONE + b"<closed>"


def test_the_end_of_input_behind_more_than_the_window(stage: Stage) -> None:
    """`cat commands | nc`: what is parked is executed, too."""
    client = stage.client()
    client.says(*["GET a"] * (MAX_WINDOW + 1))
    client.sock.shutdown(socket.SHUT_WR)
    stage.serve()
    assert client.session.backlog
    heard = b""
    while answer(stage.lane):
        heard += client.hears()
    assert heard == ONE * (MAX_WINDOW + 1) + b"<closed>"


def test_the_end_of_input_while_commands_wait(stage: Stage) -> None:
    """As during the pause of a flip."""
    client = stage.client()
    stage.hub.pause("a test")
    client.says("SET a 1")
    client.sock.shutdown(socket.SHUT_WR)
    stage.serve()
    assert not stage.lane.got()
    stage.hub.resume("a test")
    stage.lane.answers(OK)
    assert client.hears() == OK + b"<closed>"
    assert stage.mirror.got() == ["SET a 1"]


def test_the_end_of_input_while_a_connection_is_opened(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction needs one of its own."""
    openings: list[tuple[Any, ...]] = []
    monkeypatch.setattr(stage.hub.pins, "_start_soon", lambda *opening: openings.append(opening))
    client = stage.client()
    client.says("MULTI")
    client.sock.shutdown(socket.SHUT_WR)
    stage.serve()
    assert client.session.mode is Mode.OPENING
    ((function, *args),) = openings
    run_at_once(function, *args)
    stage.serve()
    stage.pin.answers(OK)
    assert client.hears() == OK + b"<closed>"


@pytest.mark.parametrize("says", [["GET a"], ["GET a", "GET b"], ["INCR a"]])
def test_the_end_of_input_comes_with_the_last_reply(stage: Stage, says: list[str]) -> None:
    """In one batch: nothing is owed any more, but nothing has been sent yet."""
    client = stage.client()
    client.says(*says)
    stage.lane.owner.on_frames([ONE] * len(says))
    client.sock.shutdown(socket.SHUT_WR)
    client.session.on_readable()
    stage.serve()
    assert client.hears() == ONE * len(says) + b"<closed>"
