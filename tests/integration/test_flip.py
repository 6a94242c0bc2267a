"""The flip: what must forbid it, what it must leave alone, and that every client rides through it."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from typing import Any

import hiredis
import pytest
import redis
from redis.cache import CacheConfig

from tests.equality import assert_equal_servers
from tests.proxies import AdminError, RunningProxy, run_crossfade, until
from tests.servers import Server
from tests.traffic import Traffic, preload
from tests.traffic.connection import pack

REFUSED = 4
StartProxy = Callable[..., RunningProxy]


@pytest.fixture
def ready(start_proxy: StartProxy, server_62: Server, server_91: Server) -> RunningProxy:
    """6.2 -> 9.1, backfilled and verified: a flip would go through."""
    preload(server_62, 200)
    proxy = start_proxy(server_62, server_91)
    proxy.backfill()
    proxy.verify()
    return proxy


def reasons(proxy: RunningProxy, *options: str) -> str:
    """Why it did not flip; and nothing may have changed."""
    before = proxy.status()
    result = proxy.cli("flip", "--json", *options)
    assert result.code == REFUSED, str(result)
    assert not result.json["flipped"] and result.json["reasons"]
    after = proxy.status()
    assert [after[name] for name in ("serving", "epoch", "flips")] == [before[n] for n in ("serving", "epoch", "flips")]
    plain = proxy.cli("flip", *options)
    assert (
        plain.code == REFUSED and "not flipped" in plain.out and plain.out.count("  - ") == len(result.json["reasons"])
    )
    return "\n".join(result.json["reasons"])


class Talk:
    """A client by hand: what is sent when is what these tests are about."""

    def __init__(self, proxy: RunningProxy) -> None:
        self._socket = socket.create_connection(("127.0.0.1", proxy.port), timeout=20)
        self._reader = hiredis.Reader()

    def send(self, *commands: str) -> None:
        self._socket.sendall(pack([command.split() for command in commands]))

    def hear(self) -> Any:
        while (reply := self._reader.gets()) is False:
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionResetError("hung up")
            self._reader.feed(received)
        return str(reply) if isinstance(reply, hiredis.ReplyError) else reply

    def ask(self, *commands: str) -> Any:
        """One command: its reply. Several, sent at once: their replies."""
        self.send(*commands)
        replies = [self.hear() for _ in commands]
        return replies if len(commands) > 1 else replies[0]

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


# --- the gate ---


def test_nothing_done_yet(start_proxy: StartProxy, server_62: Server, server_91: Server) -> None:
    preload(server_62, 100)
    proxy = start_proxy(server_62, server_91)
    told = reasons(proxy)
    assert "crossfade backfill" in told and "crossfade verify" in told
    assert "backfill" in reasons(proxy, "--dry-run")
    proxy.backfill()
    told = reasons(proxy)
    assert "crossfade backfill" not in told and "crossfade verify" in told and "--skip-verify" in told
    assert proxy.flip("--skip-verify")["serving"] == "target"


def test_a_verify_that_found_something_does_not_count(ready: RunningProxy, server_91: Server) -> None:
    server_91.call("SET", "smuggled", "in")
    assert ready.cli("verify").code == 1
    assert "crossfade verify" in reasons(ready)
    assert ready.cli("verify", "--repair").code == 0
    ready.verify()
    ready.flip()


def test_a_partial_backfill_does_not_count(start_proxy: StartProxy, server_62: Server, server_91: Server) -> None:
    preload(server_62, 100)
    proxy = start_proxy(server_62, server_91)
    assert proxy.cli("backfill", "--match", "pre:1*", "--json").json["complete"] is False
    assert "crossfade backfill" in reasons(proxy, "--skip-verify")


def test_the_target_is_down(start_server: Callable[..., Server], start_proxy: StartProxy, server_62: Server) -> None:
    target = start_server("valkey-9.1")
    proxy = start_proxy(server_62, target)
    proxy.backfill()
    proxy.verify()
    target.kill()
    until(lambda: not proxy.status()["mirror"]["connected"], "noticed")
    told = reasons(proxy)
    assert "target" in told and "not connected" in told
    assert reasons(proxy, "--force", "--yes"), "nobody can be served from there"
    assert proxy.client().set("k", "v")


def test_a_command_that_cannot_be_mirrored(
    start_server: Callable[..., Server], start_proxy: StartProxy, server_91: Server
) -> None:
    """A write of which nobody knows what it wrote: here, FLUSHALL by a name that only this server has. (With the watch
    the flush is seen, and a backfill begins by itself.)"""
    source = start_server("redis-6.2", config={"rename-command FLUSHALL": "SECRETFLUSH"})
    proxy = start_proxy(source, server_91, "--no-watch")
    proxy.backfill()
    proxy.verify()
    client = proxy.client()
    client.set("k", "v")
    client.execute_command("SECRETFLUSH")
    client.set("after", "v")
    assert "SECRETFLUSH" in reasons(proxy, "--skip-verify")
    assert proxy.status()["unmirrored"] == 1
    assert "SECRETFLUSH" in str(proxy.status()["unmirrored_commands"])
    proxy.backfill()  # what the reason says to do
    proxy.verify()
    assert_equal_servers(source, server_91)
    proxy.flip()


def test_a_script_that_only_the_source_knows(ready: RunningProxy, server_62: Server, server_91: Server) -> None:
    digest = server_62.call("SCRIPT", "LOAD", "return redis.call('INCR', KEYS[1])").decode()
    client = ready.client()
    assert client.evalsha(digest, 1, "n") == 1
    ready.wait_settled()
    told = reasons(ready)
    assert digest in told and "SCRIPT LOAD" in told
    client.script_load("return redis.call('INCR', KEYS[1])")
    ready.wait_settled()
    ready.flip()
    assert client.evalsha(digest, 1, "n") == 2


@pytest.mark.parametrize("how", ["load", "eval", "loaded in a transaction"])
def test_scripts_are_known_after_the_flip(ready: RunningProxy, how: str) -> None:
    body = f"return redis.call('INCR', KEYS[1]) -- {how}"
    client = ready.client()
    if how == "eval":
        client.eval(body, 1, "n")
        digest = hashlib.sha1(body.encode()).hexdigest()
    elif how == "load":
        digest = client.script_load(body)
    else:
        with client.pipeline() as pipeline:
            pipeline.script_load(body)
            (digest,) = pipeline.execute()
    ready.wait_settled()
    ready.flip()
    assert client.evalsha(digest, 1, "n") > 0


def test_a_value_that_the_target_cannot_take(ready: RunningProxy, server_91: Server) -> None:
    server_91.call("CONFIG", "SET", "proto-max-bulk-len", "1mb")
    client = ready.client()
    client.set("monster", Random(1).randbytes(2_000_000))  # nothing that DUMP could compress
    client.set("small", "1")
    told = until(lambda: "monster" in (text := "\n".join(ready.admin("FLIP", "DRY-RUN")["reasons"])) and text, "named")
    assert "cannot be copied" in told
    assert ready.status()["phase"] == "converging"
    server_91.call("CONFIG", "SET", "proto-max-bulk-len", "512mb")
    ready.wait_settled()
    ready.verify()
    ready.flip()
    assert client.strlen("monster") == 2_000_000


# --- ways to flip, and not to ---


def test_a_dry_run(ready: RunningProxy, server_62: Server) -> None:
    with Traffic(ready, clients=4, rate=500) as traffic:
        traffic.wait_for(100)
        for _ in range(3):
            outcome = ready.cli("flip", "--dry-run", "--json").done().json
            assert (outcome["flipped"], outcome["serving"], outcome["epoch"], outcome["reasons"]) == (
                False,
                "source",
                0,
                [],
            )
        assert "would go through" in ready.cli("flip", "--dry-run").done().out
        traffic.wait_for(100)
    traffic.assert_clean()
    assert ready.status()["flips"] == [] and ready.status()["serving"] == "source"
    server_62.call("SET", "directly", "1")
    assert ready.client().get("directly") == b"1", "the source serves"


@pytest.mark.parametrize("busy", [True, False], ids=["a write in flight", "idle"])
def test_not_within_max_pause(ready: RunningProxy, server_62: Server, server_91: Server, busy: bool) -> None:
    """A target that hangs: given up after the pause, everybody is served by the source as before, nothing is lost."""
    client = ready.client()
    server_91.pause()
    try:
        if busy:
            client.incr("n")
        outcome = ready.admin("FLIP", "MAX-PAUSE", "200")
        assert not outcome["flipped"] and outcome["reasons"], "flipped to a server that does not answer"
        assert client.incr("n") == (2 if busy else 1)
        status = ready.status()
        assert (status["serving"], status["epoch"], status["flips"]) == ("source", 0, [])
        assert json.loads((ready.state_dir / "state.json").read_text())["serving"] == "source"
    finally:
        server_91.resume()
    ready.wait_settled()
    assert_equal_servers(server_62, server_91)
    ready.flip()
    assert client.incr("n") == (3 if busy else 2)


def test_the_source_hangs_in_the_middle(ready: RunningProxy, server_62: Server) -> None:
    """Replies are awaited from the source that do not come: given up; they come later."""
    with Talk(ready) as client:
        server_62.pause()
        try:
            client.send("INCR n")
            until(lambda: ready.status()["lane"]["pending"], "in flight")
            outcome = ready.admin("FLIP", "MAX-PAUSE", "200")
            assert not outcome["flipped"] and "source" in "\n".join(outcome["reasons"])
        finally:
            server_62.resume()
        assert client.hear() == 1
    ready.flip()


def test_force(start_proxy: StartProxy, server_62: Server, server_91: Server) -> None:
    """It says what may be lost, and asks."""
    preload(server_62, 100)
    proxy = start_proxy(server_62, server_91)
    asked = run_crossfade("flip", "--force", "--state-dir", str(proxy.state_dir), stdin="n\n")
    assert asked.code not in (0, 4) and "lost" in asked.err and "Traceback" not in asked.err
    assert proxy.status()["serving"] == "source"
    outcome = proxy.flip("--force", "--yes")
    assert (outcome["flipped"], outcome["serving"], outcome["epoch"]) == (True, "target", 1)


def test_two_at_a_time(ready: RunningProxy, server_91: Server) -> None:
    """One of them is told so; which one is all the same."""

    def one(_: int) -> str:
        try:
            return str(ready.admin("FLIP", "MAX-PAUSE", "300"))
        except AdminError as told:
            return str(told)

    server_91.pause()
    try:
        ready.client().incr("n")
        with ThreadPoolExecutor() as pool:
            outcomes = list(pool.map(one, range(2)))
    finally:
        server_91.resume()
    assert sum("under way" in outcome for outcome in outcomes) == 1, outcomes
    assert sum("'flipped': False" in outcome for outcome in outcomes) == 1, outcomes
    ready.wait_settled()
    ready.flip()


def test_the_side_that_serves_is_durable(ready: RunningProxy, server_62: Server, server_91: Server) -> None:
    ready.flip()
    for stop in (ready.stop, ready.kill):
        stop()
        server_91.call("INCR", "directly on the target")
        ready.start()
        status = ready.status()
        assert (status["serving"], status["epoch"]) == ("target", 1)
        assert int(ready.client().get("directly on the target") or 0) > 0
    ready.client().set("k", "v")
    until(lambda: server_62.call("GET", "k") == b"v", "the source is kept up to date")
    ready.backfill()  # needed after the kill, and after what was written directly
    ready.verify()
    assert ready.flip()["epoch"] == 2
    ready.restart()
    assert (ready.status()["serving"], ready.status()["epoch"]) == ("source", 2)
    assert_equal_servers(server_62, server_91)


@pytest.mark.slow
def test_there_and_back_many_times(ready: RunningProxy, server_62: Server, server_91: Server) -> None:
    with Traffic(ready, clients=16, rate=1000, seed=11) as traffic:
        for number in range(8):
            traffic.wait_for(100)
            assert ready.flip("--skip-verify")["epoch"] == number + 1
        traffic.wait_for(100)
    traffic.assert_clean()
    ready.wait_settled()
    ready.verify()
    assert_equal_servers(server_62, server_91)


def test_the_wait_of_the_clients_is_what_is_reported(ready: RunningProxy) -> None:
    with Traffic(ready, clients=8, rate=500, seed=3, without=("blocking", "checked", "scripts")) as traffic:
        traffic.wait_for(200)
        outcome = ready.flip("--skip-verify")
        traffic.wait_for(200)
    traffic.assert_clean()
    assert 0 < outcome["drain_ms"] <= outcome["pause_ms"] < 1000
    assert ready.status()["flips"][0]["pause_ms"] == outcome["pause_ms"]
    assert f"pause {outcome['pause_ms']:.1f} ms" in ready.cli("status").out


# --- clients ride through ---


@pytest.fixture
def flip(ready: RunningProxy) -> Callable[[], None]:
    """One flip; it must go through."""

    def run() -> None:
        outcome = ready.admin("FLIP", "SKIP-VERIFY")
        assert outcome["flipped"], outcome

    return run


Flip = Callable[[], None]


@pytest.mark.parametrize("resp", [2, 3])
def test_a_connections_state(ready: RunningProxy, flip: Flip, resp: int) -> None:
    """Its db, protocol and name; and that it is served by the other side."""
    with Talk(ready) as client:
        client.ask(f"HELLO {resp}", "SELECT 5", "CLIENT SETNAME me", "HSET h f v")
        for _ in range(3):
            flip()
            wanted = {b"f": b"v"} if resp == 3 else [b"f", b"v"]
            assert client.ask("HGETALL h", "CLIENT GETNAME") == [wanted, b"me"]
        assert client.ask("CLIENT INFO").split(b" db=")[1].split()[0] == b"5"


def test_subscribers(ready: RunningProxy, flip: Flip) -> None:
    """No message twice, none lost, in order; by channel and by pattern, in both protocols."""
    published = 0
    with Talk(ready) as two, Talk(ready) as three, Talk(ready) as pattern, Talk(ready) as publisher:
        two.ask("SUBSCRIBE news")
        three.ask("HELLO 3")
        three.ask("SUBSCRIBE news")
        pattern.ask("PSUBSCRIBE n*")
        for _ in range(4):
            for _ in range(50):
                publisher.send(f"PUBLISH news {published}")
                published += 1
            flip()
        for _ in range(50):
            publisher.send(f"PUBLISH news {published}")
            published += 1
        assert [publisher.hear() for _ in range(published)] == [3] * published
        wanted = [b"%d" % number for number in range(published)]
        for client in (two, three, pattern):
            assert [client.hear()[-1] for _ in range(published)] == wanted
        assert two.ask("UNSUBSCRIBE news")[-1] == 0
        assert two.ask("PING") == b"PONG"
        assert three.ask("GET nothing") is None, "RESP3: other commands on the same connection"


def test_messages_in_the_middle_of_flips(ready: RunningProxy) -> None:
    """As above, with somebody who publishes all the time."""
    with Talk(ready) as subscriber, Talk(ready) as publisher, ThreadPoolExecutor() as pool:
        subscriber.ask("SUBSCRIBE news")
        flips = pool.submit(lambda: [ready.admin("FLIP", "SKIP-VERIFY")["flipped"] for _ in range(6)])
        published = 0
        receivers = []
        while not flips.done() or published < 200:
            receivers.append(publisher.ask(f"PUBLISH news {published}"))
            published += 1
        assert flips.result() == [True] * 6
        assert set(receivers) == {1}
        assert [int(subscriber.hear()[2]) for _ in range(published)] == list(range(published))


@pytest.mark.parametrize(
    ("command", "serve", "answer"),
    [
        ("BLPOP nothing queue 0", "RPUSH queue a", [b"queue", b"a"]),
        ("BRPOP queue 30", "LPUSH queue a", [b"queue", b"a"]),
        ("BLMOVE queue other LEFT RIGHT 0", "RPUSH queue a", b"a"),
        ("BRPOPLPUSH queue other 0", "RPUSH queue a", b"a"),
        ("BZPOPMIN zqueue 0", "ZADD zqueue 1 a", [b"zqueue", b"a", b"1"]),
        ("XREAD BLOCK 0 STREAMS stream $", "XADD stream 2-1 f v", [[b"stream", [[b"2-1", [b"f", b"v"]]]]]),
        (
            "XREADGROUP GROUP g c BLOCK 0 STREAMS grouped >",
            "XADD grouped 2-1 f v",
            [[b"grouped", [[b"2-1", [b"f", b"v"]]]]],
        ),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_blocked_clients(
    ready: RunningProxy, flip: Flip, server_62: Server, server_91: Server, command: str, serve: str, answer: Any
) -> None:
    """They go on waiting, and are served by what is written after the flip; there and, after another one, back."""
    with Talk(ready) as waiting, Talk(ready) as client:
        client.ask("XADD stream 1-1 before x", "XGROUP CREATE grouped g $ MKSTREAM")
        for _ in range(2):
            waiting.send(command)
            until(lambda: ready.status()["waiting"] == 1, "it waits")
            flip()
            assert ready.status()["waiting"] == 1
            assert client.ask(serve) is not None
            assert waiting.hear() == answer
            client.ask("DEL other", "XTRIM stream MAXLEN 0", "XTRIM grouped MAXLEN 0")
            serve, answer = (
                (serve.replace("2-1", "3-1"), [[answer[0][0], [[b"3-1", [b"f", b"v"]]]]])
                if "2-1" in serve
                else (serve, answer)
            )
    ready.wait_settled()
    assert_equal_servers(server_62, server_91)


def test_a_blocked_clients_timeout_goes_on(ready: RunningProxy, flip: Flip) -> None:
    with Talk(ready) as waiting:
        waiting.send("BLPOP nothing 0.5")
        until(lambda: ready.status()["waiting"] == 1, "it waits")
        flip()
        assert waiting.hear() is None


def test_paused_clients(ready: RunningProxy, flip: Flip, server_62: Server, server_91: Server) -> None:
    """CLIENT PAUSE lasts through a flip; the writes that waited are the other side's."""
    with Talk(ready) as operator, Talk(ready) as writer, Talk(ready) as blocked:
        blocked.send("BLPOP waited-for 30")
        assert operator.ask("CLIENT PAUSE 60000 WRITE") == b"OK"
        writer.send("GET before", "RPUSH waited-for x", "SET after 1")
        assert writer.hear() is None
        flip()
        assert operator.ask("GET before", "EXISTS waited-for after") == [None, 0]
        assert operator.ask("CLIENT UNPAUSE") == b"OK"
        assert [writer.hear(), writer.hear(), blocked.hear()] == [1, b"OK", [b"waited-for", b"x"]]
    ready.wait_settled()
    assert server_91.client().get("after") == b"1"
    assert_equal_servers(server_62, server_91)


