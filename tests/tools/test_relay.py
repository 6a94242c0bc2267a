"""The relay does to a connection what it says, and nothing else. No server is needed: an echo in a thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.proxies import until
from tests.relay import Relay, Way

SILENCE_S = 0.1  # so long nothing must come


class Echo:
    """Sends back what it gets, and remembers it, per connection."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.received: list[bytearray] = []
        self.open: list[socket.socket] = []
        self.ended: list[str] = []  # how connections ended: "eof" or "reset"
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://:secret@127.0.0.1:{self.listener.getsockname()[1]}/3"

    def close(self) -> None:
        """No new connections; those there are end at the next byte, or with the client."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def hang_up(self) -> None:
        for sock in self.open:
            sock.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self.listener.accept()
                got = bytearray()
                self.received.append(got)
                self.open.append(sock)
                threading.Thread(target=self._serve, args=(sock, got), daemon=True).start()

    def _serve(self, sock: socket.socket, got: bytearray) -> None:
        with sock:
            try:
                while data := sock.recv(65536):
                    got += data
                    sock.sendall(data)
            except OSError:
                self.ended.append("reset")
            else:
                self.ended.append("eof")
            self.open.remove(sock)


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def relay(echo: Echo) -> Iterator[Relay]:
    with Relay(echo) as relay:
        yield relay


@pytest.fixture
def client(relay: Relay) -> Iterator[socket.socket]:
    with connect(relay) as sock:
        assert ask(sock, b"hello") == b"hello"
        yield sock


def connect(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), timeout=10)


def ask(sock: socket.socket, data: bytes) -> bytes:
    sock.sendall(data)
    return receive(sock, len(data))


def receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(65536)
        assert more, f"closed after {data!r}"
        data += more
    return data


def is_silent(sock: socket.socket) -> bool:
    sock.settimeout(SILENCE_S)
    try:
        return sock.recv(1) is None
    except TimeoutError:
        return True
    finally:
        sock.settimeout(10)


def is_reset(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) is None
    except ConnectionResetError:
        return True


def test_the_url_leads_through_the_relay(relay: Relay, echo: Echo) -> None:
    assert relay.url == f"redis://:secret@127.0.0.1:{relay.port}/3"


def test_bytes_pass_both_ways_in_order(client: socket.socket) -> None:
    data = bytes(range(256)) * 20_000
    sender = threading.Thread(target=client.sendall, args=(data,))
    sender.start()
    assert receive(client, len(data)) == data
    sender.join()


def test_the_end_of_the_stream_is_passed_on(client: socket.socket, relay: Relay, echo: Echo) -> None:
    client.sendall(b"last")
    client.shutdown(socket.SHUT_WR)
    assert receive(client, 4) == b"last" and client.recv(1) == b""
    until(lambda: echo.ended == ["eof"])
    until(lambda: relay.connections == 0)


def test_a_delay_keeps_the_order(client: socket.socket, relay: Relay) -> None:
    relay.delay(0.5, Way.TO_SERVER)
    began = time.monotonic()
    client.sendall(b"one")
    until(lambda: relay.held)
    relay.delay(0.0)
    client.sendall(b"two")
    assert receive(client, 6) == b"onetwo"
    assert time.monotonic() - began >= 0.4
    assert ask(client, b"three") == b"three"


def test_a_throttle_lets_so_much_pass_a_second(client: socket.socket, relay: Relay) -> None:
    relay.throttle(100_000, Way.TO_CLIENT)
    began = time.monotonic()
    assert ask(client, b"x" * 20_000) == b"x" * 20_000
    assert time.monotonic() - began >= 0.15  # 0.2, less one step


def test_stopped_connections_hang_and_go_on(client: socket.socket, relay: Relay, echo: Echo) -> None:
    relay.stop()
    client.sendall(b"later")
    with connect(relay) as other:  # accepted, and hangs
        other.sendall(b"too")
        assert is_silent(client) and is_silent(other)
        assert bytes(echo.received[0]) == b"hello"
        relay.heal()
        assert receive(client, 5) == b"later" and receive(other, 3) == b"too"


def test_stopping_these_leaves_new_ones_alone(client: socket.socket, relay: Relay) -> None:
    assert relay.stop_these() == 1
    client.sendall(b"later")
    with connect(relay) as other:
        assert ask(other, b"now") == b"now"
    assert is_silent(client)
    relay.heal()
    assert receive(client, 5) == b"later"
    relay.stop()  # healed connections obey again
    client.sendall(b"again")
    assert is_silent(client)


def test_stopped_one_way(client: socket.socket, relay: Relay, echo: Echo) -> None:
    relay.stop(Way.TO_CLIENT)
    client.sendall(b"heard")
    until(lambda: bytes(echo.received[0]) == b"helloheard")
    assert is_silent(client)
    relay.heal()
    assert receive(client, 5) == b"heard"


def test_a_cut_resets_both_ends(client: socket.socket, relay: Relay, echo: Echo) -> None:
    assert relay.cut() == 1
    assert is_reset(client)
    until(lambda: echo.ended == ["reset"])
    with connect(relay) as other:
        assert ask(other, b"new") == b"new"


def test_a_server_that_resets_resets_the_client(relay: Relay, echo: Echo) -> None:
    echo.close()
    with pytest.raises(ConnectionResetError), connect(relay) as sock:  # the reset may be as early as the connect
        sock.recv(1)


def test_closed_one_way(client: socket.socket, relay: Relay, echo: Echo) -> None:
    assert relay.close_way(Way.TO_CLIENT) == 1
    assert client.recv(1) == b""
    client.sendall(b"into the dark")
    until(lambda: bytes(echo.received[0]) == b"hellointo the dark")
    assert relay.connections == 1
    relay.close_way(Way.TO_SERVER)
    until(lambda: echo.ended == ["eof"])


def test_refused_and_accepted_again(client: socket.socket, relay: Relay) -> None:
    relay.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(relay)
    assert ask(client, b"still") == b"still"
    relay.accept()
    with connect(relay) as other:
        assert ask(other, b"again") == b"again"


def test_stranded_bytes_are_delivered_later(client: socket.socket, relay: Relay, echo: Echo) -> None:
    relay.hold_these(Way.TO_SERVER)
    client.sendall(b"one")
    client.sendall(b"two")
    assert is_silent(client)
    assert relay.strand() == 6
    assert is_reset(client)
    with connect(relay) as other:  # life goes on meanwhile
        assert ask(other, b"new") == b"new"
    assert bytes(echo.received[0]) == b"hello" and not echo.ended[1:]
    assert relay.deliver() == 1
    assert bytes(echo.received[0]) == b"helloonetwo"


def test_bytes_are_not_delivered_to_a_server_that_hung_up(client: socket.socket, relay: Relay, echo: Echo) -> None:
    relay.stop_these(Way.TO_SERVER)
    client.sendall(b"one")
    assert relay.strand() == 3
    echo.hang_up()
    until(lambda: echo.ended == ["eof"])
    assert relay.deliver() == 0
    assert bytes(echo.received[0]) == b"hello"


def test_leading_to_another_server(client: socket.socket, relay: Relay) -> None:
    other = Echo()
    relay.lead_to(other)
    assert ask(client, b"old") == b"old"
    with connect(relay) as sock:
        assert ask(sock, b"new") == b"new"
    assert bytes(other.received[0]) == b"new"
    other.close()
