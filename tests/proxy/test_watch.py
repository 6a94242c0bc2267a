"""The watch's connection: read late, unless somebody waits."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio

from backfill.wire import Wire
from proxy.epoll_floor import EpollFloor
from proxy.link import Link
from proxy.watch import Decoder, State, Watch
from tests.proxy.stage import OK, Stage, array, bulk
from tests.proxy.test_floor import idle

PONG = b"+PONG\r\n"


def changed(key: str) -> bytes:
    return b">2\r\n" + bulk("invalidate") + array(bulk(key))


@pytest.fixture
def server(stage: Stage) -> Iterator[socket.socket]:
    """The server's end of the watch's connection, which is on."""
    stage.hub.watch = watch = Watch(stage.hub, enabled=True)
    ours, theirs = socket.socketpair()
    watch._link = Link(Wire(ours), stage.hub.floor, watch, resp=3, scanner=Decoder())
    watch._barriers = [watch._switched_on]
    theirs.settimeout(5)
    theirs.send(OK)
    watch._link.on_readable()
    assert watch.state is State.ON
    yield theirs
    watch._link.close()
    theirs.close()


def link_of(stage: Stage) -> Link:
    link = stage.hub.watch._link
    assert link is not None
    return link


def test_what_others_change_is_read_when_the_floor_rests_and_copied(stage: Stage, server: socket.socket) -> None:
    server.send(changed("a"))
    link_of(stage).on_readable()
    server.send(changed("b"))
    link_of(stage).on_readable()
    assert stage.hub.watch.unexplained == 0
    stage.hub.rest()
    assert stage.hub.watch.unexplained == 2
    got = stage.lane.got()
    assert "DUMP a" in got and "DUMP b" in got
    stage.hub.rest()
    assert not stage.lane.got()


def test_nobody_waits_for_a_barrier_longer_than_he_must(stage: Stage, server: socket.socket) -> None:
    passed: list[int] = []
    server.send(changed("a"))
    link_of(stage).on_readable()
    stage.hub.watch.barrier(lambda: passed.append(stage.hub.watch.unexplained))
    for _ in range(2):
        assert not passed
        assert server.recv(100)
        server.send(PONG)
        link_of(stage).on_readable()
    assert passed == [1]
    server.send(changed("b"))
    link_of(stage).on_readable()
    assert stage.hub.watch.unexplained == 1


async def test_nothing_else_has_to_happen(stage: Stage, nursery: trio.Nursery) -> None:
    """On the floor itself; the end is heard, too."""
    stage.hub.floor = floor = EpollFloor(stage.hub.serve, stage.hub.rest)
    stage.hub.watch = watch = Watch(stage.hub, enabled=True)
    ours, theirs = socket.socketpair()
    watch._link = link = Link(Wire(ours), floor, watch, resp=3, scanner=Decoder())
    watch._barriers = [watch._switched_on]
    nursery.start_soon(floor.run)
    theirs.send(OK)
    await idle()
    theirs.send(changed("a"))
    await idle()
    assert "DUMP a" in stage.lane.got()
    theirs.send(changed("b"))
    theirs.close()
    await idle()
    assert "DUMP b" in stage.lane.got()
    assert link.fileno() < 0
