"""How one gets in, and how the proxy gets to its servers: passwords, users, TLS, sockets, servers that come and go.

A client must not be able to tell the proxy from the server by what AUTH and HELLO answer: compared byte for byte.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import redis

from backfill.embedded import free_port
from tests.equality import assert_equal_servers
from tests.proxies import RunningProxy, until
from tests.servers import Server, make_tls_files
from tests.traffic import Traffic, preload
from tests.traffic.connection import pack

SECRET = "s3cr:et/p@ss"
QUOTED = "s3cr%3Aet%2Fp%40ss"
TLS_SERVER = "redis-7.0"
_ID = re.compile(rb"(\$2\r\nid\r\n):\d+\r\n")  # in a HELLO reply: every connection has its own

Start = Callable[..., Server]
StartProxy = Callable[..., RunningProxy]


def say(port: int, *commands: tuple[str, ...]) -> bytes:
    """All bytes that come back to these commands, each sent once the former was answered, up to a final mark."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        received = b""
        for command in commands:
            connection.sendall(pack([command]))
            connection.settimeout(0.05)  # the length of an unknown reply is not known: the mark below ends it
            try:
                received += connection.recv(65536)
            except TimeoutError:
                continue
        connection.settimeout(10)
        connection.sendall(pack([("ECHO", "that is all")]))
        mark = re.compile(rb"(\$11\r\nthat is all|-NOAUTH[^\r]*)\r\n$")
        tail = b""
        while not mark.search(tail):
            more = connection.recv(65536)
            if not more:
                tail += b"(hung up)"
                break
            tail += more
        return _ID.sub(rb"\1:0\r\n", received + tail)


GETTING_IN: dict[str, tuple[tuple[str, ...], ...]] = {
    "not at all": (("GET", "k"), ("PING",), ("SELECT", "1"), ("CLIENT", "ID"), ("MULTI",)),
    "the password": (("AUTH", SECRET), ("GET", "k")),
    "the user": (("AUTH", "default", SECRET), ("GET", "k")),
    "a wrong password": (("AUTH", "wrong"), ("GET", "k")),
    "no password": (("AUTH", ""), ("AUTH",), ("GET", "k")),
    "a wrong user": (("AUTH", "nobody", SECRET), ("GET", "k")),
    "too many words": (("AUTH", "default", SECRET, "more"), ("GET", "k")),
    "wrong after right": (("AUTH", SECRET), ("AUTH", "wrong"), ("GET", "k")),
    "hello": (("HELLO",), ("HELLO", "3"), ("HELLO", "2"), ("GET", "k")),
    "hello 3 auth": (("HELLO", "3", "AUTH", "default", SECRET), ("GET", "nil")),
    "hello 2 auth": (("HELLO", "2", "AUTH", "default", SECRET), ("GET", "nil")),
    "hello 3 auth wrong": (("HELLO", "3", "AUTH", "default", "wrong"), ("GET", "nil")),
    "hello auth setname": (("HELLO", "3", "AUTH", "default", SECRET, "SETNAME", "me"), ("CLIENT", "GETNAME")),
    "hello 4": (("HELLO", "4"), ("HELLO", "4", "AUTH", "default", SECRET), ("HELLO", "1"), ("GET", "k")),
    "hello x": (("HELLO", "x"), ("HELLO", "3", "AUTH"), ("HELLO", "3", "AUTH", "default"), ("HELLO", "3", "FOO")),
    "hello and back": (("AUTH", SECRET), ("HELLO", "3"), ("GET", "nil"), ("HELLO", "2"), ("GET", "nil"), ("HELLO",)),
    "lower case": (("auth", SECRET), ("hello", "3", "setname", "me"), ("get", "nil")),
    "reset": (("AUTH", SECRET), ("SELECT", "2"), ("RESET",), ("GET", "k"), ("AUTH", SECRET), ("GET", "k")),
    "a bad name": (("HELLO", "3", "AUTH", "default", SECRET, "SETNAME", "a b"), ("GET", "k")),
}


