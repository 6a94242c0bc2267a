"""The owner's end of a front's trunk: blocks come whole, and the context changes between two commands."""

from __future__ import annotations

import socket
from typing import Any, ClassVar, cast

import pytest

from proxy.front import trunk
from proxy.front.guests import CONTEXT, GROUP_BYTES, TrunkSession
from resp.encode import encode
from tests.proxy.stage import NIL, OK, QUEUED, Stage, array
from tests.resp.chunking import cuttings

LINES = ["SET a 1", "MULTI", "SET a 2", "GET a", "EXEC", "GET a", "MULTI", "EXEC", "SET b 1", "MULTI", "GET b", "EXEC"]
COMMANDS = [line.encode().split() for line in LINES]
ANSWERS = [OK, OK, QUEUED, QUEUED, array(OK, NIL), NIL, OK, array(), OK, OK, QUEUED, array(NIL)]
PAYLOADS = [COMMANDS[0:1], COMMANDS[1:5], COMMANDS[5:6], COMMANDS[6:8], COMMANDS[8:9], COMMANDS[9:12]]


class Taken:
    """In the place of a link."""

    dbs: ClassVar[set[int]] = {0}
    db, resp = 0, 2

    def __init__(self) -> None:
        self.data = b""

    def send(self, data: bytes) -> None:
        self.data += data


@pytest.mark.parametrize("limit", [1, 60, 150, GROUP_BYTES])
def test_blocks_come_whole_however_the_stream_is_cut(stage: Stage, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """What a front's trunk sends, and what the owner's end of it reads."""
    monkeypatch.setattr(trunk, "GROUP_BYTES", limit)
    lane, link = trunk.Trunk(lambda loss: None, lambda full: None), Taken()
    lane.attach(cast("Any", link))
    guest = stage.client().session
    for commands in PAYLOADS:
        lane.forward(guest, b"".join(map(encode, commands)), len(commands))
    lane.flush()
    for chunks in cuttings(link.data):
        near, far = socket.socketpair()
        far.setblocking(False)
        end = TrunkSession(stage.hub, far, 99, 0, "worker-1", lambda db: None)
        stage.hub.joined(end)
        for chunk in chunks:
            if chunk:
                near.send(chunk)
                end.on_readable()
        stage.hub.flush()
        assert stage.lane.got() == LINES
        stage.lane.answers(*ANSWERS)
        assert end.owed == 0 and stage.hub.lane.idle
        end.close()
        near.close()


def test_the_context_changes_between_two_commands(stage: Stage) -> None:
    """Without a reply of its own, and without waiting for those that are due."""
    session = _trunk(stage)
    said = ["GET a", "CROSSFADE.CONTEXT 1 3", "SET b 1", "CROSSFADE.CONTEXT 0 2", "GET c"]
    stage.hub.router.dispatch(session, [line.encode().split() for line in said])
    stage.hub.flush()
    expected = ["GET a", "HELLO 3", "SELECT 1", "SET b 1", "HELLO 2", "SELECT 0", "GET c"]
    assert stage.lane.got() == expected
    assert session.owed == 3


def test_a_db_that_is_not_there_does_not_reach_the_lane(stage: Stage) -> None:
    refused: list[int] = []
    session = _trunk(stage, refused)
    stage.hub.router.dispatch(session, [[CONTEXT, b"99", b"2"], [b"GET", b"a"]])
    stage.hub.flush()
    assert refused == [99] and not session.open
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
