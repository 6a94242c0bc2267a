"""Two servers, a relay before each, a proxy between: what the tests of outages stand on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from tests.equality import assert_equal_servers
from tests.promises import Promises
from tests.proxies import RunningProxy, until
from tests.relay import Relay
from tests.servers import Server, make_server
from tests.traffic import Traffic, preload

# What is acknowledged has been written to the file, whatever becomes of the process: the default, everysec, may write
# a second later. Long scripts and slow loading are to show quickly.
DURABLE = {"appendonly": "yes", "appendfsync": "no", "auto-aof-rewrite-percentage": "0"}


class Rig:
    """`source` and `target` are asked directly; the proxy reaches them through `to_source` and `to_target` only."""

    def __init__(self, stack: ExitStack, source: str, target: str, *options: str, keys: int, fill: bool) -> None:
        self.stack = stack
        self.source = self.server(source)
        self.target = self.server(target)
        preload(self.source, keys, seed=7, short_ttls=False)
        self.to_source = stack.enter_context(Relay(self.source))
        self.to_target = stack.enter_context(Relay(self.target))
        self.proxy = stack.enter_context(RunningProxy(self.to_source, self.to_target, *options))
        if fill:
            self.fill()

    def server(self, name: str, **options: Any) -> Server:
        """One more server of this test."""
        config = {**DURABLE, **options.pop("config", {})}
        return self.stack.enter_context(make_server(name, config=config, **options))

    # -- what happens --------------------------------------------------------------------------------------------

    def fill(self) -> Any:
        """A complete backfill, on the admin socket."""
        self.proxy.admin("BACKFILL")
        filled = self.refilled()
        until(lambda: json.loads((self.proxy.state_dir / "state.json").read_text())["backfilled"], "a durable state")
        return filled

    def refilled(self) -> Any:
        """Once a backfill that is under way, or due, is complete."""
        self.until(lambda now: now["backfill"]["state"] != "running" and now["phase"] != "filling", "a backfill")
        assert self.backfill["state"] == "done", self.backfill
        return self.backfill

    @property
    def refills(self) -> int:
        """How often the proxy has fallen back to filling, as its log tells."""
        return self.proxy.log.count("back to filling")

    def verify(self, *options: str) -> Any:
        self.proxy.admin("VERIFY", *options)
        until(lambda: self.proxy.status()["verify"]["state"] != "running", "the end of the verify")
        return self.proxy.status()["verify"]

    def traffic(self, **options: Any) -> Traffic:
        defaults: dict[str, Any] = {"clients": 8, "rate": 600.0, "seed": 11, "also_known_to": self.target}
        return Traffic(self.proxy, **(defaults | options))

    def promises(self, **options: Any) -> Promises:
        return Promises(self.proxy, **options)

    # -- what is the case ----------------------------------------------------------------------------------------

    @property
    def backfill(self) -> Any:
        return self.proxy.status()["backfill"]

    @property
    def mirror(self) -> Any:
        return self.proxy.status()["mirror"]

    def until(self, condition: Callable[[dict[str, Any]], Any], what: str) -> None:
        """The condition on the status."""
        with self.explained():
            until(lambda: condition(self.proxy.status()), what)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What fails in here says how the proxy was."""
        try:
            yield
        except (AssertionError, OSError) as error:
            with suppress(OSError):
                error.add_note(f"status: {self.proxy.status()}")
            error.add_note(f"the proxy's log:\n{self.proxy.log[-4000:]}")
            raise

    def assert_equal(self) -> None:
        """At rest, by code that is not the proxy's."""
        with self.explained():
            self.proxy.wait_settled()
            assert_equal_servers(self.source, self.target)

    def assert_recovered(self) -> None:
        """Equal, and the proxy says so, without anybody's help."""
        self.assert_equal()
        self.until(lambda now: now["phase"] == "in-sync", "phase in-sync")


def rigs() -> Iterator[Callable[..., Rig]]:
    """For a fixture: `rig()` makes one."""
    with ExitStack() as stack:

        def make(
            source: str = "redis-6.2", target: str = "valkey-9.1", *options: str, keys: int = 300, fill: bool = True
        ) -> Rig:
            return Rig(stack, source, target, *options, keys=keys, fill=fill)

        yield make
