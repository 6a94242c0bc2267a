"""The lane: one order for all sessions, with the right db and protocol in front of every command; and its loss."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.hub import DOWN
from tests.proxy.stage import ERROR, NIL, OK, ONE, QUEUED, Stage, array, bulk, dumped, number


def test_the_context_follows_the_sessions(stage: Stage) -> None:
    zero, two = stage.client(), stage.client(db=2)
    zero.says("GET a")
    two.says("GET a", "GET b")
    two.says("HELLO 3")
    zero.says("GET c")
    assert stage.lane.got() == ["GET a", "SELECT 2", "GET a", "GET b", "SELECT 0", "GET c"]
    stage.lane.answers(NIL, OK, bulk("1"), bulk("2"), OK, NIL)
    assert zero.hears() == NIL + NIL
    assert two.hears().startswith(bulk("1") + bulk("2") + b"%")
    two.says("GET d")
    assert stage.lane.got() == ["HELLO 3", "SELECT 2", "GET d"]


def test_replies_go_to_whom_they_belong(stage: Stage) -> None:
    one, two = stage.client(), stage.client()
    one.says("GET a", "GET b")
    two.says("GET c")
    one.says("GET d")
    stage.lane.answers(bulk("a"), bulk("b"), bulk("c"), bulk("d"))
    assert one.hears() == bulk("a") + bulk("b") + bulk("d")
    assert two.hears() == bulk("c")


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["GET k", "SET k v", "SELECT 1", "SELECT 0", "PING"]))))
def test_every_command_has_one_answer_in_its_own_db(conversation: list[tuple[int, str]]) -> None:
    """Play a server that knows its db, and answer with it."""
    stage = Stage()
    try:
        for _ in range(3):
            stage.client()
        expected: list[bytes] = [b"", b"", b""]
        dbs, db = [0, 0, 0], 0
        for who, command in conversation:
            stage.clients[who].says(command)
            if command.startswith("SELECT"):
                dbs[who] = int(command[-1])
                expected[who] += OK
            else:
                expected[who] += bulk(f"db{dbs[who]}") if command != "PING" else b"+PONG\r\n"
        while got := stage.lane.got():
            answered = []
            for command in got:
                if command.startswith("SELECT"):
                    db = int(command[-1])
                    answered.append(OK)
                else:
                    answered.append(bulk(f"db{db}") if command != "PING" else b"+PONG\r\n")
            stage.lane.answers(*answered)
        assert [client.hears() for client in stage.clients] == expected
        assert stage.hub.lane.idle
    finally:
        stage.close()


def test_select_of_a_known_db_does_not_wait(stage: Stage) -> None:
    client = stage.client()
    client.says("SELECT 1", "GET a")
    assert stage.lane.got() == ["SELECT 1", "GET a"]
    stage.lane.answers(OK, NIL)
    assert client.hears() == OK + NIL


def test_select_of_an_unknown_db_waits(stage: Stage) -> None:
    client, other = stage.client(), stage.client()
    client.says("SELECT 9", "SET a 1")
    other.says("GET a")
    assert stage.lane.got() == ["SELECT 9", "SELECT 0", "GET a"]
    stage.lane.answers(b"-ERR DB index is out of range\r\n", OK, NIL)
    assert client.hears() == b"-ERR DB index is out of range\r\n"
    assert client.session.db == 0
    assert [command for command in stage.lane.got() if command != "SELECT 0"] == ["SET a 1"]


def test_select_of_an_unknown_db_that_is_there(stage: Stage) -> None:
    client = stage.client()
    client.says("SELECT 9", "GET a")
    stage.lane.answers(OK)
    assert client.session.db == 9
    assert stage.lane.got() == ["SELECT 9", "GET a"]


def test_two_clients_enter_an_unknown_db_at_once(stage: Stage) -> None:
    """The second one's answer comes when the db is known already."""
    one, two = stage.client(), stage.client()
    one.says("SELECT 9")
    two.says("SELECT 9", "GET a")
    stage.lane.answers(OK, OK, OK)
    assert (one.session.db, two.session.db) == (9, 9)


def test_a_block_is_contiguous(stage: Stage) -> None:
    one, two = stage.client(), stage.client(db=1)
    one.says("GET x")
    two.says("MULTI", "INCR a", "INCR b", "EXEC")
    assert stage.lane.got() == ["GET x", "SELECT 1", "MULTI", "INCR a", "INCR b", "EXEC"]
    stage.lane.answers(NIL, OK, OK, QUEUED, QUEUED, array(ONE, ONE))
    assert two.hears() == OK + QUEUED + QUEUED + array(ONE, ONE)


