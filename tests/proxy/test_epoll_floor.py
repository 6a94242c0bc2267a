"""Waiting in trio's place: nobody who waits with trio notices."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import trio

from proxy import epoll_floor
from proxy.effects.model import Effect
from proxy.epoll_floor import LINGER_S, EpollFloor
from tests.proxy.stage import ONE, Stage
from tests.proxy.test_floor import Echo, heard


@pytest.fixture
def floor() -> EpollFloor:
    return EpollFloor(lambda: None)


@pytest.fixture
def echo(floor: EpollFloor) -> Iterator[Echo]:
    echo = Echo(floor)
    yield echo
    echo.close()
    echo.shut()


async def test_trio_keeps_its_epoll_where_we_look() -> None:
    assert epoll_floor._Trio.found() is not None


async def test_with_a_trio_that_keeps_it_elsewhere(
    floor: EpollFloor, echo: Echo, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoll_floor._Trio, "found", lambda: None)
    nursery.start_soon(floor.run)
    for _ in range(3):
        echo.peer.send(b"hello")
        assert await heard(echo.peer, 5) == b"HELLO"


async def test_a_task_that_a_handler_wakes(floor: EpollFloor, echo: Echo, nursery: trio.Nursery) -> None:
    """trio goes to wait right behind it, and has been told for how long before."""
    woken = trio.Event()
    echo.on_data = lambda data: woken.set()
    nursery.start_soon(floor.run)
    await trio.sleep(0.01)
    echo.peer.send(b"x")
    began = trio.current_time()
    with trio.fail_after(5):
        await woken.wait()
    assert trio.current_time() - began < 4


async def test_a_deadline_that_a_handler_brings_forward(floor: EpollFloor, echo: Echo, nursery: trio.Nursery) -> None:
    with trio.CancelScope(deadline=trio.current_time() + 5) as scope:

        def soon(data: bytes) -> None:
            scope.deadline = trio.current_time() + 0.01

        echo.on_data = soon
        nursery.start_soon(floor.run)
        await trio.sleep(0.01)
        echo.peer.send(b"x")
        began = trio.current_time()
        await trio.sleep_forever()
    assert trio.current_time() - began < 4


async def test_a_thread_that_comes_back(floor: EpollFloor, echo: Echo, nursery: trio.Nursery) -> None:
    nursery.start_soon(floor.run)
    began = trio.current_time()
    with trio.fail_after(5):
        await trio.to_thread.run_sync(threading.Event().wait, 0.05)
    assert trio.current_time() - began < 4


async def test_timers_and_chains_of_turns_while_sockets_are_busy(
    floor: EpollFloor, echo: Echo, nursery: trio.Nursery
) -> None:
    """A task that needs many turns, one after the other, gets them though bytes come without end."""

    def never_done(data: bytes) -> None:
        with suppress(BlockingIOError):
            echo.peer.recv(1 << 20)
            echo.peer.send(b"again")

    echo.peer.setblocking(False)
    echo.on_data = never_done
    nursery.start_soon(floor.run)
    nursery.start_soon(floor_of_another_server, nursery)
    echo.peer.send(b"begin")
    with trio.fail_after(5):
        await trio.sleep(0.02)
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        async with listener:
            for _ in range(10):
                async with await trio.open_tcp_stream(*listener.socket.getsockname()), await listener.accept():
                    pass


async def floor_of_another_server(nursery: trio.Nursery) -> None:
    """Two floors in one loop: none waits in front of the other's sockets."""
    floor = EpollFloor(lambda: None)
    echo = Echo(floor)
    nursery.start_soon(floor.run)
    for _ in range(3):
        echo.peer.send(b"hello")
        assert await heard(echo.peer, 5) == b"HELLO"
    echo.close()
    echo.shut()


async def test_two_floors_and_one_that_ends(floor: EpollFloor, echo: Echo, nursery: trio.Nursery) -> None:
    nursery.start_soon(floor.run)
    async with trio.open_nursery() as other:
        other.start_soon(floor_of_another_server, other)
        await trio.sleep(0.05)
        echo.peer.send(b"hello")
        assert await heard(echo.peer, 5) == b"HELLO"
        other.cancel_scope.cancel()
    echo.peer.send(b"again")
    assert await heard(echo.peer, 5) == b"AGAIN"


async def test_a_defect_in_a_flush_is_told() -> None:
    def defect() -> None:
        raise ZeroDivisionError

    floor = EpollFloor(defect)
    echo = Echo(floor)
    echo.peer.send(b"x")
    with pytest.raises(ZeroDivisionError), trio.fail_after(5):
        await floor.run()
    echo.shut()


def test_what_is_put_off_is_done_in_time() -> None:
    rested: list[int] = []
    floor = EpollFloor(lambda: None, lambda: rested.append(1))
    assert floor.rest(time.monotonic()) == math.inf
    floor.later()
    now = time.monotonic()
    assert floor.rest(now) <= LINGER_S
    assert not rested
    assert floor.rest(now + LINGER_S) == math.inf
    assert floor.rest(now + LINGER_S) == math.inf
    assert rested == [1]


async def test_what_the_target_gets_is_put_off_and_sent(stage: Stage, nursery: trio.Nursery) -> None:
    """Nothing else happens that would take it along."""
    stage.hub.floor = floor = EpollFloor(stage.hub.serve, stage.hub.mirror.flush)
    nursery.start_soon(floor.run)
    stage.hub.mirror.effect(0, Effect(commands=((b"DEL", b"k"),), expected=(ONE,), keys=(b"k",)), 0.0)
    stage.hub.serve()
    assert stage.mirror.got() == []
    sent: list[str] = []
    with trio.fail_after(5):
        while not sent:
            await trio.sleep(0.01)
            sent = stage.mirror.got()
    assert sent == ["DEL k"]