def test_an_open_multi(ready: RunningProxy, flip: Flip, server_62: Server, server_91: Server) -> None:
    with Talk(ready) as client, Talk(ready) as other:
        client.ask("SET n 5")
        for times in range(2):
            assert client.ask("MULTI") == b"OK"
            assert client.ask("INCR n", "SELECT 2", "SET in-two 1") == [b"QUEUED"] * 3
            flip()
            assert other.ask("INCR n") == 6 + 3 * times
            assert client.ask("SELECT 0") == b"QUEUED"
            assert client.ask("INCR n") == b"QUEUED"
            assert client.ask("EXEC") == [7 + 3 * times, b"OK", b"OK", b"OK", 8 + 3 * times]
            assert client.ask("GET n") == b"%d" % (8 + 3 * times)
    ready.wait_settled()
    assert_equal_servers(server_62, server_91)


def test_an_open_multi_that_is_broken_already(ready: RunningProxy, flip: Flip) -> None:
    with Talk(ready) as client:
        client.ask("MULTI", "SET never 1")
        assert "unknown command" in client.ask("NOSUCHCOMMAND")
        flip()
        assert client.ask("EXEC").startswith("EXECABORT"), "what was broken before the flip is broken after it"
        assert client.ask("GET never") is None
        client.ask("MULTI", "SET never 1")
        flip()
        assert client.ask("DISCARD", "GET never") == [b"OK", None]


