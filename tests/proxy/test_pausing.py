"""CLIENT PAUSE: who waits, for how long, and in which order they go on."""

from __future__ import annotations

import hashlib

import pytest

from proxy.hub import FLIP
from tests.proxy.stage import ERROR, NIL, NIL_ARRAY, OK, ONE, QUEUED, Client, Stage, array, bulk

MS = 0.001


def paused(stage: Stage, *how: str) -> Client:
    client = stage.client()
    client.says(" ".join(("CLIENT PAUSE", *how)))
    assert client.hears() == OK
    return client


def over(stage: Stage, milliseconds: int) -> None:
    stage.now += milliseconds * MS
    stage.hub.pausing.end_in_time()
    stage.hub.flush()


def test_writes_wait_and_reads_do_not(stage: Stage) -> None:
    operator, writer, reader = paused(stage, "1000 WRITE"), stage.client(), stage.client()
    writer.says("GET a")
    writer.says("SET a 1")
    writer.says("GET a", "GET b")
    reader.says("GET a")
    assert stage.lane.got() == ["GET a", "GET a"]
    stage.lane.answers(NIL, NIL)
    operator.says("CLIENT UNPAUSE")
    assert operator.hears() == OK
    assert stage.lane.got() == ["SET a 1", "GET a", "GET b"]
    stage.lane.answers(OK, bulk("1"), NIL)
    assert writer.hears() == NIL + OK + bulk("1") + NIL


@pytest.mark.parametrize(
    ("command", "waits"),
    [
        ("SET k v", True),
        ("PUBLISH c x", True),
        ("PFCOUNT k", True),
        ("SORT k", True),
        ("BLPOP q 0", True),
        ("EVAL x 0", True),
        ([b"EVAL", b"#!lua flags=no-writes\nreturn 1", b"0"], False),
        ("EVAL_RO x 0", False),
        ("XREAD BLOCK 0 STREAMS x 0", False),
        ("SCRIPT LOAD x", False),
        ("INFO server", False),
        ("DBSIZE", False),
    ],
)
def test_which_ones_wait(stage: Stage, command: str | list[bytes], waits: bool) -> None:
    stage.roles.serving_facts.version = ("redis", 7, 0)
    stage.hub.watch._switched_on()
    paused(stage, "1000 WRITE")
    stage.client().says(command)
    assert (stage.lane.got() == []) is waits
    over(stage, 1000)
    assert bool(stage.lane.got()) is waits


READS = b"#!lua flags=allow-stale,no-writes\nreturn 1"
DIGEST = hashlib.sha1(READS, usedforsecurity=False).hexdigest()


@pytest.fixture
def since_7(stage: Stage) -> Stage:
    stage.roles.serving_facts.version = ("redis", 7, 0)
    stage.hub.watch._switched_on()
    return stage


@pytest.mark.parametrize("version", [(6, 2), (7, 0)])
@pytest.mark.parametrize("seen_in", [b"EVAL", b"SCRIPT LOAD"])
def test_a_digest_stands_for_a_script(stage: Stage, version: tuple[int, int], seen_in: bytes) -> None:
    """One that promises not to write does not wait, once it was seen; others do."""
    stage.roles.serving_facts.version = ("redis", *version)
    stage.hub.watch._switched_on()
    stage.hub.recorder.scripts.learn(seen_in, [b"SCRIPT", READS, READS], ok=True)
    paused(stage, "1000 WRITE")
    stage.client().says(f"EVALSHA {DIGEST.upper()} 0")
    stage.client().says(f"EVALSHA {'a' * 40} 0")
    assert len(stage.lane.got()) == (version >= (7, 0))
    over(stage, 1000)


def functions(*libraries: dict[str, str]) -> bytes:
    """An EXEC's reply with that to FUNCTION LIST: the flags of each function."""
    found = []
    for library in libraries:
        rows = [
            array(*map(bulk, ("name", name, "description")), NIL, bulk("flags"), array(*map(bulk, flags.split())))
            for name, flags in library.items()
        ]
        found.append(array(*map(bulk, ("library_name", "l", "engine", "LUA", "functions")), array(*rows)))
    return array(array(*found))