def test_an_aborted_block_is_not_mirrored(stage: Stage) -> None:
    client = stage.client()
    client.says("MULTI", "SET a", "SET b 1", "EXEC")
    stage.lane.answers(OK, ERROR, QUEUED, b"-EXECABORT no\r\n")
    assert client.hears() == OK + ERROR + QUEUED + b"-EXECABORT no\r\n"
    assert stage.mirror.got() == []


def test_a_lost_lane(stage: Stage) -> None:
    """Reads are sent again; who has a write in flight is disconnected, its keys are dirty; who has nothing waits."""
    reader, writer, idle = stage.client(), stage.client(), stage.client()
    reader.says("GET a", "SELECT 1", "GET b")
    writer.says("GET c", "SET w 1")
    stage.lane.breaks()
    assert writer.hears() == b"<closed>"
    assert list(stage.dirty) == [(0, b"w")]
    idle.says("GET d")
    [loss] = stage.losses
    assert stage.hub.paused
    stage.new_lane()
    stage.hub.lane.replay(loss.reads)
    stage.hub.resume(DOWN)
    assert [command for command in stage.lane.got() if command.startswith("GET")] == ["GET a", "GET d"]
    stage.lane.answers(NIL, NIL, OK, QUEUED, QUEUED, QUEUED, dumped(b"one"))
    assert stage.lane.got() == ["SELECT 1", "GET b"]


def test_a_lost_block_makes_its_keys_dirty(stage: Stage) -> None:
    client = stage.client()
    client.says("MULTI", "SET a 1", "GET x", "DEL b", "EXEC")
    stage.lane.breaks()
    assert set(stage.dirty) == {(0, b"a"), (0, b"b")}


def test_a_lost_flush_costs_a_backfill(stage: Stage) -> None:
    stage.client().says("FLUSHALL")
    stage.lane.breaks()
    assert stage.fallbacks


def test_half_of_the_replies_came(stage: Stage) -> None:
    client = stage.client()
    client.says("SET a 1", "SET b 2")
    stage.lane.answers(OK)
    stage.lane.breaks()
    assert client.hears() == OK + b"<closed>"
    assert list(stage.dirty) == [(0, b"a"), (0, b"b")], "a pipeline's effects are queued when all of it is answered"


def test_the_context_after_a_reconnect(stage: Stage) -> None:
    client = stage.client(db=1)
    client.says("GET a")
    stage.lane.answers(OK, NIL)
    stage.lane.breaks()
    stage.new_lane()
    stage.hub.resume(DOWN)
    client.says("GET a")
    assert stage.lane.got() == ["SELECT 1", "GET a"]


def test_the_proxys_own_commands(stage: Stage) -> None:
    got: list[bytes | None] = []
    client = stage.client(db=1)
    client.says("HELLO 3")
    client.says("GET a")
    stage.lane.got()
    stage.hub.lane.call(2, [[b"TTL", b"k"]], got.append)
    stage.hub.flush()
    assert stage.lane.got() == ["HELLO 2", "SELECT 2", "MULTI", "TTL k", "EXEC"]
    stage.lane.answers(b"%0\r\n", OK, NIL, b"%0\r\n", OK, OK, QUEUED, array(number(5)))
    assert got == [array(number(5))]
    stage.hub.lane.call(0, [[b"TTL", b"k"]], got.append)
    stage.lane.breaks()
    assert got[1] is None


def test_without_a_connection_nothing_is_awaited(stage: Stage) -> None:
    """A client's SELECT and our own reads while the source is away: attach() must find nothing pending."""
    got: list[bytes | None] = []
    stage.lane.breaks()
    stage.hub.refusal = "the serving side is not reachable"
    stage.hub.resume(DOWN)
    client = stage.client()
    client.says("SELECT 1", "GET a")
    stage.hub.lane.call(0, [[b"TIME"]], got.append)
    stage.hub.flush()
    assert client.hears().count(b"\r\n") == 2
    assert stage.hub.lane.idle
    stage.new_lane()


def test_reads_that_cannot_be_asked_again_get_an_error_each(stage: Stage) -> None:
    """A pipeline in one piece is one item of the lane."""
    one, two = stage.client(), stage.client()
    one.says("GET a", "GET b", "GET c")
    two.says("GET d")
    stage.lane.answers(bulk("1"))
    stage.lane.breaks()
    stage.losses[0].refuse(ERROR)
    stage.hub.flush()
    assert (one.hears(), two.hears()) == (bulk("1") + ERROR * 2, ERROR)
    assert one.session.owed == two.session.owed == 0
    assert not stage.losses[0].reads


def test_pushes_are_nobodys_reply(stage: Stage) -> None:
    client = stage.client()
    client.says("GET a")
    stage.lane.answers(b">2\r\n$10\r\ninvalidate\r\n_\r\n", bulk("1"))
    assert client.hears() == bulk("1")