@pytest.mark.parametrize("when", ["before MULTI", "before EXEC"])
def test_a_watch(ready: RunningProxy, flip: Flip, when: str) -> None:
    """What happened in between cannot be known, so the transaction must not happen: nil, and the client tries again."""
    with Talk(ready) as client:
        for _ in range(2):
            client.ask("SET k 1", "WATCH k")
            if when == "before MULTI":
                flip()
            client.ask("MULTI", "SET k 2")
            if when == "before EXEC":
                flip()
            assert client.ask("EXEC") is None
            assert client.ask("GET k") == b"1"
            client.ask("WATCH k")
            assert client.ask("MULTI", "SET k 3", "EXEC")[-1] == [b"OK"], "the next one is as good as new"
            client.ask("WATCH k")
            flip()
            client.ask("UNWATCH")
            assert client.ask("MULTI", "SET k 4", "EXEC")[-1] == [b"OK"], "nothing is watched any more"


def test_client_side_caches(start_proxy: StartProxy, server_82: Server, server_91: Server) -> None:
    """Nothing may be answered from a cache that nobody keeps fresh any more."""
    proxy = start_proxy(server_82, server_91)
    proxy.backfill()
    proxy.verify()
    cached = proxy.client(protocol=3, cache_config=CacheConfig(), single_connection_client=True)
    with cached, proxy.client() as other:
        for number in range(3):
            other.set("k", number)
            until(partial(reads, cached, b"%d" % number), "the first reading")
            assert proxy.admin("FLIP", "SKIP-VERIFY")["flipped"]
            other.set("k", f"{number} after")
            until(partial(reads, cached, b"%d after" % number), "the invalidation")


