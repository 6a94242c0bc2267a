"""Where a command goes. The lane takes an allow-list; everything else has a connection of its own or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resp.catalog import LANE, Catalog, Route
from tests.proxy.stage import ERROR, NIL, OK, ONE, QUEUED, Stage, array, bulk

PINNED = ["MONITOR", "CONFIG GET x", "CLIENT TRACKING ON", "NOSUCH a b", "SAVE", "WATCH k", "SUBSCRIBE c", "MULTI"]
REFUSED = ["SHUTDOWN", "REPLICAOF NO ONE", "PSYNC ? -1", "MODULE LOAD x", "DEBUG SEGFAULT", "MIGRATE h 1 k 0 1"]


@pytest.mark.parametrize("command", PINNED)
def test_what_gets_a_connection_of_its_own(stage: Stage, command: str) -> None:
    stage.client().says(command)
    assert stage.lane.got() == []
    assert [got for got in stage.pin.got() if got != "PING"] == [command]


@pytest.mark.parametrize("command", REFUSED)
def test_what_is_refused(stage: Stage, command: str) -> None:
    client = stage.client()
    client.says(command, "GET a")
    assert client.hears().startswith(b"-ERR ")
    assert stage.lane.got() == ["GET a"]
    assert not stage.dialled


def test_only_what_the_table_allows_reaches_the_lane(stage: Stage) -> None:
    """Every name that is known, with arguments that no server would take."""
    client = stage.client()
    for spec in Catalog.default():
        if spec.route in LANE - {Route.BLOCKING} or spec.name in (b"QUIT", b"EXEC", b"DISCARD", b"UNWATCH"):
            continue
        client = stage.client()
        client.says([*spec.name.split(b" "), b"x"])
        got = stage.lane.got()
        assert not got or got[0] in ("MULTI", "SELECT 0") or spec.name in (b"XREAD", b"XREADGROUP"), (spec.name, got)
        if got:
            stage.lane.answers(OK, ERROR, b"-EXECABORT no\r\n") if len(got) == 3 else stage.lane.answers(ERROR)


def test_names_in_any_case(stage: Stage) -> None:
    stage.client().says("gEt a", "SeT a 1", "rEsEt")
    assert stage.lane.got() == ["gEt a", "SeT a 1"]


def test_order_is_kept_across_lane_local_and_pinned(stage: Stage) -> None:
    client = stage.client()
    client.says("GET a", "CLIENT GETNAME", "SHUTDOWN", "GET b", "CONFIG GET x", "GET c")
    assert stage.lane.got() == ["GET a"]
    stage.lane.answers(bulk("a"))
    assert stage.lane.got() == ["GET b"]
    stage.lane.answers(bulk("b"))
    assert stage.pin.got() == ["CONFIG GET x", "GET c"]
    stage.pin.answers(array(), bulk("c"))
    heard = client.hears()
    assert heard.startswith(bulk("a") + NIL + b"-ERR ")
    assert heard.endswith(bulk("b") + array() + bulk("c"))


def test_a_whole_block_goes_down_the_lane(stage: Stage) -> None:
    stage.client().says("MULTI", "SET a 1", "XADD s MAXLEN ~ 10 * f v", "BLPOP q 0", "EXEC", "GET b")
    assert stage.lane.got() == ["MULTI", "SET a 1", "XADD s MAXLEN = 10 * f v", "BLPOP q 0", "EXEC", "GET b"]


@pytest.mark.parametrize(
    "inner", ["SELECT 1", "SUBSCRIBE c", "NOSUCH", "WATCH k", "CLIENT ID", "MULTI", "CONFIG GET x"]
)
def test_a_block_with_anything_else_does_not(stage: Stage, inner: str) -> None:
    stage.client().says("MULTI", "SET a 1", inner, "EXEC")
    assert stage.lane.got() == []
    assert stage.pin.got()[:2] == ["MULTI", "SET a 1"]


def test_a_block_without_its_exec_is_pinned_until_it_comes(stage: Stage) -> None:
    client = stage.client()
    client.says("MULTI", "SET a 1")
    assert stage.pin.got() == ["MULTI", "SET a 1"]
    client.says("EXEC", "GET a")
    assert stage.pin.got() == ["EXEC", "GET a"]
    stage.pin.answers(OK, QUEUED, array(OK), bulk("1"))
    assert client.hears() == OK + QUEUED + array(OK) + bulk("1")


def test_exec_without_multi(stage: Stage) -> None:
    client = stage.client()
    client.says("EXEC")
    assert stage.lane.got() == ["EXEC"]
    stage.lane.answers(b"-ERR EXEC without MULTI\r\n")
    assert client.hears() == b"-ERR EXEC without MULTI\r\n"


def test_approximate_trimming_is_made_exact(stage: Stage) -> None:
    stage.client().says("XTRIM s MAXLEN ~ 10 LIMIT 5")
    assert stage.lane.got() == ["XTRIM s MAXLEN = 10"]


def test_without_authentication(stage: Stage) -> None:
    client = stage.client(authenticated=False)
    client.says("GET a", "CONFIG GET x", "MULTI", "EVAL x 0")
    assert client.hears() == b"-NOAUTH Authentication required.\r\n" * 4
    assert stage.lane.got() == []
    assert not stage.dialled


def test_while_the_source_is_away(stage: Stage) -> None:
    stage.lane.breaks()
    client = stage.client()
    client.says("GET a")
    assert client.hears() == b""
    stage.hub.refusal = "crossfade: the serving side is not reachable"
    stage.hub.resume("the serving side is not connected")
    stage.serve()
    assert client.hears() == b"-ERR crossfade: the serving side is not reachable\r\n"
    client.says("CLIENT ID", "BLPOP q 0", "MULTI", "WATCH k")
    assert client.hears().startswith(b":1\r\n-ERR crossfade")


words_ = st.lists(
    st.binary(max_size=6) | st.sampled_from([b"GET", b"k", b"0", b"-1", b"STREAMS", b"$", b"BLOCK", b"*"])
)
names = st.sampled_from([name for spec in Catalog.default() for name in [spec.name]])


@given(st.lists(st.tuples(names, words_), max_size=6))
def test_no_command_breaks_the_proxy(commands: list[tuple[bytes, list[bytes]]]) -> None:
    """Whatever the arguments are: an exception on the fast floor costs everybody."""
    stage = Stage()
    try:
        client = stage.client()
        client.says(*[[*name.split(b" "), *args] for name, args in commands])
        for _ in range(10):
            for link in (stage.lane, *stage.dialled):
                link.answers(*[ERROR] * len(link.got()))
        assert stage.hub.lane.link is not None or stage.losses
    finally:
        stage.close()


def test_a_pipeline_behind_a_transaction_on_a_pin(stage: Stage) -> None:
    client = stage.client()
    client.says("WATCH k", "MULTI", "INCR k", "EXEC", "GET k", "SET k 5")
    stage.pin.answers(OK, OK, QUEUED, array(ONE), bulk("1"), OK)
    assert client.hears() == OK + OK + QUEUED + array(ONE) + bulk("1") + OK
    assert client.session.pin is None