@pytest.mark.parametrize("name", ["redis-6.2", "redis-7.0", "valkey-9.1"])
def test_a_password_is_asked_for_in_the_servers_own_words(
    start_server: Start, start_proxy: StartProxy, server_91: Server, server_82: Server, name: str
) -> None:
    server = start_server(name, password=SECRET)
    proxy = start_proxy(server, server_82)
    with proxy.client(password=SECRET) as client:
        client.set("k", "v")
    wanted = {what: say(server.port, *commands).split(b"\r\n") for what, commands in GETTING_IN.items()}
    got = {what: say(proxy.port, *commands).split(b"\r\n") for what, commands in GETTING_IN.items()}
    different = [f"{what}: {wanted[what]} but {got[what]}" for what in wanted if wanted[what] != got[what]]
    assert not different, "\n".join(different)
    proxy.wait_settled()
    assert server_82.call("GET", "k") == b"v"


def test_nobody_gets_in_by_a_flood_of_big_words(
    start_server: Start, start_proxy: StartProxy, server_91: Server
) -> None:
    """Who has not said a password may send 10 words of 16 KB, as with Redis."""
    server = start_server("redis-7.0", password=SECRET)
    proxy = start_proxy(server, server_91)
    for data in (b"*11\r\n", b"*2\r\n$4\r\nAUTH\r\n$16385\r\n"):
        answers = []
        for port in (server.port, proxy.port):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(data)
                answers.append(connection.recv(1000) + connection.recv(1000))
        assert answers[0] == answers[1] and b"unauthenticated" in answers[0]
    with proxy.client(password=SECRET) as client:
        assert client.set("k", "x" * 100_000)


@pytest.mark.parametrize("resp", [2, 3])
def test_an_acl_user(start_proxy: StartProxy, server_70: Server, server_91: Server, resp: int) -> None:
    """The proxy works as the user of the source's URL, and lets in whoever knows that user's password."""
    rules = ["on", f">{SECRET}", "~*", "&*", "+@all", "-flushall"]
    server_70.call("ACL", "SETUSER", "mover", *rules)
    proxy = start_proxy(server_70.url.replace("redis://", f"redis://mover:{QUOTED}@"), server_91)
    with proxy.client(username="mover", password=SECRET, protocol=resp) as client:
        assert client.set("k", "v") and client.get("k") == b"v"
        with pytest.raises(redis.ResponseError, match=r"(?i)permission"):
            client.flushall()
    for user, password in (("mover", "wrong"), ("default", SECRET), (None, SECRET), ("nobody", SECRET)):
        with (
            proxy.client(username=user, password=password, protocol=resp) as client,
            pytest.raises(redis.AuthenticationError, match=r"WRONGPASS|invalid username-password"),
        ):
            client.ping()
    with proxy.client(protocol=resp) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    proxy.backfill()
    proxy.verify()
    assert_equal_servers(server_70, server_91)


def test_no_auth(start_server: Start, start_proxy: StartProxy, server_91: Server) -> None:
    """The application keeps its connection string without a password, although the source has one."""
    server = start_server("redis-6.2", password=SECRET)
    proxy = start_proxy(server, server_91, "--no-auth")
    with proxy.client() as client:
        assert client.set("k", "v")
    proxy.wait_settled()
    assert server_91.call("GET", "k") == b"v"


def test_auth_where_no_password_is_set(start_proxy: StartProxy, server_70: Server, server_91: Server) -> None:
    proxy = start_proxy(server_70, server_91)
    for commands in (
        (("AUTH", "x"), ("GET", "k")),
        (("AUTH", "default", "x"), ("GET", "k")),
        (("AUTH", "nobody", "x"), ("GET", "k")),
        (("HELLO", "3", "AUTH", "default", "x"), ("GET", "k")),
        (("HELLO",), ("GET", "k")),
    ):
        assert say(proxy.port, *commands) == say(server_70.port, *commands), commands


