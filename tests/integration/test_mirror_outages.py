"""The mirror side fails, in every way: no client notices, and in the end both sides are equal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import pytest
import redis

from tests.integration.outage_rig import Rig, rigs
from tests.proxies import until
from tests.relay import Way
from tests.servers import Server

MakeRig = Callable[..., Rig]
PATIENCE_S = 90.0  # longer than the longest pause between two tries at one key
MEANWHILE = 300  # commands of the clients during the outage


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    yield from rigs()


# -- ways to fail, and to come back -------------------------------------------------------------------------------


def nothing(rig: Rig) -> None:
    """It comes back by itself."""


def heal(rig: Rig) -> None:
    rig.to_target.heal()


def refuse(rig: Rig) -> None:
    rig.to_target.refuse()
    rig.to_target.cut()


def reset(rig: Rig) -> None:
    for _ in range(3):
        rig.until(lambda now: now["mirror"]["connected"], "the mirror link")
        rig.to_target.cut()


def hang(rig: Rig) -> None:
    rig.to_target.stop()


def slow(rig: Rig) -> None:
    rig.to_target.delay(0.15)
    rig.to_target.throttle(20_000)


def pause(rig: Rig) -> None:
    rig.target.pause()


def resume(rig: Rig) -> None:
    rig.target.resume()


def replica_of_nobody(rig: Rig) -> None:
    rig.target.call("REPLICAOF", "127.0.0.1", "1")


def master(rig: Rig) -> None:
    rig.target.call("REPLICAOF", "NO", "ONE")


def without_replicas(rig: Rig) -> None:
    rig.target.call("CONFIG", "SET", "min-replicas-to-write", "1")


def with_replicas(rig: Rig) -> None:
    rig.target.call("CONFIG", "SET", "min-replicas-to-write", "0")


def full(rig: Rig) -> None:
    rig.target.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    rig.target.call("CONFIG", "SET", "maxmemory", "1mb")


def not_full(rig: Rig) -> None:
    rig.target.call("CONFIG", "SET", "maxmemory", "0")


def rotated(rig: Rig) -> None:
    rig.target.call("CONFIG", "SET", "requirepass", "new")
    rig.to_target.cut()


def rotated_back(rig: Rig) -> None:
    rig.target.client(password="new").execute_command("CONFIG", "SET", "requirepass", "")


def kill(rig: Rig) -> None:
    rig.target.kill()


def start(rig: Rig) -> None:
    rig.target.start()


def stopped_for_good(rig: Rig) -> None:
    rig.to_target.stop_these()


def half_closed(rig: Rig) -> None:
    rig.to_target.close_way(Way.TO_SERVER)


def unacknowledged(rig: Rig) -> None:
    rig.to_target.stop_these(Way.TO_CLIENT)


@dataclass(frozen=True)
class Failure:
    begin: Callable[[Rig], None]
    end: Callable[[Rig], None]


FAILURES = {
    "refuses connections": Failure(refuse, heal),
    "resets": Failure(reset, nothing),
    "hangs": Failure(hang, heal),
    "is slow": Failure(slow, heal),
    "is paused": Failure(pause, resume),
    "is read-only": Failure(replica_of_nobody, master),
    "wants replicas": Failure(without_replicas, with_replicas),
    "is out of memory": Failure(full, not_full),
    "has another password": Failure(rotated, rotated_back),
    "crashes": Failure(kill, start),
    "closes one way": Failure(half_closed, nothing),
}
DEAD_LINKS = {
    "both ways": Failure(stopped_for_good, nothing),
    "one way": Failure(unacknowledged, nothing),
}


def fails_unnoticed(rig: Rig, failure: Failure) -> None:
    with rig.traffic() as traffic:
        traffic.wait_for(100)
        failure.begin(rig)
        try:
            traffic.wait_for(MEANWHILE)
        finally:
            failure.end(rig)
        traffic.wait_for(100)
    traffic.assert_clean()


@pytest.mark.parametrize("name", FAILURES)
def test_no_client_notices_and_both_sides_end_equal(make_rig: MakeRig, name: str) -> None:
    rig = make_rig()
    fails_unnoticed(rig, FAILURES[name])
    rig.assert_recovered()


@pytest.mark.parametrize("name", DEAD_LINKS)
@pytest.mark.slow
def test_a_link_that_is_dead_while_the_server_lives_is_given_up(make_rig: MakeRig, name: str) -> None:
    """A firewall that has forgotten a connection says nothing: nobody will ever close it. New connections work."""
    rig = make_rig()
    fails_unnoticed(rig, DEAD_LINKS[name])
    rig.assert_recovered()


@pytest.mark.parametrize(("source", "target"), [("redis-8.2", "redis-6.2"), ("redis-7.0", "redis-8.2")])
@pytest.mark.slow
def test_other_versions(make_rig: MakeRig, source: str, target: str) -> None:
    rig = make_rig(source, target)
    for name in ("is read-only", "is out of memory", "crashes"):
        fails_unnoticed(rig, FAILURES[name])
        rig.assert_recovered()


@pytest.mark.slow
def test_it_is_loading(make_rig: MakeRig) -> None:
    rig = make_rig(target="valkey-8.1")
    rig.target.call("CONFIG", "SET", "key-load-delay", "5000")  # µs; 300 keys
    rig.target.call("CONFIG", "SET", "loading-process-events-interval-bytes", "1024")
    loading = threading.Thread(target=rig.target.call, args=("DEBUG", "RELOAD"))
    with rig.traffic() as traffic:
        traffic.wait_for(100)
        loading.start()
        until(lambda: b"loading:1" in rig.target.call("INFO", "persistence"), "LOADING")
        rig.until(
            lambda now: any("LOADING" in text for text in (*now["copies"]["reasons"], *now["copies"]["failures"])),
            "a write that was refused with LOADING",
        )
        traffic.wait_for(MEANWHILE)
        loading.join()
        traffic.wait_for(100)
    traffic.assert_clean()
    rig.assert_recovered()


def test_a_script_keeps_it_busy(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.target.call("CONFIG", "SET", "lua-time-limit", "20")
    script = threading.Thread(target=endless, args=(rig.target,))
    with rig.traffic() as traffic:
        traffic.wait_for(100)
        script.start()
        traffic.wait_for(MEANWHILE)
        kill_script(rig.target)
        script.join()
        traffic.wait_for(100)
    traffic.assert_clean()
    rig.assert_recovered()


def endless(server: Server) -> None:
    with pytest.raises(redis.ResponseError, match="killed"):
        server.call("EVAL", "while true do end", 0)


def kill_script(server: Server) -> None:
    def killed() -> bool:
        try:
            return bool(server.call("SCRIPT", "KILL"))
        except redis.ResponseError as error:
            assert "NOTBUSY" in str(error)
            return False

    until(killed, "a script to kill")


def test_status_names_what_is_wrong_and_since_when(make_rig: MakeRig) -> None:
    rig = make_rig()
    refuse(rig)
    rig.until(lambda now: "refused" in now["target"]["problem"], "the target's problem")
    status = rig.proxy.status()
    assert status["target"]["since"] > 0
    assert not status["mirror"]["connected"] and status["phase"] == "converging"
    rig.proxy.client().set("meanwhile", 1)
    assert rig.proxy.status()["dirty"] == 1
    rig.to_target.heal()
    rig.assert_recovered()
    assert not rig.proxy.status()["target"]["problem"]


def test_a_proxy_that_starts_without_its_mirror_side(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.proxy.stop()
    rig.to_target.refuse()
    rig.proxy.start()
    with rig.promises() as promises:
        promises.wait_for(200)
        rig.to_target.heal()
        promises.wait_for(200)
    assert not promises.errors and not promises.disconnects
    rig.assert_recovered()
    promises.check(rig.source)


def test_a_proxy_that_is_killed_while_its_mirror_side_is_away(make_rig: MakeRig) -> None:
    """What is dirty is dirty in the journal, too."""
    rig = make_rig()
    refuse(rig)
    with rig.traffic() as traffic:
        traffic.wait_for(MEANWHILE)
    rig.proxy.kill()
    rig.proxy.start()
    rig.to_target.heal()
    rig.assert_recovered()


def test_killed_right_after_the_backfill(make_rig: MakeRig) -> None:
    """What the operator was told is done stays done; and what is not goes on by itself."""
    rig = make_rig(fill=False)
    rig.proxy.admin("BACKFILL")
    rig.refilled()
    rig.proxy.kill()
    rig.proxy.start()
    rig.assert_recovered()


def test_killed_in_the_middle_of_the_backfill(make_rig: MakeRig) -> None:
    rig = make_rig(keys=3000, fill=False)
    rig.proxy.admin("BACKFILL", "RATE", "2000")
    rig.until(lambda now: now["backfill"]["copied"] > 200, "the beginning of the backfill")
    rig.proxy.kill()
    rig.proxy.start()
    rig.refilled()
    rig.assert_recovered()


def test_a_proxy_that_is_stopped_while_its_mirror_side_is_away(make_rig: MakeRig) -> None:
    rig = make_rig()
    refuse(rig)
    rig.proxy.client().set("meanwhile", 1)
    rig.proxy.stop()
    rig.proxy.start()
    rig.to_target.heal()
    rig.assert_recovered()


# -- its data is not what it was ----------------------------------------------------------------------------------


def test_flushed_by_somebody(make_rig: MakeRig) -> None:
    """No reply tells of a key that is not written: verify does."""
    rig = make_rig()
    rig.target.call("FLUSHALL")
    found = rig.verify()
    assert found["missing"] == found["checked"] > 0
    refused = rig.proxy.admin("FLIP")
    assert not refused["flipped"]
    repaired = rig.verify("REPAIR")
    assert repaired["repaired"] == found["missing"]
    rig.assert_recovered()


def test_flushed_by_somebody_under_traffic(make_rig: MakeRig) -> None:
    rig = make_rig()
    with rig.traffic() as traffic:
        traffic.wait_for(100)
        rig.target.call("FLUSHALL")
        traffic.wait_for(MEANWHILE)
        rig.verify("REPAIR")
    traffic.assert_clean()
    assert rig.verify()["state"] == "done"
    rig.assert_recovered()


def empty(server: Server) -> None:
    """As its first start would find it."""
    server.kill()
    for path in server.directory.rglob("*.aof*"):
        path.unlink(missing_ok=True)
    server.start()
    assert server.call("DBSIZE") == 0


def test_restarted_empty(make_rig: MakeRig) -> None:
    """Its run_id is another, and it has far fewer keys: a new backfill is due, and status says so."""
    rig = make_rig()
    with rig.traffic() as traffic:
        traffic.wait_for(100)
        empty(rig.target)
        until(lambda: rig.refills, "back to filling")
        rig.refilled()
        traffic.wait_for(100)
    traffic.assert_clean()
    rig.assert_recovered()


def test_restarted_without_its_last_writes(make_rig: MakeRig) -> None:
    """Few keys are missing, but they are: what was written in the last minutes is copied again."""
    rig = make_rig()
    rig.target.call("CONFIG", "SET", "save", "")
    saved = {path: path.read_bytes() for path in rig.target.directory.rglob("*.aof*")}
    with rig.promises() as promises:
        promises.wait_for(200)
    rig.proxy.wait_settled()
    rig.target.kill()
    for path, data in saved.items():
        path.write_bytes(data)
    rig.target.start()
    rig.until(lambda now: now["mirror"]["connected"], "the mirror link")
    rig.assert_recovered()


def test_replaced_by_another_version_on_the_same_port(make_rig: MakeRig) -> None:
    """An older one, which takes no DUMP of the source's: the form of the copies is found out anew."""
    rig = make_rig("redis-7.0", "redis-8.2")
    rig.target = rig.server("redis-6.2")
    with rig.traffic(also_known_to=rig.target) as traffic:
        traffic.wait_for(100)
        rig.to_target.lead_to(rig.target)
        rig.to_target.cut()
        rig.until(lambda now: now["target"]["version"] == "redis 6.2", "the other version")
        until(lambda: rig.refills, "back to filling")
        rig.refilled()
        traffic.wait_for(100)
    traffic.assert_clean()
    rig.assert_recovered()


