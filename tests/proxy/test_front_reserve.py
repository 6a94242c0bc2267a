"""A front that may open no more files makes its trunk anew all the same."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count

import pytest

from proxy.front.hub import FrontHub


@contextmanager
def no_more_files() -> Iterator[None]:
    """None but those that are closed meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = next(number for number in count() if not _is_open(number))
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@pytest.fixture
def owner() -> Iterator[tuple[socket.socket, FrontHub]]:
    """The owner's end of the channel, and the front."""
    ours, theirs = socket.socketpair()
    hub = FrontHub(theirs)
    with ours:
        yield ours, hub
        assert hub.lane.link is not None
        hub.lane.link.close()
        hub._channel.close()
        hub._reserve.give()


def test_a_trunk_is_made_anew_when_clients_have_all_descriptors(owner: tuple[socket.socket, FrontHub]) -> None:
    """They even take the one of the lost trunk."""
    channel, hub = owner
    hub.open_trunk()
    stolen: list[int] = []
    for _ in range(4):
        _, fds, _, _ = socket.recv_fds(channel, 1000, 10)
        with no_more_files():
            for number in fds:
                os.close(number)  # the owner closes its end
                stolen.append(os.dup(0))
            assert hub.lane.link is not None
            hub.lane.link.lose("closed by the owner")
            with suppress(OSError):
                while True:
                    stolen.append(os.dup(0))
            hub.open_trunk()
    for number in [*stolen, *socket.recv_fds(channel, 1000, 10)[1]]:
        os.close(number)
