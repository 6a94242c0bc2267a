"""A proxy between two real servers, used by applications: at rest, and through flips in the middle of their work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.migration import Migration
from tests.servers import Pool

VERSIONS = ("redis-6.2", "valkey-9.1")
WAYS = ("at rest", "flipping")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test runs both ways, unless its module says which way goes with which library or protocol."""
    if "migration" in metafunc.fixturenames and not {"library", "resp"}.intersection(metafunc.fixturenames):
        metafunc.parametrize("migration", WAYS, indirect=True)


@pytest.fixture
def migration(request: pytest.FixtureRequest, server_pool: Pool) -> Iterator[Migration]:
    """With the source serving, or with the sides swapped again and again meanwhile. In the end both must be equal.

    `@pytest.mark.versions("redis-8.2", "valkey-9.1")` chooses other servers.
    """
    marker = request.node.get_closest_marker("versions")
    source, target = (server_pool.get(name) for name in (marker.args if marker else VERSIONS))
    with Migration(source, target, flipping=request.param == "flipping") as running:
        yield running