# -- commands that touch every key ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", "0", "1"), ("FLUSHALL", "ASYNC")])
def test_a_whole_db_command_while_the_target_is_down(make_rig: MakeRig, command: tuple[str, ...]) -> None:
    rig = make_rig()
    refuse(rig)
    rig.until(lambda now: not now["mirror"]["connected"], "a lost mirror link")
    client = rig.proxy.client()
    client.execute_command(*command)
    client.set("after", 1)
    rig.to_target.heal()
    until(lambda: rig.refills, "back to filling")
    rig.refilled()
    rig.assert_recovered()


@pytest.mark.parametrize("command", [("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", "0", "1")])
@pytest.mark.slow
def test_a_whole_db_command_that_is_lost_on_its_way(make_rig: MakeRig, command: tuple[str, ...]) -> None:
    rig = make_rig()
    hang(rig)
    client = rig.proxy.client()
    client.execute_command(*command)
    client.set("after", 1)
    rig.to_target.cut()
    rig.to_target.heal()
    until(lambda: rig.refills, "back to filling")
    rig.refilled()
    rig.assert_recovered()


@pytest.mark.parametrize("command", [("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", "0", "1")])
@pytest.mark.slow
def test_a_proxy_killed_with_a_whole_db_command_under_way(make_rig: MakeRig, command: tuple[str, ...]) -> None:
    rig = make_rig()
    hang(rig)
    rig.proxy.client().execute_command(*command)
    rig.proxy.kill()
    rig.to_target.cut()
    rig.to_target.heal()
    rig.proxy.start()
    until(lambda: rig.refills, "back to filling")
    rig.refilled()
    rig.assert_recovered()


