"""The end of mirroring: durable, complete, and with a way back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.equality import assert_equal_servers
from tests.promises import Promises
from tests.proxies import AdminError, RunningProxy, run_crossfade, until
from tests.relay import Relay, Way
from tests.servers import Server
from tests.traffic import Traffic, preload

REFUSED = 4
StartProxy = Callable[..., RunningProxy]


@pytest.fixture
def flipped(start_proxy: StartProxy, server_62: Server, server_91: Server) -> RunningProxy:
    """6.2 -> 9.1, backfilled and flipped."""
    preload(server_62, 200)
    return flip(start_proxy(server_62, server_91))


def flip(proxy: RunningProxy) -> RunningProxy:
    proxy.admin("BACKFILL")
    until(lambda: proxy.status()["phase"] == "in-sync", "filled")
    assert proxy.admin("FLIP", "SKIP-VERIFY")["flipped"]
    return proxy


def finish(proxy: RunningProxy) -> dict[str, Any]:
    end = dict(proxy.admin("FINISH"))
    assert end["finished"], end
    return end


def connections(server: Server) -> list[bytes]:
    """Of the proxy, as the server lists them."""
    return [line for line in server.call("CLIENT", "LIST").splitlines() if b" name=crossfade-" in line]


def journal_bytes(proxy: RunningProxy) -> int:
    return sum(path.stat().st_size for path in (proxy.state_dir / "journal").glob("*.log"))


def test_not_before_the_flip(start_proxy: StartProxy, server_62: Server, server_91: Server) -> None:
    proxy = start_proxy(server_62, server_91)
    result = proxy.cli("finish", "--yes")
    assert result.code == REFUSED and "crossfade flip" in result.out and "not finished" in result.out
    assert proxy.cli("finish", "--json").json["reasons"], "without a question: there is nothing to confirm"
    proxy.client().set("k", "v")
    proxy.wait_settled()
    assert server_91.call("GET", "k") == b"v"


def test_a_plain_proxy_from_then_on(flipped: RunningProxy, server_62: Server, server_91: Server) -> None:
    """Every kind of client goes on; the source gets nothing, is not even connected to, and nothing piles up."""
    with Traffic(flipped, clients=6, rate=1500) as traffic:
        traffic.wait_for(300)
        finish(flipped)
        until(lambda: not connections(server_62), "the source is left alone")
        before, size = dict(server_62.client().info("commandstats")), journal_bytes(flipped)
        traffic.wait_for(1000)
        status = flipped.status()
        assert (status["dirty"], status["copies"]["waiting"], status["mirror"]["queued"]) == (0, 0, 0)
        assert (status["unmirrored"], status["mirror"]["dropped"], status["problems"]) == (0, 0, [])
        assert journal_bytes(flipped) == size, "a journal is still written"
        after = dict(server_62.client().info("commandstats"))
        assert {name for name in after if after[name] != before.get(name)} <= {"cmdstat_info", "cmdstat_client"}
    traffic.assert_clean()


def test_what_the_operator_sees(flipped: RunningProxy) -> None:
    """A question; what has become of it; and that everything for which the source would be needed is refused."""
    asked = run_crossfade("finish", "--state-dir", str(flipped.state_dir), stdin="n\n")
    assert asked.code not in (0, REFUSED) and "new backfill" in asked.err and "Traceback" not in asked.err
    assert flipped.status()["finished"] is None
    client = flipped.client()
    client.ping()
    told = flipped.cli("finish", "--yes").done().out
    assert "1 clients are still connected to the proxy" in told and "point them at redis://" in told
    status = flipped.status()
    assert status["phase"] == "finished" and status["finished"] > 0 and status["serving"] == "target"
    shown = flipped.cli("status").done().out
    assert "nothing is mirrored" in shown and "1 clients" in shown and "problem" not in shown
    assert client.info("crossfade")["crossfade_mirroring"] == 0
    again = finish(flipped)
    assert again["finished"] and again["at"] == status["finished"], "once is enough"
    result = flipped.cli("flip", "--force", "--yes")
    assert result.code == REFUSED and "--mirror-again" in result.out, str(result)
    for options in ([], ["DRY-RUN"], ["SKIP-VERIFY"]):
        (reason,) = flipped.admin("FLIP", *options)["reasons"]
        assert "--mirror-again" in reason
    for command in ("BACKFILL", "VERIFY"):
        with pytest.raises(AdminError, match="--mirror-again"):
            flipped.admin(command)
    assert flipped.status()["serving"] == "target"


@pytest.mark.parametrize("how", ["kill", pytest.param("stop", marks=pytest.mark.slow)])
def test_durable(start_server: Callable[..., Server], start_proxy: StartProxy, server_91: Server, how: str) -> None:
    """Killed directly after; the source is gone for good. What was acknowledged is there."""
    source = start_server("redis-6.2")
    preload(source, 100)
    proxy = flip(start_proxy(source, server_91))
    with Promises(proxy) as promises:
        promises.wait_for(50)
        proxy.admin("FINISH")
        proxy.kill() if how == "kill" else proxy.stop()
        source.kill()
        proxy.start()
        promises.wait_for(50)
        status = proxy.status()
        assert (status["phase"], status["serving"], status["epoch"]) == ("finished", "target", 1)
        assert status["problems"] == [] and status["dirty"] == 0
        assert proxy.client().eval("return redis.call('INCR', KEYS[1])", 1, "n") == 1, "scripts wait for no watch"
    promises.check(server_91)


@pytest.mark.slow
@pytest.mark.parametrize("restarted", [True, False])
def test_the_way_back(flipped: RunningProxy, server_62: Server, server_91: Server, restarted: bool) -> None:
    """Mirroring begins again under traffic, and ends in a flip back; what the source got meanwhile is undone."""
    with Promises(flipped) as promises:
        finish(flipped)
        promises.wait_for(50)
        if restarted:
            flipped.kill()
            flipped.start()
        server_62.call("SET", "of somebody else", "v")
        server_62.call("DEL", "pre:1")
        flipped.client().delete("pre:2")
        with Traffic(flipped, clients=4, rate=800, also_known_to=server_62) as traffic:
            traffic.wait_for(200)
            assert flipped.cli("backfill", "--mirror-again", "--json").done().json["complete"]
            traffic.wait_for(200)
        traffic.assert_clean()
        status = flipped.wait_settled()
        assert status["finished"] is None and status["watch"]["state"] == "on"
        promises.wait_for(50)
    flipped.wait_settled()
    assert_equal_servers(server_62, server_91)
    assert flipped.admin("FLIP", "SKIP-VERIFY")["flipped"]
    flipped.client().set("k", "v")
    flipped.wait_settled()
    assert server_91.call("GET", "k") == b"v" == server_62.call("GET", "k")
    promises.check(server_62)
    promises.check(server_91)


def test_what_a_lost_link_still_carries(start_proxy: StartProxy, server_62: Server, server_91: Server) -> None:
    """An effect that the network kept while mirroring was ended must not arrive after it has begun again."""
    with Relay(server_62) as relay:
        proxy = flip(start_proxy(relay, server_91))
        relay.hold(Way.TO_SERVER)
        proxy.client().rpush("k", "late")
        until(lambda: relay.held, "the effect is on its way")
        relay.strand()
        finish(proxy)
        relay.heal()
        proxy.admin("BACKFILL", "MIRROR-AGAIN")
        until(lambda: proxy.status()["phase"] == "in-sync", "mirrored again")
        relay.deliver()
        proxy.wait_settled()
        assert_equal_servers(server_62, server_91)


@pytest.mark.slow
def test_the_journal_is_back_with_the_mirroring(flipped: RunningProxy, server_62: Server, server_91: Server) -> None:
    """After finish and the way back, a killed proxy mends what was unsettled again."""
    finish(flipped)
    flipped.kill()
    flipped.start()
    flipped.cli("backfill", "--mirror-again").done()
    server_62.pause()
    try:
        flipped.client().set("unsettled", "v")
        flipped.kill()
    finally:
        server_62.resume()
    flipped.start()
    flipped.wait_settled()
    assert server_62.call("GET", "unsettled") == b"v"
    assert_equal_servers(server_62, server_91)


@pytest.mark.slow
def test_killed_on_the_way_back(flipped: RunningProxy, server_62: Server, server_91: Server) -> None:
    """The backfill that was begun begins again by itself."""
    finish(flipped)
    client = flipped.client()
    client.set("late", "v")
    server_62.pause()
    try:
        flipped.admin("BACKFILL", "MIRROR-AGAIN")
        flipped.kill()
    finally:
        server_62.resume()
    flipped.start()
    until(lambda: flipped.status()["phase"] == "in-sync", "filled again")
    assert_equal_servers(server_62, server_91)


@pytest.mark.slow
def test_the_state_cannot_be_saved(flipped: RunningProxy, server_62: Server) -> None:
    """Then nothing has changed."""
    blocked = Path(flipped.state_dir) / "state.json.new"
    blocked.mkdir()
    try:
        result = flipped.cli("finish", "--yes", "--json")
        assert result.code == REFUSED and "cannot be saved" in result.json["reasons"][0]
        client = flipped.client()
        client.set("k", "v")
        until(lambda: server_62.call("GET", "k") == b"v", "mirrored")
    finally:
        os.rmdir(blocked)
    assert finish(flipped)["finished"]


def test_a_scan_that_the_source_began(flipped: RunningProxy) -> None:
    """It cannot be finished any more, and says so: going on with its cursor on the target would miss keys."""
    assert flipped.admin("FLIP", "SKIP-VERIFY", "FORCE")["serving"] == "source"
    with redis.Redis(port=flipped.port, single_connection_client=True) as client:
        cursor, _ = client.scan(0, count=10)
        assert cursor
        assert flipped.admin("FLIP", "SKIP-VERIFY")["flipped"]
        on, _ = client.scan(cursor, count=10)
        assert on, "it goes on, on the source"
        finish(flipped)
        with pytest.raises(redis.ResponseError, match="begin again"):
            client.scan(on, count=10)
        assert len(set(client.scan_iter(count=10))) == client.dbsize()


def test_sessions_that_were_there(flipped: RunningProxy, server_62: Server) -> None:
    """What was open on a connection of its own, or waiting, goes on: its keys are not held for anybody."""
    subscriber = flipped.client().pubsub()
    subscriber.subscribe("news")
    until(lambda: subscriber.get_message(timeout=1), "subscribed")
    with (
        redis.Redis(port=flipped.port, single_connection_client=True) as watching,
        redis.Redis(port=flipped.port, single_connection_client=True) as other,
        watching.pipeline() as pipeline,
    ):
        pipeline.watch("k")
        finish(flipped)
        with other.pipeline() as block:
            block.set("k", "v")
            assert block.execute() == [True]
        other.publish("news", "x")
        pipeline.multi()
        pipeline.incr("counter")
        with pytest.raises(redis.WatchError):
            pipeline.execute()
    until(lambda: (subscriber.get_message(timeout=1) or {}).get("data") == b"x", "a message")
    assert flipped.status()["dirty"] == 0
    subscriber.close()
    assert server_62.call("GET", "k") is None
