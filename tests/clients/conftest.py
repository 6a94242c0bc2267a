"""One proxy between two real servers, over which applications ride: at rest, and through flips in the middle of their work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.clients.migration import Migration
from tests.servers import Pool

VERSIONS = ("redis-6.2", "valkey-9.1")


@pytest.fixture(params=["at rest", "flipping"])
def migration(request: pytest.FixtureRequest, server_pool: Pool) -> Iterator[Migration]:
    """Every test runs twice: with the source serving, and with the sides swapped again and again meanwhile.

    `@pytest.mark.versions("redis-8.2", "valkey-9.1")` chooses other servers. At the end, both sides must be equal.
    """
    marker = request.node.get_closest_marker("versions")
    source, target = (server_pool.get(name) for name in (marker.args if marker else VERSIONS))
    with Migration(source, target, flipping=request.param == "flipping") as running:
        yield running


@pytest.fixture
def at_rest(start_migration: Callable[..., Migration]) -> Migration:
    """The same, without flips."""
    return start_migration(*VERSIONS)


@pytest.fixture
def start_migration(server_pool: Pool) -> Iterator[Callable[..., Migration]]:
    """`start_migration("redis-8.2", "valkey-9.1")`: for a test that wants its servers in its own hands."""
    started: list[Migration] = []

    def start(source: str, target: str) -> Migration:
        started.append(Migration(server_pool.get(source), server_pool.get(target)))
        return started[-1].__enter__()

    yield start
    for running in started:
        running.__exit__(None, None, None)
