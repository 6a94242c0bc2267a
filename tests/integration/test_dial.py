"""Connections to real servers in every way a URL can ask for, and every way they can fail: one line, no secrets."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from backfill.client import Client, ConnectionLost
from backfill.dial import ConnectError, Wire, connect
from backfill.embedded import TlsFiles
from backfill.url import Url, parse_url
from tests.servers import NAMES, Pool, Server, make_tls_files

SECRET = "s3cr+t/with:all@kinds"
QUOTED = "s3cr%2Bt%2Fwith%3Aall%40kinds"
TLS_SERVER = "redis-7.0"  # the only one built with TLS


async def ping(url: Url) -> Any:
    async with Client.open(url) as client:
        return await client.call(b"PING")


async def failure(url: Url, kind: str, **options: Any) -> str:
    """The text of the ConnectError, which must be of this kind, one line and free of secrets."""
    with pytest.raises(ConnectError) as caught:
        await connect(url, **options)
    assert caught.value.kind == kind, caught.value.text
    text = caught.value.text
    assert text.splitlines() == [text]
    assert SECRET not in text and QUOTED not in text
    assert str(caught.value) == text
    return text


# --- plain ---


@pytest.mark.parametrize("resp", [2, 3])
@pytest.mark.parametrize("name", NAMES)
async def test_plain(server_pool: Pool, name: str, resp: int) -> None:
    server = server_pool.get(name)
    wire = await connect(Url(host="127.0.0.1", port=server.port, db=5), name="me", resp=resp)
    try:
        assert wire.server["run_id"] == server.call("INFO", "server").decode().split("run_id:")[1][:40]
        assert wire.server[f"{server.version[0]}_version"] == server.binary.release
        (line,) = [line for line in server.call("CLIENT", "LIST").splitlines() if b" name=me " in line]
        assert line.startswith(b"id=%d " % wire.client_id)
        assert b" db=5 " in line
        await wire.send(b"*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$4\r\nport\r\n")
        assert (await wire.receive())[:1] == (b"*" if resp == 2 else b"%")
        assert (wire.leftover, wire.pending_out, wire.tls) == (b"", 0, None)
    finally:
        wire.close()


async def test_host_names_and_ipv6(start_server: Callable[..., Server]) -> None:
    server = start_server("redis-7.0", config={"bind": "127.0.0.1 -::1"})
    assert await ping(Url(host="localhost", port=server.port)) == b"PONG"
    if socket.has_ipv6 and Path("/proc/net/if_inet6").exists():
        assert await ping(parse_url(f"redis://[::1]:{server.port}")) == b"PONG"


async def test_unix_socket(start_server: Callable[..., Server]) -> None:
    server = start_server("redis-6.2", unixsocket=True, password=SECRET)
    url = parse_url(server.unix_url)
    assert url.path
    async with Client.open(url.with_db(3)) as client:
        assert b"db=3" in await client.call(b"CLIENT", b"LIST")
    text = await failure(Url(path="/nonexistent/redis.sock"), "refused")
    assert "/nonexistent/redis.sock" in text


# --- passwords ---


@pytest.mark.parametrize("name", ["redis-6.2", "valkey-9.1"])
async def test_password(start_server: Callable[..., Server], name: str) -> None:
    server = start_server(name, password=SECRET)
    for userinfo in (f":{QUOTED}@", f"{QUOTED}@", f"default:{QUOTED}@"):
        assert await ping(parse_url(f"redis://{userinfo}127.0.0.1:{server.port}")) == b"PONG"
    text = await failure(parse_url(f"redis://127.0.0.1:{server.port}"), "auth")
    assert "wants a password" in text
    text = await failure(parse_url(f"redis://:{QUOTED}x@127.0.0.1:{server.port}"), "auth")
    assert "refused the user name or password" in text


async def test_acl_user(server_62: Server) -> None:
    """Also one that may do next to nothing: HELLO, CLIENT and INFO are conveniences."""
    for name, rules in (("bob", ["+@all"]), ("tiny", ["-@all", "+get", "+select"])):
        server_62.call("ACL", "SETUSER", name, "on", f">{SECRET}", "~*", *rules)
        url = parse_url(f"redis://{name}:{QUOTED}@127.0.0.1:{server_62.port}/2")
        async with Client.open(url, name="me") as client:
            assert await client.call(b"GET", b"k") is None
        await failure(parse_url(f"redis://{name}:wrong@127.0.0.1:{server_62.port}/2"), "auth")
    await failure(parse_url(f"redis://nobody:{QUOTED}@127.0.0.1:{server_62.port}"), "auth")


@pytest.mark.parametrize("name", NAMES)
async def test_a_password_that_nobody_asked_for(server_pool: Pool, name: str) -> None:
    server = server_pool.get(name)
    text = await failure(parse_url(f"redis://:{QUOTED}@127.0.0.1:{server.port}"), "auth")
    assert "no password set" in text


# --- what else can go wrong ---


async def test_nobody_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        text = await failure(Url(host="127.0.0.1", port=reserved.getsockname()[1], password=SECRET), "refused")
    assert text.startswith("connection refused by 127.0.0.1:")


async def test_an_unknown_host() -> None:
    assert "no-such-host.invalid" in await failure(Url(host="no-such-host.invalid"), "dns")


async def test_a_server_that_does_not_answer(start_server: Callable[..., Server]) -> None:
    server = start_server("redis-6.2")
    server.pause()
    text = await failure(Url(host="127.0.0.1", port=server.port), "timeout", timeout=0.1)
    assert "within 0.1 s" in text


async def test_a_db_that_is_not_there(server_62: Server) -> None:
    assert "no db 99" in await failure(Url(host="127.0.0.1", port=server_62.port, db=99), "protocol")


async def test_no_room(start_server: Callable[..., Server]) -> None:
    server = start_server("redis-7.0", config={"maxclients": "1"})
    wire = await connect(Url(host="127.0.0.1", port=server.port))
    assert "limit of clients" in await failure(Url(host="127.0.0.1", port=server.port), "refused")
    wire.close()


async def serve_once(answer: Callable[[trio.SocketStream], Awaitable[None]], nursery: Any) -> int:
    listeners = await nursery.start(trio.serve_tcp, answer, 0)
    return int(listeners[0].socket.getsockname()[1])


async def test_something_that_is_no_redis(nursery: trio.Nursery) -> None:
    async def web_server(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    port = await serve_once(web_server, nursery)
    assert "does not answer as a Redis" in await failure(Url(host="127.0.0.1", port=port), "protocol")


async def test_something_that_hangs_up(nursery: trio.Nursery) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    port = await serve_once(hang_up, nursery)
    assert "closed the connection" in await failure(Url(host="127.0.0.1", port=port), "protocol")
    assert "TLS" in await failure(Url(host="127.0.0.1", port=port, tls=True), "tls")


async def test_a_relay_that_knows_no_hello(nursery: trio.Nursery) -> None:
    """It has no HELLO, CLIENT nor INFO; RESP2 needs none of them. What a reply says back never shows the password."""

    async def relay(stream: trio.SocketStream) -> None:
        async for data in stream:
            for name in [word for word in data.split(b"\r\n") if word in (b"HELLO", b"CLIENT", b"INFO", b"PING")]:
                await stream.send_all(b"+PONG\r\n" if name == b"PING" else b"-ERR unknown command\r\n")
            if SECRET.encode() in data:
                await stream.send_all(b"-ERR bad:\t%s\r\n" % SECRET.encode() * 9)

    port = await serve_once(relay, nursery)
    wire = await connect(Url(host="127.0.0.1", port=port), name="me")
    assert (wire.client_id, wire.server) == (0, {})
    wire.close()
    await failure(Url(host="127.0.0.1", port=port), "protocol", resp=3)


async def test_a_server_that_repeats_the_password(nursery: trio.Nursery) -> None:
    async def parrot(stream: trio.SocketStream) -> None:
        await stream.send_all(b"-ERR cannot authenticate\twith %s\r\n" % SECRET.encode())

    port = await serve_once(parrot, nursery)
    text = await failure(Url(host="127.0.0.1", port=port, password=SECRET), "auth")
    assert text.endswith("refused AUTH: ERR cannot authenticate with ***")


# --- TLS ---


@pytest.fixture
def tls_server(start_server: Callable[..., Server], tls_files: TlsFiles) -> Server:
    return start_server(TLS_SERVER, tls=tls_files, password=SECRET)


async def test_tls(tls_server: Server, tls_files: TlsFiles) -> None:
    for host in ("127.0.0.1", "localhost"):
        url = parse_url(f"rediss://:{QUOTED}@{host}:{tls_server.port}/1?ca={tls_files.ca}")
        async with Client.open(url) as client:
            value = bytes(range(256)) * 40_000  # many records, more than the socket takes at once
            assert await client.call(b"SET", b"k", value) == b"OK"
            assert await client.pipeline([[b"GET", b"k"]] * 3) == [value] * 3


async def test_tls_reads_everything_that_is_decrypted(tls_server: Server, tls_files: TlsFiles) -> None:
    """After a BlockingIOError nothing may be left inside: the selector would never tell."""
    wire = await connect(parse_url(f"rediss://:{QUOTED}@localhost:{tls_server.port}?ca={tls_files.ca}"))
    wire.send_nowait(b"*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n" * 20_000)
    received = b""
    while len(received) < 20_000 * 11:
        try:
            received += wire.recv_nowait()
        except BlockingIOError:
            assert wire.tls is not None
            assert wire.tls.pending() == 0
            wire.flush_nowait()
            await trio.lowlevel.wait_readable(wire.fileno())
    assert received == b"$5\r\nhello\r\n" * 20_000
    tls_server.kill()
    assert await wire.receive() == b""
    assert await wire.receive() == b""
    wire.close()


async def test_tls_trust(tls_server: Server, tls_files: TlsFiles, tmp_path: Path) -> None:
    other = make_tls_files(tmp_path)
    base = f"rediss://:{QUOTED}@127.0.0.1:{tls_server.port}"
    assert "ca=FILE" in await failure(parse_url(base), "tls")
    assert "not trusted" in await failure(parse_url(f"{base}?ca={other.ca}"), "tls")
    assert "cannot read" in await failure(parse_url(f"{base}?ca={tmp_path}/none.pem"), "tls")
    assert "not usable" in await failure(parse_url(f"{base}?ca={other.key}"), "tls")
    assert await ping(parse_url(f"{base}?insecure=true")) == b"PONG"


async def test_tls_server_name(tls_server: Server, tls_files: TlsFiles) -> None:
    base = f"rediss://:{QUOTED}@127.0.0.1:{tls_server.port}?ca={tls_files.ca}"
    assert await ping(parse_url(f"{base}&server_name=localhost")) == b"PONG"
    text = await failure(parse_url(f"{base}&server_name=elsewhere.example"), "tls")
    assert "another name than elsewhere.example" in text


async def test_tls_client_certificate(start_server: Callable[..., Server], tmp_path: Path) -> None:
    files = make_tls_files(tmp_path, require_client_cert=True)
    server = start_server(TLS_SERVER, tls=files)
    base = f"rediss://127.0.0.1:{server.port}?ca={files.ca}"
    assert await ping(parse_url(f"{base}&cert={files.cert}&key={files.key}")) == b"PONG"
    assert "client certificate" in await failure(parse_url(base), "tls")
    stranger = trustme.CA().issue_cert("client.example")
    stranger.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "stranger.pem"))
    assert "certificate" in await failure(parse_url(f"{base}&cert={tmp_path}/stranger.pem"), "tls")
    assert "key must fit" in await failure(parse_url(f"{base}&cert={files.cert}&key={tmp_path}/stranger.pem"), "tls")


async def test_tls_and_plain_mixed_up(tls_server: Server, server_62: Server) -> None:
    text = await failure(parse_url(f"rediss://:{QUOTED}@127.0.0.1:{server_62.port}?insecure=1"), "timeout", timeout=0.2)
    assert "is it a TLS port?" in text  # Redis waits for the end of the line
    text = await failure(parse_url(f"redis://:{QUOTED}@127.0.0.1:{tls_server.port}"), "protocol")
    assert "rediss://" in text


async def test_no_socket_is_left_open_by_a_failure(server_62: Server) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for url in (
        Url(host="127.0.0.1", port=server_62.port, password=SECRET),
        Url(host="127.0.0.1", port=server_62.port, tls=True),
        Url(host="127.0.0.1", port=server_62.port, db=99),
    ):
        with pytest.raises(ConnectError):
            await connect(url, timeout=0.3)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- the client ---


async def test_a_lost_connection_is_reported_once_and_for_all(start_server: Callable[..., Server]) -> None:
    server = start_server("redis-6.2")
    async with Client.open(Url(host="127.0.0.1", port=server.port)) as client:
        assert isinstance(client.wire, Wire)
        server.kill()
        for _ in range(2):
            with pytest.raises(ConnectionLost, match="lost"):
                await client.call(b"PING")
