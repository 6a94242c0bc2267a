"""Both drivers do the same with the same handlers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
import trio.testing

from proxy.floor import READ, WRITE, EpollFloor, Floor, SelectorFloor, TaskFloor

Make = Callable[[Callable[[], None]], SelectorFloor | TaskFloor]
both = pytest.mark.parametrize("make", [EpollFloor, SelectorFloor, TaskFloor])


class Echo:
    """Sends back what it gets, in capitals."""

    def __init__(self, floor: Floor) -> None:
        self.sock, self.peer = socket.socketpair()
        self.sock.setblocking(False)
        self.floor = floor
        self.out = b""
        self.errors: list[Exception] = []
        self.on_data: Callable[[bytes], None] = lambda data: None
        floor.add(self)

    def fileno(self) -> int:
        return self.sock.fileno()

    def on_readable(self) -> None:
        try:
            data = self.sock.recv(100_000)
        except OSError:
            return
        if not data:
            self.close()
            return
        self.on_data(data)
        self.out += data.upper()
        self.on_writable()

    def on_writable(self) -> None:
        with suppress(BlockingIOError):
            while self.out and self.fileno() >= 0:
                self.out = self.out[self.sock.send(self.out) :]
        if self.fileno() >= 0:
            self.floor.watch(self, READ | WRITE if self.out else READ)

    def broke(self, error: Exception) -> None:
        self.errors.append(error)
        self.close()

    def close(self) -> None:
        if self.fileno() >= 0:
            self.floor.remove(self)
            self.sock.close()

    def shut(self) -> None:
        self.sock.close()
        self.peer.close()


async def idle() -> None:
    """Until nobody has anything left to do."""
    with trio.fail_after(5):
        await trio.testing.wait_all_tasks_blocked(0.02)


async def heard(peer: socket.socket, size: int) -> bytes:
    data = b""
    with trio.fail_after(5):
        while len(data) < size:
            await trio.lowlevel.wait_readable(peer)
            data += peer.recv(1 << 20)
    return data


@both
async def test_reads_and_flushes(make: Make, nursery: trio.Nursery) -> None:
    flushes: list[int] = []
    floor = make(lambda: flushes.append(1))
    echo = Echo(floor)
    nursery.start_soon(floor.run)
    echo.peer.send(b"hello")
    assert await heard(echo.peer, 5) == b"HELLO"
    assert flushes
    floor.remove(echo)
    echo.shut()


@both
async def test_added_while_it_runs(make: Make, nursery: trio.Nursery) -> None:
    floor = make(lambda: None)
    nursery.start_soon(floor.run)
    await idle()
    echo = Echo(floor)
    echo.peer.send(b"hello")
    assert await heard(echo.peer, 5) == b"HELLO"
    floor.remove(echo)
    echo.shut()


@both
async def test_nothing_is_served_while_nothing_is_watched(make: Make, nursery: trio.Nursery) -> None:
    floor = make(lambda: None)
    echo = Echo(floor)
    nursery.start_soon(floor.run)
    floor.watch(echo, 0)
    echo.peer.send(b"hello")
    await idle()
    assert not echo.out
    floor.watch(echo, READ)
    assert await heard(echo.peer, 5) == b"HELLO"
    floor.remove(echo)
    echo.shut()


@both
async def test_a_peer_that_reads_late_gets_everything(make: Make, nursery: trio.Nursery) -> None:
    floor = make(lambda: None)
    echo = Echo(floor)
    nursery.start_soon(floor.run)
    for _ in range(10):
        echo.peer.send(b"x" * 100_000)
        await idle()
    assert echo.out
    assert await heard(echo.peer, 1_000_000) == b"X" * 1_000_000
    floor.remove(echo)
    echo.shut()


@both
async def test_the_end_of_a_peer(make: Make, nursery: trio.Nursery) -> None:
    floor = make(lambda: None)
    echo = Echo(floor)
    nursery.start_soon(floor.run)
    echo.peer.close()
    await idle()
    assert echo.fileno() < 0


@both
async def test_one_handler_closes_another_in_the_same_batch(make: Make, nursery: trio.Nursery) -> None:
    """Both are ready; whoever comes first closes the other, whose event comes all the same."""
    floor = make(lambda: None)
    one, two = Echo(floor), Echo(floor)
    one.on_data = lambda data: two.close()
    two.on_data = lambda data: one.close()
    one.peer.send(b"a")
    two.peer.send(b"b")
    nursery.start_soon(floor.run)
    await idle()
    assert (one.fileno() < 0) is not (two.fileno() < 0)
    assert not one.errors
    assert not two.errors
    for echo in (one, two):
        echo.close()
        echo.shut()


@both
async def test_a_file_descriptor_that_is_used_again(make: Make, nursery: trio.Nursery) -> None:
    floor = make(lambda: None)
    nursery.start_soon(floor.run)
    for _ in range(20):
        echo = Echo(floor)
        echo.peer.send(b"hello")
        assert await heard(echo.peer, 5) == b"HELLO"
        echo.close()
        echo.shut()


@both
async def test_what_one_handler_breaks_costs_only_its_own_connection(make: Make, nursery: trio.Nursery) -> None:
    floor = make(lambda: None)
    bad, good = Echo(floor), Echo(floor)

    def defect(data: bytes) -> None:
        raise ZeroDivisionError

    bad.on_data = defect
    nursery.start_soon(floor.run)
    bad.peer.send(b"x")
    good.peer.send(b"hello")
    assert await heard(good.peer, 5) == b"HELLO"
    await idle()
    assert [type(error) for error in bad.errors] == [ZeroDivisionError]
    assert bad.fileno() < 0
    good.close()
    good.shut()
    bad.shut()


@both
async def test_other_tasks_get_their_turn(make: Make, nursery: trio.Nursery) -> None:
    floor = make(lambda: None)
    echo = Echo(floor)
    echo.peer.setblocking(False)
    turns = 0

    def never_done(data: bytes) -> None:
        echo.peer.send(b"again")

    echo.on_data = never_done
    nursery.start_soon(floor.run)
    echo.peer.send(b"begin")
    with trio.move_on_after(0.2):
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1
            with suppress(BlockingIOError):
                echo.peer.recv(1 << 20)
    assert turns > 10
    echo.close()
    echo.shut()


@both
async def test_removing_after_the_end_does_no_harm(make: Make) -> None:
    floor = make(lambda: None)
    echo = Echo(floor)
    with trio.move_on_after(0.01):
        await floor.run()
    echo.close()
    echo.shut()