@pytest.mark.parametrize("command", [("FLUSHALL",), ("FLUSHDB",), ("SWAPDB", "0", "1")])
def test_a_whole_db_command_in_the_middle_of_a_backfill(make_rig: MakeRig, command: tuple[str, ...]) -> None:
    rig = make_rig(keys=3000, fill=False)
    rig.to_target.delay(0.02)  # so that there is a middle
    rig.proxy.admin("BACKFILL", "RATE", "3000")
    rig.until(lambda now: now["backfill"]["scanned"] > 1000, "the middle of the backfill")
    client = rig.proxy.client()
    client.execute_command(*command)
    client.set("after", 1)
    assert rig.backfill["state"] == "running"
    rig.to_target.heal()
    rig.until(lambda now: now["backfill"]["state"] == "done", "the end of the backfill")
    rig.assert_recovered()


# -- keys that it cannot take ---------------------------------------------------------------------------------------


def test_a_key_that_the_target_never_takes(make_rig: MakeRig) -> None:
    """It is named with its reason, it closes the gate, it is tried again and again, and nothing else suffers."""
    rig = make_rig()
    rig.target.call("ACL", "SETUSER", "default", "resetkeys", "~pre:*", "~promise*", "~other")
    client = rig.proxy.client()
    client.set("forbidden", 1)
    client.set("other", 1)
    rig.until(lambda now: now["dirty"] == 1 and now["copies"]["failures"], "a copy that failed")
    status = rig.proxy.status()
    assert any("forbidden" in str(problem) for problem in status["problems"]), status["problems"]
    assert status["phase"] == "converging"
    refused = rig.proxy.admin("FLIP", "SKIP-VERIFY")
    assert not refused["flipped"] and any("forbidden" in reason for reason in refused["reasons"]), refused
    tries = sum(status["copies"]["failures"].values())
    rig.until(lambda now: sum(now["copies"]["failures"].values()) > tries, "another try")
    with rig.promises() as promises:
        promises.wait_for(200)
    rig.until(lambda now: not now["mirror"]["queued"] and now["dirty"] == 1, "everything else is mirrored")
    assert rig.target.call("GET", "other") == b"1"
    rig.target.call("ACL", "SETUSER", "default", "allkeys")
    rig.assert_recovered()
    promises.check(rig.target)


