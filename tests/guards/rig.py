"""What several of these tests need: relays for some of a proxy's connections, lag, and calls into other threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from backfill.dial import connect
from backfill.url import parse_url
from proxy.link import Link
from proxy.mirror import Mirror
from proxy.roles import Clock
from tests.inprocess import InProcess
from tests.proxies import Address
from tests.relay import Relay

RelayTo = Callable[[Address], Relay]


async def in_thread(function: Callable[..., Any], *args: Any) -> Any:
    """A relay's methods block until its own loop has done it."""
    return await trio.to_thread.run_sync(function, *args)


def pins_by(running: InProcess, relay: Relay) -> None:
    """Pinned connections go by way of the relay, all others do not."""
    proxy = running.proxy

    async def dial() -> Link:
        wire = await connect(parse_url(relay.url), name=proxy.serving.title("pin"))
        return Link(wire, proxy.floor, proxy.hub.lane)

    running.hub.pins._dial = dial


def keep_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test says what the servers' clocks are."""
    monkeypatch.setattr(Clock, "measured", lambda self, sent_ms, server_ms, received_ms: None)


class Gate:
    """Holds back what the proxy has to send to the mirror side."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shut = False
        self.flush = Mirror.flush
        gate = self

        def flush(mirror: Mirror) -> None:
            if not gate.shut:
                gate.flush(mirror)

        monkeypatch.setattr(Mirror, "flush", flush)