def test_a_target_with_a_password_of_its_own(start_server: Start, start_proxy: StartProxy) -> None:
    """The clients' password stays the source's, also when the target serves."""
    a, b = start_server("redis-6.2", password=SECRET), start_server("valkey-9.1", password="another")
    proxy = start_proxy(a, b)
    client = proxy.client(password=SECRET)
    client.set("k", "v")
    proxy.backfill()
    proxy.verify()
    proxy.flip()
    assert client.get("k") == b"v"
    with proxy.client(password=SECRET) as fresh:
        assert fresh.incr("n") == 1
    with proxy.client(password="another") as fresh, pytest.raises(redis.AuthenticationError):
        fresh.ping()


# --- other ways to a server ---


@pytest.mark.parametrize("tls_side", ["source", "target"])
@pytest.mark.parametrize("client_certificate", [False, True])
def test_tls(
    start_server: Start,
    start_proxy: StartProxy,
    server_91: Server,
    tmp_path: Path,
    tls_side: str,
    client_certificate: bool,
) -> None:
    files = make_tls_files(tmp_path, require_client_cert=client_certificate)
    server = start_server(TLS_SERVER, tls=files, password=SECRET)
    url = f"rediss://:{QUOTED}@127.0.0.1:{server.port}?ca={files.ca}"
    if client_certificate:
        url += f"&cert={files.cert}&key={files.key}"
    plain = server_91 if tls_side == "source" else start_server("redis-6.2", password=SECRET)
    proxy = start_proxy(url, plain) if tls_side == "source" else start_proxy(plain, url)
    big = bytes(range(256)) * 20_000  # more than one TLS record, more than one read
    with proxy.client(password=SECRET) as client:
        client.set("big", big)
        for _ in range(3):
            assert client.get("big") == big
        pipeline = client.pipeline(transaction=False)
        for number in range(2000):
            pipeline.rpush(f"list:{number % 7}", f"item {number}")
        pipeline.execute()
        assert client.blpop("list:0", 1) == (b"list:0", b"item 0")
    with Traffic(f"redis://:{QUOTED}@127.0.0.1:{proxy.port}", clients=8, rate=None, seed=4) as traffic:
        traffic.wait_for(1000)
        proxy.backfill()
        proxy.verify()
        if tls_side == "target":
            proxy.flip()
            traffic.wait_for(500)
    traffic.assert_clean()
    proxy.wait_settled()
    proxy.verify()
    options = {"ssl_certfile": str(files.cert), "ssl_keyfile": str(files.key)} if client_certificate else {}

    class WithCertificate:
        def client(self, db: int = 0) -> redis.Redis:
            return server.client(db=db, **options)

    assert_equal_servers(WithCertificate(), plain)


def test_a_unix_socket(start_server: Start, start_proxy: StartProxy, server_91: Server) -> None:
    server = start_server("redis-6.2", unixsocket=True, password=SECRET)
    proxy = start_proxy(server.unix_url, server_91)
    preload(server, 300)
    with proxy.client(password=SECRET) as client:
        assert client.incr("n") == 1
        assert client.blpop("nothing", 0.01) is None
        with client.pubsub() as subscriber:
            subscriber.subscribe("c")
            assert until(subscriber.get_message)
    proxy.backfill()
    proxy.verify()
    assert_equal_servers(server, server_91)


def test_a_db_in_the_urls(start_proxy: StartProxy, server_62: Server, server_91: Server) -> None:
    """Clients begin in that db, as if they had connected to the source with the same URL."""
    proxy = start_proxy(server_62.url + "/3", server_91.url + "/3")
    with closing(socket.create_connection(("127.0.0.1", proxy.port), timeout=10)) as connection:
        connection.sendall(b"SET k 1\r\n")
        assert connection.recv(100) == b"+OK\r\n"
    proxy.wait_settled()
    assert (server_62.call("GET", "k", db=3), server_91.call("GET", "k", db=3)) == (b"1", b"1")


# --- servers that come and go ---


