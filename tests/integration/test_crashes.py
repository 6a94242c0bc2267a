"""Killed at every point of a flip, of a finish and of the way back, under traffic.

After the restart exactly one side serves, and which one is known beforehand: the point lies before the state file was
replaced, or behind it. The epoch fits, both sides become equal by themselves, and nothing that was acknowledged is
lost, or there twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
import redis

from proxy.faults import POINTS, VARIABLE
from tests.equality import assert_equal_servers
from tests.promises import Promises
from tests.proxies import RunningProxy, run_crossfade, until
from tests.servers import Server
from tests.traffic import preload

COMMITTED = POINTS.index("serving renamed")
FINISHES = POINTS.index("finished opened")
FLIP = POINTS[:FINISHES]
FINISH = tuple(point for point in POINTS[FINISHES:] if point != "mirroring again")
AGAIN = tuple(point for point in POINTS[FINISHES:] if point != "finish retired")
FINISHED = POINTS.index("finished renamed")
SHORT = ("flip drained", "serving synced", "serving renamed", "flip swapped", "flip half handed over")
OTHER = {"source": "target", "target": "source"}


class Crashing(RunningProxy):
    """A proxy that is told where to die."""

    def start_with(self, point: str) -> None:
        """Start it (again), to die at this point when it comes there; "": nowhere."""
        self.kill()
        self._env[VARIABLE] = point
        self.start()

    def crash(self, *admin: str) -> None:
        """Give it the command that leads there."""
        point = self._env[VARIABLE]
        with pytest.raises(OSError):  # nobody answers
            answer = self.admin(*admin)
            raise AssertionError(f"it outlived {point!r}: {answer}")
        until(lambda: not self.running, f"the end at {point!r}")

    def wait_for_phase(self, *phases: str) -> None:
        until(lambda: self.status()["phase"] in phases, f"{' or '.join(phases)}, before {self._env[VARIABLE]!r}")


@pytest.fixture
def proxy(server_62: Server, server_91: Server) -> Iterator[Crashing]:
    """6.2 -> 9.1, backfilled."""
    preload(server_62, 100)
    with Crashing(server_62, server_91) as running:
        running.admin("BACKFILL")
        running._env[VARIABLE] = ""
        running.wait_for_phase("in-sync")
        yield running


@pytest.fixture
def servers(server_62: Server, server_91: Server) -> dict[str, Server]:
    return {"source": server_62, "target": server_91}


@contextmanager
def sessions(proxy: RunningProxy) -> Iterator[None]:
    """Some that have a connection of their own, which must move."""
    with ExitStack() as stack:
        for number in range(3):
            client = stack.enter_context(redis.Redis(port=proxy.port, single_connection_client=True))
            stack.enter_context(client.pipeline()).watch(f"watched {number}")
        yield


def served_by(proxy: RunningProxy, servers: dict[str, Server]) -> str:
    """Which server really answers a client, whatever the proxy believes."""
    with redis.Redis(port=proxy.port) as client:
        run_id = client.info("server")["run_id"]
    (found,) = [name for name, server in servers.items() if server.client().info("server")["run_id"] == run_id]
    return found


def check(proxy: RunningProxy, servers: dict[str, Server], serving: str, epoch: int) -> None:
    """What must hold after every restart."""
    status = proxy.status()
    assert (status["serving"], status["epoch"]) == (serving, epoch)
    assert served_by(proxy, servers) == serving
    stored = json.loads((proxy.state_dir / "state.json").read_text())
    assert (stored["serving"], stored["epoch"]) == (serving, epoch)


def check_at_rest(proxy: RunningProxy, servers: dict[str, Server], promises: Promises) -> None:
    """Both sides are equal without a new backfill, and everything that was acknowledged is on both."""
    proxy.wait_settled()
    until(lambda: proxy.status()["phase"] == "in-sync", "equal")
    assert proxy.status()["backfill"]["state"] == "idle", "a backfill was needed"
    assert_equal_servers(servers["source"], servers["target"])
    for server in servers.values():
        promises.check(server)
    assert promises.errors == {}


@pytest.mark.parametrize(
    "points", [SHORT, pytest.param(FLIP, marks=[pytest.mark.slow, pytest.mark.timeout(200)])], ids=["some", "all"]
)
def test_killed_in_a_flip(proxy: Crashing, servers: dict[str, Server], points: Sequence[str]) -> None:
    serving, epoch = "source", 0
    proxy.start_with(points[0])
    with Promises(proxy) as promises:
        for point, following in zip(points, [*points[1:], ""], strict=True):
            promises.wait_for(20)
            proxy.wait_for_phase("in-sync")
            with sessions(proxy):
                proxy.crash("FLIP", "SKIP-VERIFY")
            if POINTS.index(point) >= COMMITTED:
                serving, epoch = OTHER[serving], epoch + 1
            proxy.start_with(following)
            check(proxy, servers, serving, epoch)
            promises.wait_for(20)
    check_at_rest(proxy, servers, promises)
    flipped = proxy.admin("FLIP", "SKIP-VERIFY")
    assert (flipped["flipped"], flipped["epoch"]) == (True, epoch + 1)
    check(proxy, servers, OTHER[serving], epoch + 1)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_killed_in_a_finish(proxy: Crashing, servers: dict[str, Server]) -> None:
    assert proxy.admin("FLIP", "SKIP-VERIFY")["flipped"]
    with Promises(proxy) as promises:
        for point in FINISH:
            proxy.start_with(point)
            promises.wait_for(20)
            proxy.wait_for_phase("in-sync")
            proxy.crash("FINISH")
            proxy.start_with("")
            check(proxy, servers, "target", 1)
            promises.wait_for(20)
            assert (proxy.status()["phase"] == "finished") == (POINTS.index(point) >= FINISHED), point
            if proxy.status()["finished"]:
                proxy.admin("BACKFILL", "MIRROR-AGAIN")
                proxy.wait_for_phase("in-sync")
                proxy.start_with("")
    check_at_rest(proxy, servers, promises)


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_killed_on_the_way_back(proxy: Crashing, servers: dict[str, Server]) -> None:
    assert proxy.admin("FLIP", "SKIP-VERIFY")["flipped"]
    with Promises(proxy) as promises:
        for point in AGAIN:
            assert proxy.admin("FINISH")["finished"]
            proxy.start_with(point)
            promises.wait_for(20)
            proxy.crash("BACKFILL", "MIRROR-AGAIN")
            proxy.start_with("")
            check(proxy, servers, "target", 1)
            promises.wait_for(20)
            again = POINTS.index(point) >= FINISHED
            assert (proxy.status()["finished"] is None) == again, point
            if not again:
                proxy.admin("BACKFILL", "MIRROR-AGAIN")
            proxy.wait_for_phase("in-sync")  # where it had begun, the backfill begins again by itself
    proxy.start_with("")
    check_at_rest(proxy, servers, promises)


def test_a_point_that_is_none() -> None:
    result = run_crossfade("proxy", "--source", "redis://x", "--target", "redis://y", env={VARIABLE: "nowhere"})
    assert result.code == 1 and "names no point: nowhere" in result.err and "Traceback" not in result.err
