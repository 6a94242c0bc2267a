"""Memory is bounded (invariant 8): each bound of docs/limits.md, on a live proxy, with its resident memory measured.

The limits in MB asserted here are those that the document states. What was measured is told at the end of the run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from random import Random
from typing import Any

import pytest

from proxy.crowd import CLIENTS_BYTES
from proxy.dirty import MARK_BYTES
from proxy.mirror import QUEUE_BYTES
from proxy.pins import IDLE_PINS
from proxy.repair import DIRTY_BYTES
from proxy.session import HELD_BYTES, OUT_LIMIT_BYTES
from tests import proxies
from tests.integration.outage_rig import Rig, rigs
from tests.memory import MB, Flood, Memory, send_until_nobody_takes_more
from tests.proxies import RunningProxy, until

MakeRig = Callable[..., Rig]
Record = Callable[[str, object], None]

OK = b"+OK\r\n"
TARGET_DOWN_MB = 300  # of the whole process, whatever is written meanwhile
OUTAGE_MB = 400  # while the serving side hangs, and clients send what they can
CLIENTS_MB = 1024  # with clients that send, or do not read, hundreds of MB
VALUE = "x" * 64


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    yield from rigs()


def distinct(count: int) -> Iterator[tuple[Any, ...]]:
    return (("SET", f"distinct:{n:021d}", VALUE) for n in range(count))  # keys of 30 bytes


def hot(count: int) -> Iterator[tuple[Any, ...]]:
    return (("SET", f"hot:{n % 1000}", n) for n in range(count))


def down(rig: Rig) -> None:
    rig.to_target.refuse()
    rig.to_target.cut()
    rig.until(lambda now: not now["mirror"]["connected"], "a lost mirror link")


def in_sync(rig: Rig, patience: float) -> None:
    def there() -> bool:
        now = rig.proxy.status()
        return now["phase"] == "in-sync" and not now["dirty"] and not now["mirror"]["queued"]

    with rig.explained():
        until(there, "both sides equal", patience)


# -- the mirror side is away: the dirty set, the journal --------------------------------------------------------------


def test_many_distinct_keys_while_the_target_is_down(make_rig: MakeRig, record_property: Record) -> None:
    rig = make_rig()
    down(rig)
    with Memory(rig.proxy.pid) as memory, Flood(rig.proxy) as flood:
        flood.pipeline(distinct(200_000), OK)
    status = rig.proxy.status()
    record_property("200,000 dirty keys", f"{memory}")
    assert status["dirty"] == 200_000 and status["phase"] == "converging"
    assert memory.peak < TARGET_DOWN_MB  # that all of them are copied in the end, the longer tests show
    rig.proxy.kill()  # it would wait for the target at its end


def flush_most(rig: Rig) -> None:
    """So that a test need not wait for all the copies; what is left is enough to compare."""
    rig.proxy.client().flushall(asynchronous=True)
    with Flood(rig.proxy) as flood:
        flood.pipeline(distinct(1000), OK)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_hour_of_writes_while_the_target_is_down(make_rig: MakeRig, record_property: Record) -> None:
    """By count: 1,000 a second for an hour, every third of a key that nobody has written before. The dirty set
    overflows again and again; a backfill mends it."""
    rig = make_rig()
    down(rig)
    with Memory(rig.proxy.pid) as memory, Flood(rig.proxy) as flood:
        for part in range(12):
            flood.pipeline((("SET", f"part:{part:02d}:{n:021d}", VALUE) for n in range(100_000)), OK)
            flood.pipeline(hot(200_000), OK)
    record_property("3.6 million writes with the target down, 1.2 million of distinct keys", f"{memory}")
    journal = sum(path.stat().st_size for path in (rig.proxy.state_dir / "journal").iterdir())
    record_property("  the journal, in MB", journal // MB)
    assert memory.peak < TARGET_DOWN_MB
    assert rig.refills
    flush_most(rig)
    rig.to_target.heal()
    in_sync(rig, 120)
    rig.assert_recovered()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_more_dirty_keys_than_are_kept_end_in_a_backfill(make_rig: MakeRig, record_property: Record) -> None:
    """Keys with long names: the limit is one of bytes. All of them are there in the end."""
    size = 200
    count = DIRTY_BYTES // (MARK_BYTES + size) + 1000
    rig = make_rig()
    down(rig)
    with Memory(rig.proxy.pid) as memory, Flood(rig.proxy) as flood:
        flood.pipeline((("SET", f"{n:0{size}d}", "v") for n in range(count)), OK)
        until(lambda: rig.refills, "back to filling")
        assert rig.proxy.status()["phase"] == "filling"
        rig.to_target.heal()
        in_sync(rig, 120)
    record_property(f"{count:,} dirty keys of {size} bytes", f"{memory}")
    assert memory.peak < TARGET_DOWN_MB
    rig.assert_recovered()


@pytest.mark.slow
def test_hot_keys_while_the_target_hangs(make_rig: MakeRig, record_property: Record) -> None:
    """The mirror queue fills up to its limit, then effects become dirty keys."""
    rig = make_rig()
    rig.target.pause()
    with Memory(rig.proxy.pid) as memory, Flood(rig.proxy) as flood:
        flood.pipeline(hot(400_000), OK)
    mirror = rig.mirror
    record_property("a mirror queue that is full", f"{memory}")
    rig.target.resume()
    assert mirror["dropped"] and rig.backfill["state"] == "done"
    assert QUEUE_BYTES <= mirror["queued_bytes"] < QUEUE_BYTES + 10_000
    assert memory.peak - memory.before < 2 * QUEUE_BYTES / MB
    rig.assert_recovered()


# -- clients ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_clients_that_pipeline_for_ever_while_the_source_hangs(make_rig: MakeRig, record_property: Record) -> None:
    """They are not read from any more, and go on when it does."""
    rig = make_rig()
    command = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n" * 2000
    rig.source.pause()
    with Memory(rig.proxy.pid) as memory, ExitStack() as stack:
        floods = [stack.enter_context(Flood(rig.proxy)) for _ in range(20)]
        sent = send_until_nobody_takes_more(floods, command)
        record_property(f"20 clients that pipeline for ever ({sum(sent.values()) // MB} MB)", f"{memory}")
        assert memory.peak < OUTAGE_MB
        rig.source.resume()
        with rig.explained():
            for flood in floods:  # all are read from again
                some = min(5_000, sent[flood] // 27)
                assert flood.read(some * len(OK)) == OK * some
    rig.assert_recovered()


@pytest.mark.slow
def test_a_client_that_never_reads_is_disconnected_in_the_end(make_rig: MakeRig, record_property: Record) -> None:
    """Its commands wait once it does not read; but one reply may be long, and may come behind another."""
    rig = make_rig()
    with rig.source.client() as client:
        client.set("big", Random(1).randbytes(OUT_LIMIT_BYTES // 2 + MB))
    with Memory(rig.proxy.pid) as memory, Flood(rig.proxy) as reader, Flood(rig.proxy) as other:
        reader.sock.sendall(b"GET big\r\n" * 3)
        rig.until(lambda now: now["clients"] == 1, "the end of that client")
        assert other.ask("PING") == b"+PONG\r\n"
        assert reader.closed()
    record_property("a client that does not read 3 x 129 MB", f"{memory}")
    assert memory.peak < CLIENTS_MB
    assert "does not read" in rig.proxy.log
    rig.proxy.client().delete("big")
    rig.assert_recovered()


@pytest.mark.slow
def test_several_values_of_100_mb_that_never_end(make_rig: MakeRig, record_property: Record) -> None:
    """All clients together may make the proxy keep so much; then the heaviest is disconnected, as by a server with
    maxmemory-clients. The others go on: the lightest lacks nothing but its end."""
    rig = make_rig()
    data, parts = bytes(MB), 90
    least = parts - 7
    with Memory(rig.proxy.pid) as memory, ExitStack() as stack:
        floods = [stack.enter_context(Flood(rig.proxy)) for _ in range(8)]
        for number, flood in enumerate(floods):
            flood.sock.sendall(
                b"*3\r\n$3\r\nSET\r\n$5\r\nbig:%d\r\n$%d\r\n" % (number, (100 if number < 7 else least) * MB)
            )
            try:
                for _ in range(parts - number):  # so that the first are the heaviest
                    flood.sock.sendall(data)
            except ConnectionError:
                pass
        needed = 8 * parts * MB - 28 * MB - CLIENTS_BYTES
        assert needed > 0
        rig.until(lambda now: now["clients"] < 8, "one of them shed")
        record_property("8 values of 100 MB, none complete", f"{memory}")
        last = floods[-1]
        last.sock.sendall(b"\r\n")
        assert last.sock.recv(100) == OK
        assert rig.source.call("STRLEN", "big:7") == least * MB
    assert any("makes us keep" in line for line in rig.proxy.log.splitlines())
    assert memory.peak < CLIENTS_MB
    rig.proxy.client().delete("big:7")
    rig.assert_recovered()


@pytest.mark.slow
def test_a_multi_that_is_never_executed(make_rig: MakeRig, record_property: Record) -> None:
    rig = make_rig()
    value = bytes(MB)
    with Memory(rig.proxy.pid) as memory, Flood(rig.proxy) as flood, Flood(rig.proxy) as other:
        assert flood.ask("MULTI") == OK
        with pytest.raises((ConnectionError, AssertionError)):
            for _ in range(2 * CLIENTS_BYTES // MB):
                assert flood.ask("SET", "k", value) == b"+QUEUED\r\n"
        assert other.ask("PING") == b"+PONG\r\n"
    record_property("a MULTI that grows without end", f"{memory}")
    assert memory.peak < CLIENTS_MB
    rig.assert_recovered()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_values_of_100_mb(make_rig: MakeRig, record_property: Record) -> None:
    """Written, read, copied; with the target healthy and with it hanging."""
    rig = make_rig()
    value = Random(2).randbytes(100 * MB)
    with Memory(rig.proxy.pid) as memory:
        clients = [rig.proxy.client() for _ in range(3)]
        for number, client in enumerate(clients):
            client.set(f"big:{number}", value)
            assert client.get(f"big:{number}") == value
        record_property("values of 100 MB, one after another", f"{memory}")
        rig.target.pause()
        for number, client in enumerate(clients):
            client.append(f"big:{number}", b"more")
            client.set(f"other:{number}", value)
        rig.target.resume()
        rig.proxy.wait_settled(60)
    record_property("the same with a target that hangs", f"{memory}")
    assert memory.peak < CLIENTS_MB
    rig.assert_recovered()


def test_too_many_clients_are_told_so(monkeypatch: pytest.MonkeyPatch, server_pool: Any) -> None:
    """While there are still descriptors for the links, the journal, the operator."""
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit (util-linux) is not installed")
    monkeypatch.setattr(proxies, "CROSSFADE", ("prlimit", "--nofile=188:188", *proxies.CROSSFADE))
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    with RunningProxy(source, target) as proxy, ExitStack() as stack:
        for _ in range(30):
            flood = stack.enter_context(Flood(proxy))
            assert flood.ask("WATCH", "k") == OK
        with Flood(proxy) as one_more:
            assert one_more.read(100) == b"-ERR max number of clients reached\r\n"
        status = proxy.status()
        assert status["clients"] == status["pinned"] == 30
        assert any("turned away" in problem for problem in status["problems"]), status["problems"]


def test_spare_pinned_connections_are_few(make_rig: MakeRig) -> None:
    """One for each client that needs one; given back, no more than some are kept."""
    rig = make_rig()
    with ExitStack() as stack:
        floods = [stack.enter_context(Flood(rig.proxy)) for _ in range(3 * IDLE_PINS)]
        for flood in floods:
            assert flood.ask("WATCH", "k") == OK
        assert rig.proxy.status()["pinned"] == 3 * IDLE_PINS
        for flood in floods:
            assert flood.ask("UNWATCH") == OK
    own = 4  # control, watch, lane; and who asks
    until(lambda: len(rig.source.call("CLIENT", "LIST").splitlines()) <= IDLE_PINS + own, "the rest closed")


def test_many_who_wait_for_one_key(make_rig: MakeRig, record_property: Record) -> None:
    rig = make_rig()
    count = 500
    with Memory(rig.proxy.pid) as memory, ExitStack() as stack:
        floods = [stack.enter_context(Flood(rig.proxy)) for _ in range(count)]
        for flood in floods:
            flood.sock.sendall(b"BLPOP queue 0\r\n")
        rig.until(lambda now: now["waiting"] == count, "all of them waiting")
        with Flood(rig.proxy) as pusher:
            for n in range(count):
                assert pusher.ask("RPUSH", "queue", n) == b":1\r\n"
        heard = [flood.sock.recv(1000) for flood in floods]
    assert heard == [b"*2\r\n$5\r\nqueue\r\n$%d\r\n%d\r\n" % (len(str(n)), n) for n in range(count)]
    record_property(f"{count} clients blocked on one key", f"{memory}")
    assert memory.peak - memory.before < 50
    rig.assert_recovered()


def test_the_limits_are_those_of_the_document() -> None:
    """docs/limits.md states them in MB."""
    text = (proxies.ROOT / "docs" / "limits.md").read_text()
    for size in (QUEUE_BYTES, DIRTY_BYTES, HELD_BYTES, OUT_LIMIT_BYTES, CLIENTS_BYTES):
        assert f"{size // MB} MB" in text, size
    for limit in (TARGET_DOWN_MB, OUTAGE_MB, CLIENTS_MB):
        assert f"{limit} MB" in text, limit
