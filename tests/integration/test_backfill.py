"""The backfill as a job: cut short and going on, of some keys only, held to a pace, with the libraries of functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from resp.slots import key_slot
from tests.equality import assert_equal_servers
from tests.integration.outage_rig import Rig, rigs
from tests.proxies import AdminError, RunningProxy, until
from tests.servers import Pool, Server
from tests.traffic import Traffic, preload

StartProxy = Callable[..., RunningProxy]
MakeRig = Callable[..., Rig]
KEYS = 6000
CHECKPOINT = "backfill.json"


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    yield from rigs()


def until_status(proxy: RunningProxy, condition: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
    def looked() -> dict[str, Any] | None:
        now: dict[str, Any] = proxy.status()
        return now if condition(now) else None

    return dict(until(looked, what, 40))


def backfill(proxy: RunningProxy, *options: str) -> dict[str, Any]:
    """On the admin socket, to its end: its status."""
    proxy.admin("BACKFILL", *options)
    found: dict[str, Any] = until_status(proxy, lambda now: now["backfill"]["state"] != "running", "its end")[
        "backfill"
    ]
    return found


def in_the_middle(proxy: RunningProxy, *options: str) -> None:
    """Until a backfill has a checkpoint, and is far from its end."""
    proxy.admin("BACKFILL", "RATE", "700", *options)
    checkpoint = proxy.state_dir / CHECKPOINT
    until_status(proxy, lambda now: checkpoint.exists() and now["backfill"]["scanned"] > 1200, "a checkpoint")
    assert proxy.status()["backfill"]["state"] == "running"


def ended(proxy: RunningProxy) -> dict[str, Any]:
    status = until_status(proxy, lambda now: now["phase"] != "filling" and not now["dirty"], "the end of the backfill")
    found: dict[str, Any] = status["backfill"]
    assert (found["state"], found["complete"], found["failed"]) == ("done", True, 0)
    assert not (proxy.state_dir / CHECKPOINT).exists()
    return found


@pytest.mark.parametrize("cut", ["kill", pytest.param("restart", marks=pytest.mark.slow)])
def test_goes_on_after_the_proxy_was_cut_short(server_pool: Pool, start_proxy: StartProxy, cut: str) -> None:
    """By itself, from where it was; what was written meanwhile is there, too."""
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    preload(a, KEYS, seed=7, short_ttls=False)
    proxy = start_proxy(a, b)
    with Traffic(proxy, clients=4, rate=300.0, seed=7, tolerate_disconnects=True) as traffic:
        in_the_middle(proxy)
        if cut == "kill":
            proxy.kill()
        else:
            proxy.stop()
        proxy.start()
        traffic.wait_for(100)
    found = ended(proxy)
    assert 500 < found["resumed"] < found["copied"]
    proxy.wait_settled()
    assert_equal_servers(a, b)


@pytest.mark.slow
def test_begins_again_when_the_source_is_another_process(server_pool: Pool, start_proxy: StartProxy) -> None:
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    preload(a, KEYS, seed=8, short_ttls=False)
    proxy = start_proxy(a, b)
    in_the_middle(proxy)
    checkpoint = proxy.state_dir / CHECKPOINT
    proxy.kill()
    left = json.loads(checkpoint.read_text())
    left["run_ids"][0] = "another process"
    checkpoint.write_text(json.dumps(left))
    proxy.start()
    assert ended(proxy)["resumed"] == 0
    assert_equal_servers(a, b)


def test_what_was_not_settled_when_the_proxy_was_killed_is_copied_again(make_rig: MakeRig) -> None:
    """A key before the checkpoint is not found again. Its write never reached the target: the journal knows it."""
    rig = make_rig(keys=KEYS, fill=False)
    in_the_middle(rig.proxy)
    _, first_page = rig.source.client().scan(0, count=500)
    keys = [key for key in first_page if rig.source.call("TYPE", key) == b"string"][:20]
    rig.to_target.stop()
    for key in keys:
        rig.proxy.client().set(key, "written after it was copied")
    rig.proxy.kill()
    rig.to_target.cut()
    rig.to_target.heal()
    rig.proxy.start()
    assert ended(rig.proxy)["resumed"] > 500
    assert all(rig.target.call("GET", key) == b"written after it was copied" for key in keys)
    rig.assert_equal()


def test_swapped_dbs_take_the_checkpoint_with_them(server_pool: Pool, start_proxy: StartProxy) -> None:
    """What is behind the cursor in one db is in another one now: killed right after, it begins again."""
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    preload(a, KEYS, seed=9, short_ttls=False)
    proxy = start_proxy(a, b)
    in_the_middle(proxy)
    proxy.client().swapdb(0, 1)
    proxy.kill()
    assert not (proxy.state_dir / CHECKPOINT).exists()
    proxy.start()
    assert ended(proxy)["resumed"] == 0
    proxy.wait_settled()
    assert_equal_servers(a, b)


@pytest.mark.slow
def test_the_same_command_follows_the_backfill_that_runs(server_pool: Pool, start_proxy: StartProxy) -> None:
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    preload(a, KEYS, seed=10, short_ttls=False)
    proxy = start_proxy(a, b)
    in_the_middle(proxy)
    with pytest.raises(AdminError, match="a backfill of other keys is running"):
        proxy.admin("BACKFILL", "MATCH", "x*")
    found = proxy.backfill()  # the command of the CLI
    assert found["copied"] > KEYS * 0.9
    assert_equal_servers(a, b)


# -- some keys only ----------------------------------------------------------------------------------------------------


def some_keys(server: Server) -> None:
    one, two = server.client(0), server.client(2)
    one.mset({"user:1": "a", "user:2": "b", "session:1": "c", "{tag}x": "d"})
    one.hset("user:3", "f", "v")
    one.sadd("user:set", "m")
    two.set("user:two", "x")


SELECTIONS: list[tuple[list[str], set[str]]] = [
    (["--match", "user:*"], {"user:1", "user:2", "user:3", "user:set", "2/user:two"}),
    (["--match", "user:[12]", "--match", "s*"], {"user:1", "user:2", "session:1"}),
    (["--exclude", "user:*", "--exclude", "{*"], {"session:1"}),
    (["--type", "hash"], {"user:3"}),
    (["--type", "hash", "--type", "set"], {"user:3", "user:set"}),
    (["--db", "2"], {"2/user:two"}),
    (["--slots", f"{key_slot(b'tag')}-{key_slot(b'tag')}"], {"{tag}x"}),
    (["--match", "user:*", "--exclude", "*2", "--type", "string", "--db", "0"], {"user:1"}),
]


def test_some_keys_only(server_pool: Pool, start_proxy: StartProxy) -> None:
    """They are copied, and the phase stays what it is: the others are not known to be equal."""
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    some_keys(a)
    proxy = start_proxy(a, b)
    for options, expected in SELECTIONS:
        b.client().flushall()
        found = backfill(proxy, *(word.removeprefix("--").upper() if "--" in word else word for word in options))
        there = {name + key.decode() for db, name in ((0, ""), (2, "2/")) for key in b.client(db).scan_iter()}
        assert there == expected, options
        assert (found["state"], found["complete"], found["copied"]) == ("done", False, len(expected)), options
        assert found["selection"] == " ".join(options)
        assert proxy.status()["phase"] == "filling"
        (reason,) = (why for why in proxy.admin("FLIP")["reasons"] if "backfill" in why)
        assert reason.startswith("the backfill is not complete")
    text = proxy.cli("backfill", "--match", "user:*").done().out
    assert "only keys of --match user:*: the phase stays what it was" in text
    a.call("SET", b"\xff1", "a name that is no text")
    assert proxy.cli("backfill", "--match", "\udcff*", "--bandwidth", "20MB").done().out.startswith("1 keys copied")
    assert b.call("GET", b"\xff1") == b"a name that is no text"
    proxy.backfill()
    assert proxy.status()["phase"] == "in-sync"
    assert_equal_servers(a, b)


def test_bad_selections(server_pool: Pool, start_proxy: StartProxy) -> None:
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    proxy = start_proxy(a, b)
    for options, text in (
        ("SLOTS x-5", "not a range of slots"),
        ("SLOTS 0-16384", "slots go from 0 to 16383"),
        ("SLOTS 9-3", "the first before the last"),
        ("TYPE nosuch", "no such type: nosuch"),
        ("DB -1", "DB wants a number from 0 up"),
        ("MATCH", "MATCH wants a value"),
        ("BANDWIDTH -1", "BANDWIDTH wants a number from 0 up"),
        ("NOSUCH", "unknown option NOSUCH"),
    ):
        with pytest.raises(AdminError, match=text):
            proxy.admin("BACKFILL", *options.split())
    with pytest.raises(AdminError, match=r"unknown option \\udcff"):
        proxy.admin("BACKFILL", b"\xff")
    wrong = proxy.cli("backfill", "--slots", "x-5")
    assert (wrong.code, wrong.err) == (2, "crossfade: 'x-5' is not a range of slots: write 0-5460\n")
    wrong = proxy.cli("backfill", "--bandwidth", "50 megabytes")
    assert wrong.code == 2 and "write 500KB, 20MB or 1GB" in wrong.err


@pytest.mark.slow
def test_a_bandwidth_is_not_exceeded(server_pool: Pool, start_proxy: StartProxy) -> None:
    """Small keys and pages of big ones count alike."""
    a, b = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    a.client().mset({f"key:{number}": "x" * 1000 for number in range(2000)})
    a.client().set("big", "y" * 3_000_000)
    proxy = start_proxy(a, b)
    found = backfill(proxy, "BANDWIDTH", "4e6")
    assert found["bytes"] > 5_000_000
    assert found["seconds"] >= (found["bytes"] - 1_000_000) / 4e6
    assert_equal_servers(a, b)


# -- functions ---------------------------------------------------------------------------------------------------------

LIBRARY = "#!lua name=lib\nredis.register_function('f', function(keys, args) return 'here' end)"


@pytest.mark.parametrize(
    ("source", "target"), [("redis-7.0", "redis-8.2"), pytest.param("redis-8.2", "redis-7.0", marks=pytest.mark.slow)]
)
def test_libraries_of_functions_are_copied(
    server_pool: Pool, start_proxy: StartProxy, source: str, target: str
) -> None:
    a, b = server_pool.get(source), server_pool.get(target)
    a.call("FUNCTION", "LOAD", LIBRARY)
    b.call("FUNCTION", "LOAD", LIBRARY.replace("lib", "old").replace("'f'", "'g'"))
    try:
        proxy = start_proxy(a, b, "--allow-non-empty")
        backfill(proxy)
        assert b.call("FCALL", "f", "0") == b"here"
        with pytest.raises(redis.ResponseError):
            b.call("FCALL", "g", "0")
        assert not proxy.status()["problems"]
    finally:
        for server in (a, b):
            server.call("FUNCTION", "FLUSH")


def test_libraries_that_the_target_cannot_take_close_the_gate(server_pool: Pool, start_proxy: StartProxy) -> None:
    a, b = server_pool.get("redis-7.0"), server_pool.get("redis-6.2")
    a.call("FUNCTION", "LOAD", LIBRARY)
    try:
        proxy = start_proxy(a, b)
        backfill(proxy)
        problems = "\n".join(proxy.status()["problems"])
        assert "libraries of functions that the target does not take: lib (there are no functions)" in problems
        assert any("libraries of functions" in reason for reason in proxy.admin("FLIP")["reasons"])
    finally:
        a.call("FUNCTION", "FLUSH")