def test_functions_that_promise_not_to_write(since_7: Stage) -> None:
    """The server is asked once; who waits meanwhile goes on, or does not."""
    stage = since_7
    paused(stage, "1000 WRITE")
    clients = [stage.client() for _ in range(4)]
    for client, words in zip(clients, ("SET a 1", "FCALL Reads 0", "FCALL writes 0", "FCALL nosuch 0"), strict=True):
        client.says(words, "GET b")
    assert stage.lane.got() == ["MULTI", "FUNCTION LIST", "EXEC"]
    stage.lane.answers(OK, QUEUED, functions({"writes": "allow-oom"}, {"READS": "allow-stale no-writes"}))
    assert stage.lane.got() == ["FCALL Reads 0", "GET b"]
    stage.client().says("FCALL reads 0", "FCALL writes 0")
    assert stage.lane.got() == ["FCALL reads 0"]
    over(stage, 1000)
    assert [text for text in stage.lane.got() if text != "GET b"] == [
        "SET a 1", "FCALL writes 0", "FCALL nosuch 0", "FCALL writes 0"
    ]  # fmt: skip
    paused(stage, "1000 WRITE")
    stage.client().says("FCALL reads 0")
    assert stage.lane.got() == ["MULTI", "FUNCTION LIST", "EXEC"]


def test_a_server_that_does_not_tell_its_functions(since_7: Stage) -> None:
    stage = since_7
    for answer in (array(ERROR), ERROR, array(array(bulk("x"))), NIL_ARRAY):
        paused(stage, "1000 WRITE")
        client = stage.client()
        client.says("FCALL reads 0")
        stage.lane.answers(OK, QUEUED, answer)
        assert stage.lane.got() == ["MULTI", "FUNCTION LIST", "EXEC"]
        over(stage, 1000)
        assert stage.lane.got() == ["FCALL reads 0"]
        stage.lane.answers(ONE)


def test_what_is_told_after_the_pause_counts_no_more(since_7: Stage) -> None:
    stage = since_7
    paused(stage, "1000 WRITE")
    stage.client().says("FCALL reads 0")
    over(stage, 1000)
    paused(stage, "1000 WRITE")
    stage.client().says("FCALL reads 0")
    answer = functions({"reads": "no-writes"})
    asked = ["MULTI", "FUNCTION LIST", "EXEC"]
    assert stage.lane.got() == [*asked, "FCALL reads 0", *asked]
    stage.lane.answers(OK, QUEUED, answer)
    assert stage.lane.got() == []
    stage.lane.answers(ONE)
    stage.lane.answers(OK, QUEUED, answer)
    assert stage.lane.got() == ["FCALL reads 0"]


def test_in_a_transaction_too(since_7: Stage) -> None:
    stage = since_7
    paused(stage, "1000 WRITE")
    client = stage.client()
    client.says("MULTI", "FCALL reads 0", "EXEC")
    assert stage.lane.got() == ["MULTI", "FUNCTION LIST", "EXEC"]
    pin = stage.pin
    assert pin.got() == ["MULTI"]
    pin.answers(OK)
    stage.lane.answers(OK, QUEUED, functions({"reads": "no-writes"}))
    assert pin.got() == ["FCALL reads 0", "EXEC"]


def test_everybody_waits(stage: Stage) -> None:
    paused(stage, "1000").says("GET a")
    stage.client().says("GET b")
    stage.client().says("CLIENT UNPAUSE", "GET c")
    over(stage, 999)
    assert stage.lane.got() == []
    over(stage, 1)
    assert stage.lane.got() == ["GET a", "GET b", "GET c"]


