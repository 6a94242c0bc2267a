"""The real servers that tests run against.

Owns: the shared pool (one process per flavour and test process, cleaned between tests), TLS files, containers.
Finding and starting is `backfill.embedded`'s; added here: a redis-py client, and a skip where something is missing.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from redis.backoff import ConstantBackoff, NoBackoff
from redis.retry import Retry

from backfill import embedded
from backfill.embedded import EmbeddedError, TlsFiles

CLIENT_OPTIONS: dict[str, Any] = {"protocol": 2, "retry": Retry(NoBackoff(), 0)}
NAMES = tuple(embedded.FLAVOURS)


class Server(embedded.Server):
    """An embedded server with a redis-py client. DEBUG is allowed, as tests of expiry and slowness want it."""

    def __init__(self, name: str, *, config: Mapping[str, str | Sequence[str]] | None = None, **options: Any) -> None:
        super().__init__(name, config=config, **options)
        if self.version[1] >= 7:
            self._config = {"enable-debug-command": "local", **self._config}
        self._base_config: dict[str, str] = {}

    def client(self, db: int = 0, **options: Any) -> redis.Redis:
        """A synchronous redis-py client: bytes in, bytes out, RESP2 unless protocol=3 is given, no hidden retries."""
        address: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "password": self.password}
        if self.tls is not None:
            address |= {"ssl": True, "ssl_ca_certs": str(self.tls.ca), "ssl_check_hostname": False}
        return redis.Redis(**(address | CLIENT_OPTIONS | {"db": db} | options))

    def call(self, *args: bytes | str | float, db: int = 0) -> Any:
        """One command on its own connection, without redis-py's reply callbacks; -ERR raises redis.ResponseError."""
        with self.client(db, single_connection_client=True) as client:
            client.response_callbacks.clear()
            return client.execute_command(*args)

    def clean(self) -> None:
        """Back to the state right after the first start, whatever the last test did to it: data, scripts, functions,
        other connections, users, configuration, a pause, a death."""
        if self.running:
            self.resume()
        self.start()
        with self.client(single_connection_client=True) as client:
            client.response_callbacks.clear()
            own = client.execute_command("CLIENT", "ID")
            for words in self._cleaning_commands():
                with suppress(redis.ResponseError):  # a version without functions or UNPAUSE
                    client.execute_command(*words)
            for line in client.execute_command("CLIENT", "LIST").splitlines():
                ident = line.split(b" ", 1)[0].removeprefix(b"id=")
                if int(ident) != own:
                    client.execute_command("CLIENT", "KILL", "ID", ident)
            for user in client.execute_command("ACL", "USERS"):
                if user != b"default":
                    client.execute_command("ACL", "DELUSER", user)
            self._restore_config(client)

    @staticmethod
    def _cleaning_commands() -> list[list[str]]:
        return [
            ["CLIENT", "UNPAUSE"],
            ["REPLICAOF", "NO", "ONE"],
            ["DEBUG", "SET-ACTIVE-EXPIRE", "1"],
            ["FLUSHALL"],
            ["SCRIPT", "FLUSH"],
            ["FUNCTION", "FLUSH"],
            ["CONFIG", "RESETSTAT"],
        ]

    def _restore_config(self, client: redis.Redis) -> None:
        flat = client.execute_command("CONFIG", "GET", "*")
        now = {name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)}
        if not self._base_config:
            self._base_config = now
            return
        for name, value in self._base_config.items():
            if now.get(name) != value:
                client.execute_command("CONFIG", "SET", name, value)


class Pool:
    """One long-lived server per flavour; `get` hands it out clean."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}

    def get(self, name: str) -> Server:
        if name not in self._servers:
            self._servers[name] = make_server(name)
        self._servers[name].clean()
        return self._servers[name]

    def close(self) -> None:
        for server in self._servers.values():
            server.stop()
        self._servers.clear()


def make_server(name: str, **options: Any) -> Server:
    """A Server that is not started yet; the test is skipped where this flavour cannot be had."""
    try:
        return Server(name, **options)
    except EmbeddedError as error:
        pytest.skip(error.text)


def make_tls_files(folder: Path, *, require_client_cert: bool = False) -> TlsFiles:
    """A fresh authority with one certificate for localhost and 127.0.0.1 (good for server and client)."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    files = TlsFiles(folder / "cert.pem", folder / "key.pem", folder / "ca.pem", require_client_cert)
    files.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(files.key)
    authority.cert_pem.write_to_path(files.ca)
    return files


@cache
def tls_capable() -> tuple[str, ...]:
    """The flavours found here that were built with TLS (of the five, Debian's redis-7.0 usually is the only one)."""
    return tuple(binary.name for binary in embedded.available() if b"tls-auth-clients" in binary.path.read_bytes())


class Container:
    """A server in a container, with the part of Server's interface that a test of another version needs."""

    def __init__(self, image: str) -> None:
        from testcontainers.core.container import DockerContainer

        self.name = image
        self._container = DockerContainer(image).with_exposed_ports(6379)

    def start(self) -> Container:
        self._container.start()
        retry = Retry(ConstantBackoff(0.1), 100)
        with self.client(retry=retry, retry_on_error=[redis.ConnectionError]) as client:
            client.ping()
        return self

    def stop(self) -> None:
        self._container.stop()

    @property
    def port(self) -> int:
        return int(self._container.get_exposed_port(6379))

    @property
    def host(self) -> str:
        return str(self._container.get_container_host_ip())

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}"

    def client(self, db: int = 0, **options: Any) -> redis.Redis:
        address: dict[str, Any] = {"host": self.host, "port": self.port}
        return redis.Redis(**(address | CLIENT_OPTIONS | {"db": db} | options))


@cache
def docker_answers() -> bool:
    # The command, not the library: that one leaks a socket when nobody listens.
    command = shutil.which("docker")
    return command is not None and subprocess.run([command, "version"], capture_output=True).returncode == 0


def start_container(image: str) -> Container:
    """A started container; the test is skipped where no Docker engine runs or the image cannot be had."""
    if not docker_answers():
        pytest.skip(f"no Docker engine answers here, so no {image}")
    import docker

    try:
        return Container(image).start()
    except docker.errors.ImageNotFound as error:
        pytest.skip(f"no image {image} here: {error}")
