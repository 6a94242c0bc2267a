"""The serving side fails: what clients see is what the design's failure table says, and nothing acknowledged is lost.

A client with a write in flight is disconnected, as its server would; reads are asked again; commands that come
meanwhile wait, up to a limit, and then get an error that says so. No write is done twice.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import pytest
import redis

from tests.equality import assert_equal_servers
from tests.integration.outage_rig import Rig, rigs
from tests.proxies import until
from tests.relay import Way
from tests.servers import Server
from tests.traffic.connection import pack

MakeRig = Callable[..., Rig]
TIMEOUT_S = 30.0


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    yield from rigs()


class Raw:
    """A client that sends now and reads later."""

    def __init__(self, rig: Rig) -> None:
        self.sock = socket.create_connection((rig.proxy.host, rig.proxy.port), TIMEOUT_S)
        self.reader = hiredis.Reader()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *command: Any) -> Raw:
        self.sock.sendall(pack([command]))
        return self

    def reply(self) -> Any:
        """A reply, or "closed"."""
        while (reply := self.reader.gets()) is False:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return "closed"
            if not data:
                return "closed"
            self.reader.feed(data)
        return reply

    def ask(self, *command: Any) -> Any:
        return self.send(*command).reply()


def pending(rig: Rig, count: int) -> None:
    rig.until(lambda now: now["lane"]["pending"] >= count, f"{count} commands in flight")


def lose(rig: Rig) -> None:
    """The connections are reset, and can be made again."""
    rig.to_source.cut()
    rig.to_source.heal()


# -- the connection is lost with commands in flight ------------------------------------------------------------------


def test_reads_are_asked_again(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.source.call("SET", "there", "value")
    with Raw(rig) as one, Raw(rig) as two, Raw(rig) as three:
        assert two.ask("SELECT", 1) == b"OK" and three.ask("HELLO", 3)
        rig.to_source.stop_these()
        one.send("GET", "there").send("STRLEN", "there")
        two.send("GET", "there")
        three.send("HGETALL", "nothing")
        pending(rig, 4)
        lose(rig)
        assert (one.reply(), one.reply()) == (b"value", 5)
        assert two.reply() is None  # in its own db
        assert three.reply() == {}  # in its own protocol
        assert one.ask("PING") == b"PONG"


@pytest.mark.parametrize(
    "write",
    [
        [("INCR", "counter")],
        [("MULTI",), ("INCR", "counter"), ("EXEC",)],
        [("EVAL", "return redis.call('INCR', KEYS[1])", 1, "counter")],
        [("GET", "counter"), ("INCR", "counter")],
    ],
    ids=["single", "block", "script", "behind a read"],
)
@pytest.mark.parametrize("way", Way)
def test_a_write_in_flight_costs_the_connection_and_is_not_repeated(
    make_rig: MakeRig, write: list[tuple[Any, ...]], way: Way
) -> None:
    """Whether it was executed (its reply was under way) or not (it never arrived)."""
    rig = make_rig()
    with Raw(rig) as writer, Raw(rig) as idle:
        assert writer.ask("SET", "counter", 5) == b"OK"
        assert idle.ask("PING") == b"PONG"
        rig.to_source.stop_these(way)
        writer.sock.sendall(pack(write))
        pending(rig, 1)
        if way is Way.TO_CLIENT:
            until(lambda: rig.source.call("GET", "counter") == b"6", "the write")
        lose(rig)
        assert writer.reply() == "closed"
        assert idle.ask("PING") == b"PONG"  # who had nothing in flight notices nothing
        assert idle.ask("GET", "counter") == (b"6" if way is Way.TO_CLIENT else b"5")
    rig.assert_recovered()


def test_a_transaction_on_a_connection_of_its_own(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Raw(rig) as writer, Raw(rig) as other:
        assert writer.ask("WATCH", "k") == b"OK"
        assert writer.ask("MULTI") == b"OK" and writer.ask("INCR", "k") == b"QUEUED"
        rig.to_source.stop_these(Way.TO_CLIENT)
        writer.send("EXEC")
        until(lambda: rig.source.call("GET", "k") == b"1", "the EXEC")
        lose(rig)
        assert writer.reply() == "closed"
        assert other.ask("GET", "k") == b"1"
    rig.assert_recovered()


def test_who_waits_goes_on_waiting(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Raw(rig) as waiter, Raw(rig) as pusher:
        waiter.send("BLPOP", "queue", 0)
        rig.until(lambda now: now["waiting"] == 1 and not now["lane"]["pending"], "a waiter")
        lose(rig)
        assert pusher.ask("RPUSH", "queue", "job") == 1
        assert waiter.reply() == [b"queue", b"job"]
    rig.assert_recovered()


@pytest.mark.parametrize("cuts", [10])
@pytest.mark.slow
def test_again_and_again_under_load(make_rig: MakeRig, cuts: int) -> None:
    rig = make_rig()
    with rig.promises() as promises:
        for _ in range(cuts):
            promises.wait_for(30)
            lose(rig)
    assert promises.disconnects and not promises.errors, promises
    promises.check(rig.source)
    rig.assert_recovered()


@pytest.mark.slow
def test_hostile_traffic_over_a_line_that_is_lost_again_and_again(make_rig: MakeRig) -> None:
    rig = make_rig()
    with rig.traffic(tolerate_disconnects=True) as traffic:
        for _ in range(8):
            traffic.wait_for(100)
            lose(rig)
    traffic.assert_clean()
    assert traffic.statistics().disconnects
    rig.assert_recovered()


@pytest.mark.slow
def test_a_lane_that_is_dead_while_the_server_lives_is_given_up(make_rig: MakeRig) -> None:
    """A firewall that has forgotten the connection: nobody will ever close it. New connections work."""
    rig = make_rig()
    with Raw(rig) as reader, Raw(rig) as writer:
        assert reader.ask("PING") == writer.ask("PING") == b"PONG"
        rig.to_source.stop_these()
        reader.send("GET", "pre:1")
        writer.send("INCR", "counter")
        pending(rig, 2)
        assert writer.reply() == "closed"
        assert reader.reply() != "closed"
    rig.assert_recovered()


# -- the server restarts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["crash", "shutdown"])
@pytest.mark.slow
def test_a_restart_under_load(make_rig: MakeRig, how: str) -> None:
    """What was acknowledged is there, as its file has it; nothing was done twice."""
    rig = make_rig()
    with rig.promises() as promises, Raw(rig) as idle:
        for _ in range(3):
            promises.wait_for(100)
            if how == "crash":
                rig.source.kill()
                rig.source.start()
            else:
                rig.source.restart()
        promises.wait_for(100)
        assert idle.ask("PING") == b"PONG"
    assert set(promises.errors) <= {"LOADING Redis is loading the dataset in memory"}, promises
    promises.check(rig.source)
    rig.assert_recovered()
    promises.check(rig.target)


def test_scripts_after_a_restart(make_rig: MakeRig) -> None:
    """A server forgets its scripts with its process: NOSCRIPT is its answer, the client's library loads it again."""
    rig = make_rig("redis-7.0")  # an older one has them in its file
    with Raw(rig) as client:
        digest = client.ask("SCRIPT", "LOAD", "return redis.call('INCR', KEYS[1])")
        assert client.ask("EVALSHA", digest, 1, "n") == 1
        rig.source.restart()
        assert str(client.ask("EVALSHA", digest, 1, "n")).startswith("NOSCRIPT")
        assert client.ask("EVAL", "return redis.call('INCR', KEYS[1])", 1, "n") == 2
    rig.proxy.wait_settled()
    # This version's file does not tell what groups have read.
    assert_equal_servers(rig.source, rig.target, stream_counters=False)