def test_the_gate_names_it_at_any_moment(make_rig: MakeRig) -> None:
    """Also while the next try is under way."""
    rig = make_rig()
    rig.target.call("ACL", "SETUSER", "default", "resetkeys", "~pre:*")
    rig.to_target.delay(0.05)
    rig.proxy.client().set("forbidden", 1)
    rig.until(lambda now: now["copies"]["failures"], "a copy that failed")
    for _ in range(10):
        refused = rig.proxy.admin("FLIP", "SKIP-VERIFY", "MAX-PAUSE", "20")
        assert any("forbidden" in reason for reason in refused["reasons"]), refused


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_value_larger_than_the_target_takes(make_rig: MakeRig) -> None:
    """Its server closes the connection on such a value: the link must not be lost again and again for one key."""
    rig = make_rig()
    rig.target.call("CONFIG", "SET", "proto-max-bulk-len", "1mb")
    big, client = Random(1).randbytes(1_500_000), rig.proxy.client()
    client.set("big", big[:750_000])
    client.append("big", big[750_000:])
    client.rename("big", "moved")  # a state copy, in one piece: 1.5 MB
    client.set("small", 1)
    rig.until(lambda now: "moved" in str(now["problems"]), "the key is named")
    with rig.promises() as promises:
        promises.wait_for(200)
    rig.until(lambda now: now["mirror"]["connected"] and not now["mirror"]["queued"], "everything else is mirrored")
    dropped = rig.mirror["dropped"]
    with rig.promises(prefix="later") as promises:
        promises.wait_for(400)
    assert rig.mirror["dropped"] == dropped, "the link was lost again"
    rig.target.call("CONFIG", "SET", "proto-max-bulk-len", "512mb")
    rig.proxy.wait_settled(PATIENCE_S)
    rig.assert_recovered()


def test_a_write_that_bypasses_the_proxy_is_noticed(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.source.call("SET", "bypassing", 1)
    until(lambda: rig.target.call("GET", "bypassing") == b"1", "the copy")
