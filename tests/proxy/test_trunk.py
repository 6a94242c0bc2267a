"""The owner's end of a front's trunk: blocks come whole, and the context changes between two commands."""

from __future__ import annotations

from proxy.front.guests import CONTEXT, TrunkParser, TrunkSession
from resp.encode import encode
from tests.proxy.stage import Stage
from tests.resp.chunking import cuttings

LINES = ["SET a 1", "MULTI", "SET a 2", "GET a", "EXEC", "GET a", "MULTI", "EXEC", "SET b 1", "MULTI", "GET b", "EXEC"]
COMMANDS = [line.encode().split() for line in LINES]
BLOCKS = {1: 5, 6: 8, 9: 12}  # from MULTI to behind EXEC


def test_a_block_is_given_whole_however_it_is_cut() -> None:
    for chunks in cuttings(b"".join(map(encode, COMMANDS))):
        parser = TrunkParser()
        given: list[list[bytes]] = []
        for chunk in chunks:
            given += parser.feed(chunk)
            assert given == COMMANDS[: len(given)]
            assert not any(begin < len(given) < end for begin, end in BLOCKS.items())
        assert given == COMMANDS and parser.fresh


def test_the_context_changes_between_two_commands(stage: Stage) -> None:
    """Without a reply of its own, and without waiting for those that are due."""
    trunk = _trunk(stage)
    said = ["GET a", "CROSSFADE.CONTEXT 1 3", "SET b 1", "CROSSFADE.CONTEXT 0 2", "GET c"]
    stage.hub.router.dispatch(trunk, [line.encode().split() for line in said])
    stage.hub.flush()
    expected = ["GET a", "HELLO 3", "SELECT 1", "SET b 1", "HELLO 2", "SELECT 0", "GET c"]
    assert stage.lane.got() == expected
    assert trunk.owed == 3


def test_a_db_that_is_not_there_does_not_reach_the_lane(stage: Stage) -> None:
    refused: list[int] = []
    trunk = _trunk(stage, refused)
    stage.hub.router.dispatch(trunk, [[CONTEXT, b"99", b"2"], [b"GET", b"a"]])
    stage.hub.flush()
    assert refused == [99] and not trunk.open
    assert stage.lane.got() == []


def test_a_client_cannot_change_the_context(stage: Stage) -> None:
    client = stage.client()
    client.says("CROSSFADE.CONTEXT 1 3")
    assert (client.session.db, client.session.resp) == (0, 2)


def _trunk(stage: Stage, refused: list[int] | None = None) -> TrunkSession:
    session = stage.client().session
    trunk = TrunkSession(stage.hub, session.sock, 99, 0, "worker-1", (refused if refused is not None else []).append)
    stage.hub.joined(trunk)
    return trunk