@pytest.mark.slow
def test_down_for_longer_than_the_limit(make_rig: MakeRig) -> None:
    """Commands wait at first; then an error says what is the matter, also to a read that was in flight."""
    rig = make_rig()
    with Raw(rig) as before, Raw(rig) as during, Raw(rig) as waiter:
        waiter.send("BLPOP", "queue", 0)
        rig.until(lambda now: now["waiting"] == 1 and not now["lane"]["pending"], "a waiter")
        rig.to_source.stop_these()
        before.sock.sendall(pack([("GET", "pre:1")] * 3))
        pending(rig, 3)
        rig.to_source.refuse()
        rig.to_source.cut()
        during.send("SET", "k", 1)
        for client in (before, before, before, during):
            error = client.reply()
            assert isinstance(error, hiredis.ReplyError), error
            assert "source" in str(error) and "not reachable" in str(error)
        assert isinstance(during.ask("GET", "k"), hiredis.ReplyError)  # at once, from now on
        assert during.ask("PING") is not None and during.ask("CLIENT", "ID")
        status = rig.proxy.status()
        assert not status["lane"]["connected"] and "refused" in status["source"]["problem"]
        assert any("source" in problem for problem in status["problems"]), status["problems"]
        rig.to_source.heal()
        rig.until(lambda now: now["lane"]["connected"], "the lane")
        assert during.ask("RPUSH", "queue", "job") == 1
        assert waiter.reply() == [b"queue", b"job"]
        assert before.ask("GET", "k") is None
    rig.assert_recovered()


