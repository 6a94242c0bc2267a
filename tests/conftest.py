"""Fixtures for real servers: one shared, cleaned server per version, and a factory for servers of one's own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import settings

from backfill.embedded import TlsFiles
from tests.proxies import RunningProxy
from tests.servers import Container, Pool, Server, make_server, make_tls_files, start_container

# The time of one example says nothing on a busy machine. CI draws the same examples each time; a person's runs explore.
settings.register_profile("crossfade", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("crossfade")


@pytest.fixture(scope="session")
def server_pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture
def server_62(server_pool: Pool) -> Server:
    """Redis 6.2, empty."""
    return server_pool.get("redis-6.2")


@pytest.fixture
def server_70(server_pool: Pool) -> Server:
    """Redis 7.0 of the system, empty."""
    return server_pool.get("redis-7.0")


@pytest.fixture
def server_82(server_pool: Pool) -> Server:
    """Redis 8.2, empty."""
    return server_pool.get("redis-8.2")


@pytest.fixture
def server_91(server_pool: Pool) -> Server:
    """Valkey 9.1, empty."""
    return server_pool.get("valkey-9.1")


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """`start_server("redis-6.2", password="x", config={...})`: a server of the test's own, stopped at its end."""
    with ExitStack() as stack:

        def start(name: str, **options: Any) -> Server:
            return stack.enter_context(make_server(name, **options))

        yield start


@pytest.fixture
def start_image() -> Iterator[Callable[[str], Container]]:
    """`start_image("redis:7.4")`: a server in a container; skips where no Docker engine runs."""
    with ExitStack() as stack:

        def start(image: str) -> Container:
            container = start_container(image)
            stack.callback(container.stop)
            return container

        yield start


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., RunningProxy]]:
    """`start_proxy(source, target, "--no-auth", host=..., port=...)`: a running proxy, stopped at the test's end."""
    with ExitStack() as stack:

        def start(*args: Any, **options: Any) -> RunningProxy:
            return stack.enter_context(RunningProxy(*args, **options))

        yield start


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Certificate, key and authority for 127.0.0.1; give them to start_server(..., tls=tls_files)."""
    return make_tls_files(tmp_path_factory.mktemp("tls"))


SERVER_FIXTURES = {"server_pool", "start_server", "start_image", "start_proxy"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what runs a real server, so that `make check` can leave it out."""
    for item in items:
        if SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())) or "integration" in item.path.parts:
            item.add_marker(pytest.mark.server)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have recorded for people to read (a coverage); through the reports, as workers print nothing."""
    for report in terminalreporter.stats.get("passed", []):
        for name, text in report.user_properties:
            terminalreporter.write_line(f"{name}: {text}")


_OF_ONE_WORKER = re.compile(r"(tests/differential/)[^\[]*\[((?:redis|valkey)-\d+\.\d+)")


@pytest.hookimpl(optionalhook=True)  # pytest-xdist is not always there
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that share expensive servers stay together. By their ids: pytest-xdist 3.8 loses its groups' names with
    pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            found = _OF_ONE_WORKER.search(nodeid)
            return "".join(found.groups()) if found else nodeid

    return Together(config, log) if config.getvalue("dist") == "loadgroup" else None