def test_the_same_write_behind_a_pause(stage: Stage) -> None:
    client = stage.client()
    client.says("CLIENT PAUSE 1000", "SET a 1", "GET a")
    assert client.hears() == OK
    assert stage.lane.got() == []
    over(stage, 1000)
    assert stage.lane.got() == ["SET a 1", "GET a"]


def test_who_came_first_goes_on_first(stage: Stage) -> None:
    clients = [stage.client() for _ in range(3)]
    paused(stage, "1000 WRITE")
    for number in (2, 0, 1):
        clients[number].says(f"INCR n{number}")
    over(stage, 1000)
    assert stage.lane.got() == ["INCR n2", "INCR n0", "INCR n1"]


def test_the_longer_and_the_stricter_hold(stage: Stage) -> None:
    operator = paused(stage, "1000 WRITE")
    operator.says("CLIENT PAUSE 10 WRITE", "CLIENT PAUSE 0", "GET a")
    over(stage, 999)
    assert operator.hears() == OK + OK
    assert stage.lane.got() == []
    over(stage, 1)
    assert stage.lane.got() == ["GET a"]
    paused(stage, "5 WRITE")  # the former are forgotten
    stage.client().says("GET b")
    assert stage.lane.got() == ["GET b"]


def test_who_leaves_while_it_waits_has_not_written(stage: Stage) -> None:
    paused(stage, "1000 WRITE")
    writer = stage.client()
    writer.says("SET a 1")
    writer.leaves()
    over(stage, 1000)
    assert stage.lane.got() == []


def test_transactions_wait_at_their_first_write(stage: Stage) -> None:
    paused(stage, "1000 WRITE")
    client = stage.client()
    client.says("MULTI", "GET a", "SET a 1", "EXEC")
    pin = stage.pin
    assert pin.got() == ["MULTI", "GET a"]
    pin.answers(OK, QUEUED)
    assert client.hears() == OK + QUEUED
    over(stage, 1000)
    assert pin.got() == ["SET a 1", "EXEC"]


def test_a_transaction_with_writes_waits_at_its_end(stage: Stage) -> None:
    client = stage.client()
    client.says("MULTI")
    client.says("SET a 1")
    pin = stage.pin
    pin.answers(OK, QUEUED)
    assert pin.got() == ["MULTI", "SET a 1"]
    paused(stage, "1000 WRITE")
    client.says("EXEC")
    assert pin.got() == []
    over(stage, 1000)
    assert pin.got() == ["EXEC"]


def test_the_blocked_time_out_meanwhile_and_the_held_do_not(stage: Stage) -> None:
    blocked, held = stage.client(), stage.client()
    blocked.says("BLPOP q 0.5")
    stage.lane.answers(OK, QUEUED, array(NIL_ARRAY))
    operator = paused(stage, "1000 WRITE")
    held.says("BLPOP q 0.5")
    stage.now += 0.6
    stage.hub.waiters._expire(stage.now)
    stage.hub.flush()
    assert (blocked.hears(), held.hears()) == (NIL_ARRAY, b"")
    operator.says(f"CLIENT UNBLOCK {held.session.id}", f"CLIENT LIST ID {held.session.id}")
    heard = operator.hears()
    assert heard.startswith(b":0\r\n")
    assert b" flags=b " in heard


def test_a_flip_meanwhile(stage: Stage) -> None:
    paused(stage, "1000")
    stage.client().says("GET a")
    stage.hub.pause(FLIP)
    stage.hub.resume(FLIP)
    assert stage.lane.got() == []
    stage.hub.pause(FLIP)
    over(stage, 1000)
    assert stage.lane.got() == []
    stage.hub.resume(FLIP)
    assert stage.lane.got() == ["GET a"]


def test_killed_while_it_waits(stage: Stage) -> None:
    operator, writer = paused(stage, "1000 WRITE"), stage.client()
    writer.says("SET a 1")
    operator.says(f"CLIENT KILL ID {writer.session.id}")
    assert (operator.hears(), writer.hears()) == (ONE, b"<closed>")
    over(stage, 1000)
    assert stage.lane.got() == []
