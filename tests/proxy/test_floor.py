"""Both drivers do the same with the same handlers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
import trio.testing

import backfill.wire
import proxy.session
from backfill.wire import Wire
from proxy.epoll_floor import EpollFloor
from proxy.floor import READ, WRITE, Floor, SelectorFloor, TaskFloor
from proxy.link import Link
from proxy.session import Session
from resp.encode import encode
from tests.proxy.stage import Stage

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


class Drained(Echo):
    """Reads no more than it has to, and asks to be told again when it may have left something."""

    drains = True
    portion = 1000

    def on_readable(self) -> None:
        data = b""
        with suppress(BlockingIOError):
            data = self.sock.recv(self.portion)
            if not data:
                self.close()
                return
        self.on_data(data)
        if len(data) == self.portion:
            self.floor.watch(self, READ)


@both
async def test_who_is_told_once_hears_everything(make: Make, nursery: trio.Nursery) -> None:
    floor = make(lambda: None)
    heard: list[bytes] = []
    one = Drained(floor)
    one.on_data = heard.append
    nursery.start_soon(floor.run)
    for size in (10, 1000, 2000, 5001):
        heard.clear()
        one.peer.send(b"x" * size)
        await idle()
        assert len(b"".join(heard)) == size
    floor.watch(one, 0)
    heard.clear()
    one.peer.send(b"later")
    await idle()
    assert not heard
    floor.watch(one, READ)
    await idle()
    assert heard == [b"later"]
    floor.remove(one)
    one.shut()


@both
async def test_who_is_told_once_hears_the_end_behind_the_last_bytes(make: Make, nursery: trio.Nursery) -> None:
    floor = make(lambda: None)
    heard: list[bytes] = []
    one = Drained(floor)
    one.on_data = heard.append
    one.peer.send(b"last words")
    one.peer.shutdown(socket.SHUT_WR)
    nursery.start_soon(floor.run)
    await idle()
    assert heard == [b"last words"]
    assert one.fileno() < 0
    one.peer.close()


@both
async def test_it_says_when_it_rests(make: Make, nursery: trio.Nursery) -> None:
    """After the last flush, so that what a flush puts off is done."""
    done: list[str] = []
    floor = make(lambda: done.append("flush"), lambda: done.append("rest"))  # type: ignore[call-arg]
    echo = Echo(floor)
    nursery.start_soon(floor.run)
    echo.peer.send(b"hello")
    await idle()
    floor.later()
    echo.peer.send(b"again")
    await idle()
    assert "flush" in done
    assert done[-1] == "rest"
    floor.remove(echo)
    echo.shut()


# -- the proxy's own handlers, which are told once ---------------------------------------------------------------


class Frames:
    """Gets a link's frames."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def on_frames(self, frames: list[bytes]) -> None:
        self.frames += frames

    def on_lost(self, link: Link, reason: str) -> None:
        self.frames.append(reason.encode())

    def on_full(self, full: bool) -> None: ...


async def send_all(peer: socket.socket, data: bytes) -> None:
    peer.setblocking(False)
    with trio.fail_after(5):
        while data:
            await trio.lowlevel.wait_writable(peer)
            data = data[peer.send(data) :]


@pytest.mark.parametrize("last", [0, 1])
async def test_a_link_hears_everything(last: int, nursery: trio.Nursery) -> None:
    """More than it reads at once, or exactly as much, and the end behind it."""
    floor, owner = EpollFloor(lambda: None), Frames()
    ours, theirs = socket.socketpair()
    link = Link(Wire(ours), floor, owner)
    nursery.start_soon(floor.run)
    for reads in (1, 5):
        owner.frames.clear()
        value = b"x" * (reads * backfill.wire.READ_BYTES - len(b"$655360\r\n\r\n") + last)
        frame = b"$%06d\r\n%b\r\n" % (len(value), value)
        await send_all(theirs, frame * 2)
        await idle()
        assert list(map(len, owner.frames)) == [len(frame)] * 2
    theirs.send(b"+last\r\n")
    theirs.close()
    await idle()
    assert owner.frames[2:] == [b"+last\r\n", b"closed by the server"]
    assert link.fileno() < 0


@pytest.mark.parametrize("reads", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("more", [-1, 0, 1])
async def test_a_session_hears_everything(reads: int, more: int, stage: Stage, nursery: trio.Nursery) -> None:
    stage.hub.floor = floor = EpollFloor(stage.hub.serve, stage.hub.mirror.flush)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    session = Session(stage.hub, ours, "10.0.0.1:1", 1, authenticated=True, db=0)
    stage.hub.joined(session)
    nursery.start_soon(floor.run)
    size = max(0, reads * proxy.session.READ_BYTES + more)
    value = b"x" * max(1, size - len(encode([b"SET", b"k", b"x" * size])) + size)
    await send_all(theirs, encode([b"SET", b"k", value]))
    await send_all(theirs, encode([b"GET", b"k"]))
    await idle()
    assert stage.lane.got() == [f"SET k {value.decode()}", "GET k"]
    theirs.close()
    await idle()
    session.close()
