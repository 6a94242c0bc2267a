"""Relays for tests that run in a trio loop: a relay's own thread is ended when that loop is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.proxies import Address
from tests.relay import Relay


@pytest.fixture
def relay_to() -> Iterator[Callable[[Address], Relay]]:
    """`relay_to(server)`: a running relay."""
    with ExitStack() as stack:

        def start(server: Address) -> Relay:
            return stack.enter_context(Relay(server))

        yield start
