"""The connection over a socket pair: any amount in any pieces, plain and TLS, back-pressure, the end."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cache

import pytest
import trio
import trio.testing
import trustme
from hypothesis import given
from hypothesis import strategies as st

from backfill.wire import TlsWire, Wire

AUTHORITY = trustme.CA()
MEGABYTE = bytes(range(256)) * 4096


@pytest.fixture
def pair() -> Iterator[tuple[Wire, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    wire = Wire(ours)
    yield wire, theirs
    wire.close()
    theirs.close()


@cache
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("server.example").configure_cert(context)
    return context


@cache
def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


class TlsPeer:
    """A TLS server in memory, moved by hand."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = server_context().wrap_bio(self.incoming, self.outgoing, server_side=True)

    def turn(self) -> None:
        """Send what is ready, take what has arrived."""
        if records := self.outgoing.read():
            self.sock.sendall(records)
        try:
            self.incoming.write(self.sock.recv(1 << 20))
        except BlockingIOError:
            return

    def records(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()


@asynccontextmanager
async def tls_pair() -> AsyncIterator[tuple[TlsWire, TlsPeer]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire, peer = TlsWire(ours, client_context(), "server.example"), TlsPeer(theirs)
        await shake_hands(wire, peer)
        yield wire, peer


async def shake_hands(wire: TlsWire, peer: TlsPeer) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.handshake)
        while True:
            peer.turn()
            try:
                peer.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await trio.lowlevel.checkpoint()
        peer.turn()


def drained(wire: Wire) -> bytes:
    """Everything that arrived, as a selector loop would take it: one read for each time the socket is readable."""
    parts = []
    try:
        while data := wire.recv_nowait():
            parts.append(data)
    except BlockingIOError:
        pass
    return b"".join(parts)


def test_nothing_there_is_not_the_end(pair: tuple[Wire, socket.socket]) -> None:
    wire, theirs = pair
    with pytest.raises(BlockingIOError):
        wire.recv_nowait()
    theirs.close()
    assert wire.recv_nowait() == b""
    assert wire.recv_nowait() == b""


def test_what_the_socket_does_not_take_is_kept_in_order(pair: tuple[Wire, socket.socket]) -> None:
    wire, theirs = pair
    wire.send_nowait(MEGABYTE)
    assert 0 < wire.pending_out < len(MEGABYTE)
    wire.send_nowait(b"behind")
    assert f"pending_out={wire.pending_out}" in repr(wire)
    received = b""
    while not wire.flush_nowait():
        received += theirs.recv(1 << 20)
    received += theirs.recv(1 << 20)
    assert received == MEGABYTE + b"behind"
    assert wire.pending_out == 0


def test_pieces_are_kept_in_order(pair: tuple[Wire, socket.socket]) -> None:
    """The socket's buffer is full somewhere in the middle of a piece; what comes later stands behind."""
    wire, theirs = pair
    pieces = [b"%d" % (number % 10) * 40_000 for number in range(30)]
    wire.send_pieces_nowait(pieces[:20])
    assert 0 < wire.pending_out < 20 * 40_000
    wire.send_pieces_nowait(pieces[20:])
    received = b""
    while not wire.flush_nowait():
        received += theirs.recv(1 << 20)
    received += theirs.recv(1 << 20)
    assert received == b"".join(pieces)
    assert wire.pending_out == 0
    wire.send_pieces_nowait([b"a", b"", b"b"])
    assert (wire.pending_out, theirs.recv(10)) == (0, b"ab")


async def test_tls_takes_pieces() -> None:
    async with tls_pair() as (wire, peer):
        wire.send_pieces_nowait([b"a" * 5000, b"b" * 5000])
        received = b""
        while len(received) < 10_000:
            peer.turn()
            with suppress(ssl.SSLWantReadError):
                received += peer.tls.read(1 << 20)
        assert received == b"a" * 5000 + b"b" * 5000


async def test_async_send_and_receive(pair: tuple[Wire, socket.socket]) -> None:
    wire, theirs = pair
    other = Wire(theirs)
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.send, MEGABYTE)
        while len(received) < len(MEGABYTE):
            received += await other.receive()
    assert received == MEGABYTE
    wire.leftover = b"first"
    await other.send(b"second")
    assert [await wire.receive(), await wire.receive()] == [b"first", b"second"]


async def test_close_wakes_the_reader(pair: tuple[Wire, socket.socket]) -> None:
    wire, _ = pair

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await wire.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        wire.close()
        wire.close()


async def test_tls_small_and_large_both_ways() -> None:
    async with tls_pair() as (wire, peer):
        assert wire.tls is not None
        assert "tls" in repr(wire)
        for data in (b"x", MEGABYTE):
            received = bytearray()
            wire.send_nowait(data)
            while len(received) < len(data):
                wire.flush_nowait()
                peer.turn()
                try:
                    received += peer.tls.read(1 << 20)
                except ssl.SSLWantReadError:
                    continue
            assert received == data


async def test_tls_close_notify_and_a_cut_are_both_the_end() -> None:
    async with tls_pair() as (wire, peer):
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.unwrap()
        peer.sock.sendall(peer.outgoing.read())
        assert wire.recv_nowait() == b""
        assert wire.recv_nowait() == b""
    async with tls_pair() as (wire, peer):
        peer.sock.sendall(peer.records(b"last words")[:-1])
        peer.sock.close()
        with pytest.raises(BlockingIOError):
            wire.recv_nowait()
        assert wire.recv_nowait() == b""


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=20), st.data())
def test_tls_gives_out_all_that_is_decrypted_however_it_is_cut(messages: list[bytes], data: st.DataObject) -> None:
    """Every read that finds whole records hands out all of them: nothing waits for a next readable event."""

    async def run() -> None:
        async with tls_pair() as (wire, peer):
            drained(wire)
            ends, stream, plain = [], b"", b""
            for message in messages:
                stream += peer.records(message)
                plain += message
                ends.append((len(stream), len(plain)))
            received, sent = b"", 0
            while sent < len(stream):
                cut = data.draw(st.integers(sent + 1, len(stream)))
                peer.sock.sendall(stream[sent:cut])
                sent = cut
                received += drained(wire)
                assert len(received) == max((length for end, length in ends if end <= sent), default=0)
            assert received == plain

    trio.run(run)