def reads(client: redis.Redis, value: bytes) -> bool:
    return bool(client.get("k") == value)


def test_a_scan_in_the_middle(ready: RunningProxy, flip: Flip) -> None:
    """A cursor means nothing to the other server; all the same every key that is there all the time must be found."""
    client = ready.client()
    client.mset({f"scanned:{number}": number for number in range(3000)})
    cursor, found = client.scan(0, count=300)
    seen = set(found)
    flip()
    while cursor:
        cursor, found = client.scan(cursor, count=300)
        seen.update(found)
    missing = {b"scanned:%d" % number for number in range(3000)} - seen
    assert not missing, f"{len(missing)} keys were skipped"


def test_a_deep_pipeline(ready: RunningProxy, server_62: Server, server_91: Server) -> None:
    """Flips fall into the middle of pipelines that are far longer than one read."""
    client = ready.client()
    with ThreadPoolExecutor() as pool:
        flips = pool.submit(lambda: [ready.admin("FLIP", "SKIP-VERIFY")["flipped"] for _ in range(4)])
        total = 0
        while not flips.done():
            with client.pipeline(transaction=False) as pipeline:
                for _ in range(3000):
                    pipeline.incr("n")
                assert pipeline.execute() == list(range(total + 1, total + 3001))
            total += 3000
        assert flips.result() == [True] * 4
    ready.wait_settled()
    assert server_62.call("GET", "n") == server_91.call("GET", "n") == b"%d" % total


def test_monitor(ready: RunningProxy, flip: Flip) -> None:
    with Talk(ready) as watching, Talk(ready) as client:
        assert watching.ask("MONITOR") == b"OK"
        flip()
        client.ask("SET seen-after-the-flip 1")
        until(lambda: b"seen-after-the-flip" in watching.hear(), "the command")