def test_a_short_break_costs_no_error(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.to_source.refuse()
    rig.to_source.cut()
    with Raw(rig) as client:
        client.send("SET", "k", 1).send("GET", "k")
        rig.until(lambda now: not now["lane"]["connected"], "a lost lane")
        rig.to_source.heal()
        assert (client.reply(), client.reply()) == (b"OK", b"1")
    rig.assert_recovered()


def test_a_short_break_costs_no_error_on_a_connection_of_its_own(make_rig: MakeRig) -> None:
    """It is made when the server is there again. The lane may not even have noticed."""
    rig = make_rig()
    rig.to_source.refuse()
    with Raw(rig) as client:
        client.send("WATCH", "k").send("MULTI").send("INCR", "k").send("EXEC")
        rig.until(lambda now: now["clients"] == 1, "the client")
        until(lambda: rig.to_source.connections and rig.proxy.admin("PING"), "the proxy")
        rig.to_source.cut()
        rig.until(lambda now: now["source"]["problem"] and not now["lane"]["connected"], "the outage")
        rig.to_source.heal()
        assert [client.reply() for _ in range(4)] == [b"OK", b"OK", b"QUEUED", [1]]
    rig.assert_recovered()


# -- the server answers, but not as it should ------------------------------------------------------------------------


def test_it_is_loading(make_rig: MakeRig) -> None:
    """Its answer is the client's answer, and nothing that it refused is mirrored."""
    rig = make_rig("redis-7.0")
    rig.source.call("CONFIG", "SET", "key-load-delay", "3000")  # µs; 300 keys
    rig.source.call("CONFIG", "SET", "loading-process-events-interval-bytes", "1024")
    loading = threading.Thread(target=rig.source.call, args=("DEBUG", "RELOAD"))
    with rig.promises() as promises:
        promises.wait_for(50)
        loading.start()
        until(lambda: any("LOADING" in error for error in promises.errors), "LOADING")
        loading.join()
        promises.wait_for(50)
    promises.check(rig.source)
    rig.assert_recovered()


def test_a_script_from_elsewhere_keeps_it_busy(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.source.call("CONFIG", "SET", "lua-time-limit", "20")
    script = threading.Thread(target=endless, args=(rig.source,))
    with rig.promises() as promises:
        promises.wait_for(50)
        script.start()
        until(lambda: any("BUSY" in error for error in promises.errors), "BUSY")
        assert rig.proxy.client().script_kill()
        script.join()
        promises.wait_for(50)
    promises.check(rig.source)
    rig.assert_recovered()


def endless(server: Server) -> None:
    with pytest.raises(redis.ResponseError, match="killed"):
        server.call("EVAL", "while true do end", 0)


def test_a_clients_own_endless_script_can_be_killed_through_the_proxy(make_rig: MakeRig) -> None:
    """It stands in the lane before everybody's commands: SCRIPT KILL must find another way."""
    rig = make_rig()
    rig.source.call("CONFIG", "SET", "lua-time-limit", "20")
    with Raw(rig) as culprit, Raw(rig) as victim, Raw(rig) as helper:
        culprit.send("EVAL", "while true do end", 0)
        pending(rig, 1)
        victim.send("INCR", "k")

        def killed() -> bool:
            reply = helper.ask("SCRIPT", "KILL")
            return reply == b"OK"

        until(killed, "SCRIPT KILL")
        assert "killed" in str(culprit.reply())
        assert victim.reply() == 1 or "BUSY" in str(victim.reply())
    rig.assert_recovered()


def test_it_is_out_of_memory(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.source.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    with rig.promises() as promises:
        promises.wait_for(50)
        rig.source.call("CONFIG", "SET", "maxmemory", "1mb")
        until(lambda: promises.errors, "errors")
        rig.source.call("CONFIG", "SET", "maxmemory", "0")
        promises.wait_for(50)
    assert all(error.startswith("OOM") for error in promises.errors), promises
    assert not promises.disconnects
    promises.check(rig.source)
    rig.assert_recovered()


def test_it_is_read_only(make_rig: MakeRig) -> None:
    rig = make_rig()
    with rig.promises() as promises:
        promises.wait_for(50)
        rig.source.call("REPLICAOF", "127.0.0.1", "1")
        until(lambda: promises.errors, "errors")
        rig.source.call("REPLICAOF", "NO", "ONE")
        promises.wait_for(50)
    assert all(error.startswith("READONLY") for error in promises.errors), promises
    assert not promises.disconnects
    promises.check(rig.source)
    rig.assert_recovered()


def test_it_is_paused(make_rig: MakeRig) -> None:
    """Nothing is lost by waiting: clients wait, as with their server."""
    rig = make_rig()
    with rig.promises() as promises:
        promises.wait_for(50)
        rig.source.pause()
        until(lambda: rig.proxy.status()["source"]["problem"], "the control connection is given up")
        rig.source.resume()
        promises.wait_for(50)
    assert not promises.errors, promises
    promises.check(rig.source)
    rig.assert_recovered()


# -- fencing: what was sent on a lost connection must not run later ----------------------------------------------------


def stranded_write(rig: Rig, command: list[tuple[Any, ...]], client: Raw) -> None:
    """The write is held in the relay; the proxy sees its connection reset, and makes another."""
    assert rig.to_source.hold_these(Way.TO_SERVER)
    client.sock.sendall(pack(command))


def test_a_write_stranded_on_the_lane(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Raw(rig) as writer, Raw(rig) as other:
        assert writer.ask("SET", "k", "old") == b"OK"
        stranded_write(rig, [("SET", "k", "late")], writer)
        pending(rig, 1)
        assert rig.to_source.strand() > 0
        rig.to_source.heal()
        assert writer.reply() == "closed"
        assert other.ask("SET", "k", "new") == b"OK"
        rig.proxy.wait_settled()
        rig.to_source.deliver()
        assert rig.source.call("GET", "k") == b"new"
    rig.assert_recovered()


def test_a_transaction_stranded_on_a_connection_of_its_own(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Raw(rig) as writer, Raw(rig) as other:
        assert writer.ask("SET", "k", "old") == b"OK"
        assert writer.ask("WATCH", "w") == b"OK" and writer.ask("MULTI") == b"OK"
        assert writer.ask("SET", "k", "late") == b"QUEUED"
        stranded_write(rig, [("EXEC",)], writer)
        until(lambda: rig.proxy.status()["dirty"], "the key is held")
        assert rig.to_source.strand() > 0
        rig.to_source.heal()
        assert writer.reply() == "closed"
        assert other.ask("SET", "k", "new") == b"OK"
        rig.proxy.wait_settled()
        rig.to_source.deliver()
        assert rig.source.call("GET", "k") == b"new"
    rig.assert_recovered()


def test_a_write_stranded_by_a_proxy_that_was_killed(make_rig: MakeRig) -> None:
    """The next one finds the old connections by their names, before it copies anything."""
    rig = make_rig()
    with Raw(rig) as writer:
        assert writer.ask("SET", "k", "old") == b"OK"
        rig.proxy.wait_settled()
        stranded_write(rig, [("SET", "k", "late")], writer)
        pending(rig, 1)
        rig.proxy.kill()
        assert rig.to_source.strand() > 0
        rig.to_source.heal()
    rig.proxy.start()
    rig.proxy.wait_settled()
    assert rig.proxy.client().get("k") == b"old"
    rig.to_source.deliver()
    assert rig.source.call("GET", "k") == b"old"
    rig.assert_recovered()


def test_an_effect_stranded_on_its_way_to_the_mirror_side(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Raw(rig) as client:
        assert client.ask("SET", "k", "old") == b"OK"
        rig.proxy.wait_settled()
        assert rig.to_target.hold_these(Way.TO_SERVER)
        assert client.ask("SET", "k", "late") == b"OK"
        until(lambda: rig.to_target.held, "an effect under way")
        assert rig.to_target.strand() > 0
        rig.to_target.heal()
        assert client.ask("SET", "k", "new") == b"OK"
        rig.proxy.wait_settled()
        rig.to_target.deliver()
        assert rig.target.call("GET", "k") == b"new"
    rig.assert_recovered()


def test_an_effect_stranded_by_a_proxy_that_was_killed(make_rig: MakeRig) -> None:
    rig = make_rig()
    with Raw(rig) as client:
        assert client.ask("SET", "k", "old") == b"OK"
        rig.proxy.wait_settled()
        assert rig.to_target.hold_these(Way.TO_SERVER)
        assert client.ask("SET", "k", "late") == b"OK"
        until(lambda: rig.to_target.held, "an effect under way")
        rig.proxy.kill()
        assert rig.to_target.strand() > 0
        rig.to_target.heal()
    rig.proxy.start()
    rig.proxy.client().set("k", "new")
    rig.proxy.wait_settled()
    rig.to_target.deliver()
    assert rig.target.call("GET", "k") == b"new"
    rig.assert_recovered()


# -- another server serves in its place --------------------------------------------------------------------------------


def test_a_failover_to_a_replica_that_lacks_the_last_writes(make_rig: MakeRig) -> None:
    """What it lacks is lost, as it is without a proxy; but both sides agree on that, without anybody's help."""
    rig = make_rig()
    replica = rig.server("redis-6.2")
    replica.call("REPLICAOF", "127.0.0.1", rig.source.port)
    until(lambda: b"master_link_status:up" in replica.call("INFO", "replication"), "the replica")
    client = rig.proxy.client()
    client.set("replicated", "old")
    client.rpush("list", "a")
    assert rig.source.call("WAIT", 1, 10_000) == 1
    replica.call("REPLICAOF", "NO", "ONE")
    client.set("replicated", "lost")
    client.set("new", "lost")
    client.rpush("list", "b")
    client.delete("pre:5")
    rig.proxy.wait_settled()
    rig.to_source.lead_to(replica)
    rig.to_source.cut()
    rig.source.kill()
    rig.source = replica
    until(lambda: rig.proxy.status()["lane"]["connected"] and client.get("replicated") == b"old", "the replica serves")
    rig.assert_recovered()
    assert rig.target.call("EXISTS", "new") == 0


def test_a_source_that_comes_back_empty(make_rig: MakeRig) -> None:
    """The mirror side may hold the only copy: nothing is deleted there until the operator says so."""
    rig = make_rig()
    rig.verify()
    keys = rig.target.call("DBSIZE")
    rig.source.kill()
    for path in rig.source.directory.rglob("*.aof*"):
        path.unlink()
    rig.source.start()
    rig.until(lambda now: now["lane"]["connected"], "the lane")
    rig.until(lambda now: any("thaw" in problem for problem in now["problems"]), "the question")
    client = rig.proxy.client()
    client.set("pre:0", "new")  # life goes on
    client.set("fresh", "new")
    client.delete("pre:1")  # a client's own delete is no loss
    rig.until(lambda now: now["mirror"]["connected"] and not now["mirror"]["queued"], "the mirror side")
    assert rig.target.call("DBSIZE") >= keys - 2
    assert rig.target.call("GET", "fresh") == b"new"
    assert not rig.proxy.admin("FLIP", "SKIP-VERIFY")["flipped"]
    rig.proxy.restart()
    assert any("thaw" in problem for problem in rig.proxy.status()["problems"])
    assert rig.target.call("DBSIZE") >= keys - 2
    rig.proxy.admin("THAW")
    rig.refilled()
    rig.assert_recovered()


def test_a_backfill_over_a_restart_of_the_source(make_rig: MakeRig) -> None:
    """A SCAN's cursor belongs to one process: one that is continued after a restart misses keys."""
    rig = make_rig(keys=6000, fill=False)
    rig.proxy.admin("BACKFILL", "RATE", "3000")
    rig.until(lambda now: now["backfill"]["scanned"] > 1000, "the middle of the backfill")
    rig.source.restart()
    rig.refilled()
    rig.assert_recovered()


def test_a_verify_over_a_restart_of_the_source(make_rig: MakeRig) -> None:
    """It either ends, or says that it did not: it never takes what it could not see for equal."""
    rig = make_rig(keys=4000)
    rig.to_source.delay(0.02)
    rig.proxy.admin("VERIFY")
    rig.until(lambda now: now["verify"]["checked"] > 200, "the middle of the verify")
    rig.source.restart()
    rig.to_source.heal()
    rig.until(lambda now: now["verify"]["state"] != "running", "the end of the verify")
    found = rig.proxy.status()["verify"]
    assert found["state"] == "failed" and found["problem"], found
    rig.until(lambda now: now["lane"]["connected"], "the lane")
    again = rig.verify()
    assert (again["state"], again["checked"] - again["equal"]) == ("done", 0)
    assert_equal_servers(rig.source, rig.target)