def test_a_target_that_is_absent_at_first(start_server: Start, start_proxy: StartProxy, server_62: Server) -> None:
    port = free_port()
    preload(server_62, 500, seed=2)
    proxy = start_proxy(server_62, f"redis://127.0.0.1:{port}")
    status = proxy.status()
    assert not status["target"]["connected"] and not status["mirror"]["connected"]
    assert any(f"127.0.0.1:{port}" in problem for problem in status["problems"])
    with Traffic(proxy, clients=8, rate=None, seed=2, without=("select",), dbs=(0,)) as traffic:
        traffic.wait_for(1000)
    traffic.assert_clean()
    client = proxy.client()
    client.mset({f"meanwhile:{number}": number for number in range(50)})
    refused = proxy.cli("flip", "--json")
    assert refused.code == 4 and any("target" in reason for reason in refused.json["reasons"])
    target = start_server("valkey-9.1", port=port)
    proxy.wait_settled()
    assert target.call("GET", "meanwhile:49") == b"49", "without a backfill: the writes made meanwhile"
    proxy.backfill()
    proxy.verify()
    assert_equal_servers(server_62, target)
    assert not proxy.status()["problems"]


@pytest.mark.parametrize("how", ["kill", "restart", "pause"])
def test_a_target_that_goes_away_in_mid_traffic(
    start_server: Start, start_proxy: StartProxy, server_62: Server, how: str
) -> None:
    target = start_server("valkey-9.1", config={"appendonly": "yes", "appendfsync": "always"})
    preload(server_62, 1000, seed=6)
    proxy = start_proxy(server_62, target)
    proxy.backfill()
    with Traffic(proxy, clients=16, rate=1500, seed=6) as traffic:
        traffic.wait_for(500)
        if how == "pause":
            target.pause()
            traffic.wait_for(1000)
            target.resume()
        else:
            target.kill() if how == "kill" else target.restart()
            traffic.wait_for(1000)
            target.start()
        traffic.wait_for(500)
    traffic.assert_clean()
    proxy.wait_settled()
    proxy.verify()
    assert_equal_servers(server_62, target)


@pytest.mark.parametrize("how", ["kill", "restart"])
def test_a_source_that_goes_away_in_mid_traffic(
    start_server: Start, start_proxy: StartProxy, server_91: Server, how: str
) -> None:
    """Clients see what they would see without us: a lost connection when a write was in flight. Nothing else."""
    source = start_server("redis-6.2", config={"appendonly": "yes", "appendfsync": "always"})
    preload(source, 1000, seed=8)
    proxy = start_proxy(source, server_91)
    proxy.backfill()
    with Traffic(proxy, clients=16, rate=1500, seed=8, tolerate_disconnects=True) as traffic:
        traffic.wait_for(500)
        source.kill() if how == "kill" else source.restart()
        source.start()
        traffic.wait_for(1000)
    traffic.assert_clean()
    proxy.wait_settled()
    assert proxy.verify()["checked"] > 900
    assert_equal_servers(source, server_91)


@pytest.mark.slow  # for as long as commands wait
def test_a_source_that_stays_away(start_server: Start, start_proxy: StartProxy, server_91: Server) -> None:
    """Commands wait for a while, then they get an error that says what is wrong; with the source they work again."""
    source = start_server("redis-6.2")
    proxy = start_proxy(source, server_91)
    client = proxy.client(socket_timeout=30, single_connection_client=True)
    client.set("k", "1")
    source.kill()
    until(lambda: not proxy.status()["lane"]["connected"], "seen by the proxy")
    with proxy.client(socket_timeout=30) as other, pytest.raises(redis.ResponseError, match="source") as told:
        other.get("k")
    assert "crossfade" in str(told.value) and "Traceback" not in str(told.value)
    source.start()
    until(lambda: proxy.status()["lane"]["connected"], "it is back")
    assert client.set("k", "2")
    proxy.wait_settled()
    assert server_91.call("GET", "k") == b"2"
