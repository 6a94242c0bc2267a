"""`--workers N`: clients cannot tell whether a front is between them and the proxy, and nor can the data.

The differential tests run with a worker as well (marked slow there): here is what only workers can get wrong.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import count, islice
from typing import Any

import psutil
import pytest
import redis

from proxy.front.fronts import AT_ONCE
from tests.differential.wire import NoReply, Wire, pack
from tests.equality import assert_equal_servers
from tests.proxies import RunningProxy, until
from tests.servers import Pool, Server
from tests.traffic import Traffic, preload

StartProxy = Callable[..., RunningProxy]
SECRET = "s3cret"


def workers(proxy: RunningProxy) -> list[dict[str, Any]]:
    return list(proxy.status()["workers"])


def alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def ask(wire: Wire, *lines: str) -> list[bytes]:
    """In one write; one reply each."""
    wire.send(b"".join(pack(line.encode().split()) for line in lines))
    return wire.frames(len(lines))


@pytest.mark.timeout(240)
@pytest.mark.slow
def test_a_migration_under_traffic(server_pool: Pool, start_proxy: StartProxy) -> None:
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    preload(source, 500, seed=7)
    proxy = start_proxy(source, target, "--workers", "2")
    with Traffic(proxy, clients=16, rate=1000.0, seed=7, also_known_to=target) as traffic:
        proxy.backfill()
        traffic.wait_for(300)
        assert sum(worker["clients"] for worker in workers(proxy)) == proxy.status()["clients"] > 12
        proxy.verify()
        proxy.flip()
        traffic.wait_for(200)
        proxy.verify()
        proxy.flip()
        traffic.wait_for(200)
    traffic.assert_clean()
    status = proxy.wait_settled()
    assert status["unmirrored"] == 0 and not status["problems"]
    proxy.verify()
    assert_equal_servers(source, target)


def test_plain_clients_share_the_trunk_and_all_are_listed(server_pool: Pool, start_proxy: StartProxy) -> None:
    proxy = start_proxy(server_pool.get("redis-7.0"), server_pool.get("redis-8.2"), "--workers", "2")
    clients = [
        proxy.client(db=number % 3, protocol=2 + number % 2, client_name=f"app-{number}", single_connection_client=True)
        for number in range(8)
    ]
    for number, client in enumerate(clients):
        client.set("k", number)
        assert client.get("k") == b"%d" % number
    with closing(Wire(proxy.port)) as wire:
        assert ask(wire, "MULTI", "INCR n", "GET k", "EXEC")[3] == b"*2\r\n:1\r\n$1\r\n6\r\n"
        assert sum(worker["relayed"] for worker in workers(proxy)) == 0
    until(lambda: proxy.status()["clients"] == 8, "the ninth is gone")
    assert [(worker["clients"], worker["relayed"]) for worker in workers(proxy)] == [(4, 0), (4, 0)]
    assert proxy.status()["clients"] == 8

    listed = {entry["name"]: entry for entry in clients[0].client_list()}
    assert sorted(listed) == [f"app-{number}" for number in range(8)]
    assert [listed[f"app-{number}"]["db"] for number in range(8)] == [str(number % 3) for number in range(8)]
    assert [listed[f"app-{number}"]["resp"] for number in range(8)] == [str(2 + number % 2) for number in range(8)]
    assert sum(worker["relayed"] for worker in workers(proxy)) == 1  # the client that asked
    assert proxy.status()["clients"] == 8

    sock: Any = clients[5].connection._sock  # type: ignore[union-attr]
    assert listed["app-5"]["addr"] == "{}:{}".format(*sock.getsockname())
    assert clients[0].client_kill_filter(_id=listed["app-5"]["id"]) == 1
    assert sock.recv(1) == b""
    until(lambda: proxy.status()["clients"] == 7, "the killed client is not counted")
    for client in clients:
        client.close()
    until(lambda: proxy.status()["clients"] == 0, "nobody is left")


@pytest.mark.parametrize("resp", [2, 3])
def test_every_kind_of_session(server_pool: Pool, start_proxy: StartProxy, resp: int) -> None:
    source, target = server_pool.get("valkey-9.1"), server_pool.get("redis-8.2")
    proxy = start_proxy(source, target, "--workers", "2")
    push = b">" if resp == 3 else b"*"
    with closing(Wire(proxy.port, resp)) as one, closing(Wire(proxy.port, resp)) as other:
        # blocking
        one.send(pack([b"BLPOP", b"q", b"0"]))
        until(lambda: proxy.status()["waiting"] == 1, "a client waits")
        assert ask(other, "RPUSH q a") == [b":1\r\n"]
        assert one.frames(1) == [b"*2\r\n$1\r\nq\r\n$1\r\na\r\n"]
        # transactions: whole, in pieces, and one that is spoilt
        assert ask(other, "MULTI", "INCR n", "EXEC")[2] == b"*1\r\n:1\r\n"
        assert ask(one, "WATCH n", "MULTI", "INCR n") == [b"+OK\r\n", b"+OK\r\n", b"+QUEUED\r\n"]
        assert ask(other, "INCR n") == [b":2\r\n"]
        assert ask(one, "EXEC") == [b"_\r\n" if resp == 3 else b"*-1\r\n"]
        # scripts
        assert one.ask([b"EVAL", b"return redis.call('INCR', KEYS[1])", b"1", b"n"]) == b":3\r\n"
        # pub/sub
        with closing(Wire(proxy.port, resp)) as listener:
            assert ask(listener, "SUBSCRIBE ch") == [push + b"3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n"]
            assert ask(other, "PUBLISH ch hello") == [b":1\r\n"]
            assert listener.frames(1) == [push + b"3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$5\r\nhello\r\n"]
        # MONITOR
        with closing(Wire(proxy.port, resp)) as watcher:
            assert ask(watcher, "MONITOR") == [b"+OK\r\n"]
            assert ask(other, "ECHO seen-by-monitor") == [b"$15\r\nseen-by-monitor\r\n"]
            until(lambda: b"seen-by-monitor" in watcher.frames(1)[0], "MONITOR tells")
        # client-side caching
        if resp == 3:
            assert ask(one, "CLIENT TRACKING ON", "GET n") == [b"+OK\r\n", b"$1\r\n3\r\n"]
            assert ask(other, "SET n 4") == [b"+OK\r\n"]
            assert one.frames(1) == [b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nn\r\n"]
    proxy.wait_settled()
    assert_equal_servers(source, target)


def test_a_pause_of_writes_holds_each_writer_on_its_own(
    server_62: Server, server_91: Server, start_proxy: StartProxy
) -> None:
    """And not the trunk, with everybody's reads behind one write."""
    proxy = start_proxy(server_62, server_91, "--workers", "1")
    with (
        closing(Wire(proxy.port)) as operator,
        closing(Wire(proxy.port)) as writer,
        closing(Wire(proxy.port)) as reader,
    ):
        for wire in (writer, reader):
            assert ask(wire, "SET k 1") == [b"+OK\r\n"]
        assert ask(operator, "CLIENT PAUSE 60000 WRITE") == [b"+OK\r\n"]
        writer.send(pack([b"SET", b"k", b"2"]))
        until(lambda: workers(proxy)[0]["relayed"] == 2, "the writer has a connection of its own")
        assert ask(reader, "GET k") == [b"$1\r\n1\r\n"]
        assert ask(operator, "CLIENT UNPAUSE") == [b"+OK\r\n"]
        assert writer.frames(1) == [b"+OK\r\n"]
        assert ask(reader, "SET k 3") == [b"+OK\r\n"]
    assert all(worker["relayed"] < 3 for worker in workers(proxy))


def test_getting_in(start_server: Callable[..., Server], start_proxy: StartProxy, server_91: Server) -> None:
    source = start_server("redis-6.2", password=SECRET)
    proxy = start_proxy(source, server_91, "--workers", "1")
    with closing(Wire(proxy.port)) as wire:
        noauth, wrong = b"-NOAUTH Authentication required.\r\n", b"-WRONGPASS"
        assert ask(wire, "GET k", "EVAL x 0") == [noauth, noauth]
        assert ask(wire, "AUTH nonsense")[0].startswith(wrong)
        assert ask(wire, f"AUTH {SECRET}", "GET k", "CLIENT ID")[:2] == [b"+OK\r\n", b"$-1\r\n"]
        assert ask(wire, "RESET", "GET k") == [b"+RESET\r\n", noauth]
    with closing(Wire(proxy.port)) as wire:
        assert ask(wire, "RESET", "GET k", f"HELLO 3 AUTH default {SECRET}")[:2] == [b"+RESET\r\n", noauth]
        assert ask(wire, "GET k") == [b"_\r\n"]
    assert SECRET not in proxy.log
    for worker in workers(proxy):
        process = psutil.Process(worker["pid"])
        assert SECRET not in " ".join(process.cmdline())


def test_order_when_a_client_leaves_the_trunk(server_pool: Pool, start_proxy: StartProxy) -> None:
    """In one write: plain commands, one that cannot share the trunk, plain ones, and the beginning of one more."""
    source, target = server_pool.get("redis-6.2"), server_pool.get("redis-7.0")
    proxy = start_proxy(source, target, "--workers", "1")
    with closing(Wire(proxy.port)) as bystander:
        for number in range(10):
            with closing(Wire(proxy.port)) as wire:
                key = f"k{number}"
                assert ask(wire, "SELECT 3", "CLIENT SETNAME me") == [b"+OK\r\n"] * 2
                before = [f"APPEND {key} a"] * 50
                after = [f"APPEND {key} c"] * 50
                lines = [*before, f"EVAL return{{redis.call('APPEND',KEYS[1],'b')}} 1 {key}", *after, "CLIENT GETNAME"]
                payload = b"".join(pack(line.encode().split()) for line in lines)
                last = pack([b"GET", key.encode()])
                wire.send(payload + last[: 5 + number])
                ask(bystander, f"SET other{number} x", f"GET other{number}")
                replies = wire.frames(102)
                assert replies[:50] == [b":%d\r\n" % (size + 1) for size in range(50)]
                assert replies[50] == b"*1\r\n:51\r\n"
                assert replies[51:101] == [b":%d\r\n" % (size + 52) for size in range(50)]
                assert replies[101] == b"$2\r\nme\r\n"
                wire.send(last[5 + number :])
                assert wire.frames(1) == [b"$101\r\n" + b"a" * 50 + b"b" + b"c" * 50 + b"\r\n"]
    proxy.wait_settled()
    assert_equal_servers(source, target)


def test_a_client_that_hangs_up_behind_its_last_command(
    server_62: Server, server_91: Server, start_proxy: StartProxy
) -> None:
    """As `printf … | nc` does: it gets every reply, and then the end; also when its bytes are nonsense."""
    proxy = start_proxy(server_62, server_91, "--workers", "1")
    for last, said in ((b"", b""), (b"*1\r\nnonsense\r\n", b"-ERR Protocol error: expected '$', got 'n'\r\n")):
        for first, reply in ((b"", b""), (b"EVAL 'return 7' 0\r\n", b":7\r\n")):
            with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as wire:
                wire.sendall(b"SET k v\r\nGET k\r\n" + first + last)
                wire.shutdown(socket.SHUT_WR)
                received = b""
                while data := wire.recv(1 << 16):
                    received += data
            assert received == b"+OK\r\n$1\r\nv\r\n" + reply + said


def test_a_client_that_does_not_read_holds_up_nobody(
    server_70: Server, server_82: Server, start_proxy: StartProxy
) -> None:
    """Neither on the trunk nor with a connection of its own; and once it reads, it gets all of it."""
    proxy = start_proxy(server_70, server_82, "--workers", "1")
    size, count = 100_000, 300
    server_70.call("SET", "big", "x" * size)
    with closing(Wire(proxy.port)) as lazy, closing(Wire(proxy.port)) as relayed, closing(Wire(proxy.port)) as busy:
        ask(relayed, "CLIENT ID")
        for wire in (lazy, relayed):
            wire.send(pack([b"GET", b"big"]) * count)
        for number in range(200):
            assert ask(busy, f"SET k {number}") == [b"+OK\r\n"]
        for wire in (lazy, relayed):
            assert {len(frame) for frame in wire.frames(count)} == {size + 11}


def test_a_worker_that_is_killed(server_pool: Pool, start_proxy: StartProxy) -> None:
    """Its clients are disconnected, the others go on; it is started again, and told in the status."""
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    proxy = start_proxy(source, target, "--workers", "2")
    clients = [Wire(proxy.port) for _ in range(6)]
    for number, client in enumerate(clients):
        assert ask(client, f"SET k{number} v") == [b"+OK\r\n"]
    ask(clients[0], "CLIENT ID")  # relayed
    first, second = workers(proxy)
    assert (first["clients"], second["clients"]) == (3, 3)
    os.kill(first["pid"], signal.SIGKILL)

    def lives(client: Wire) -> bool:
        with suppress(NoReply, OSError):
            return ask(client, "PING") == [b"+PONG\r\n"]
        return False

    until(lambda: proxy.status()["clients"] == 3, "the dead worker's clients are gone")
    assert sorted(map(lives, clients)) == [False] * 3 + [True] * 3
    with closing(Wire(proxy.port)) as newcomer:  # at once: by the other worker
        assert ask(newcomer, "GET k1") == [b"$1\r\nv\r\n"]
    until(lambda: not any(worker["problem"] for worker in workers(proxy)), "the worker is back")
    assert [worker["restarts"] for worker in workers(proxy)] == [1, 0]
    assert re.search(r"worker 1 ended with -9 at", proxy.log)
    with closing(Wire(proxy.port)) as newcomer:
        until(lambda: workers(proxy)[0]["clients"] == 1, "the new worker gets the next client")
        assert ask(newcomer, "GET k2") == [b"$1\r\nv\r\n"]
    for client in clients:
        client.close()
    proxy.wait_settled()
    assert_equal_servers(source, target)


def test_a_worker_that_hangs_gets_few_more_clients(server_pool: Pool, start_proxy: StartProxy) -> None:
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    proxy = start_proxy(source, target, "--workers", "2")
    with ExitStack() as stack:
        first, second = (stack.enter_context(closing(Wire(proxy.port))) for _ in range(2))
        for client in (first, second):
            assert ask(client, "PING") == [b"+PONG\r\n"]
        hanging, _ = workers(proxy)
        os.kill(hanging["pid"], signal.SIGSTOP)
        try:
            for _ in range(40):
                stack.enter_context(closing(Wire(proxy.port)))
                assert ask(second, "PING") == [b"+PONG\r\n"]
            until(lambda: proxy.status()["clients"] == 42, "all are there")
            assert workers(proxy)[0]["clients"] <= 1 + AT_ONCE
        finally:
            os.kill(hanging["pid"], signal.SIGCONT)
        assert ask(first, "PING") == [b"+PONG\r\n"]


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="of another process: Linux only")
def test_a_worker_that_may_open_no_more_files(server_pool: Pool, start_proxy: StartProxy) -> None:
    """What it cannot have costs one client, with an error where there is still somebody to tell, and nobody else."""
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    proxy = start_proxy(source, target, "--workers", "1")
    (worker,) = workers(proxy)

    def may_open(more: int) -> None:
        fds = {int(name) for name in os.listdir(f"/proc/{worker['pid']}/fd")}
        free = (number for number in count() if number not in fds)
        resource.prlimit(worker["pid"], resource.RLIMIT_NOFILE, (next(islice(free, more, None)), 1024))

    with closing(Wire(proxy.port)) as plain, closing(Wire(proxy.port)) as wanting:
        for client in (plain, wanting):
            assert ask(client, "PING") == [b"+PONG\r\n"]
        may_open(1)
        assert ask(wanting, "CLIENT ID") == [b"-ERR max number of clients reached\r\n"]
        until(lambda: workers(proxy)[0]["clients"] == 1, "it is gone")
        may_open(0)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as unlucky:
            assert unlucky.recv(1) == b""
        until(lambda: workers(proxy)[0]["clients"] == 1, "it is forgotten")
        assert ask(plain, "SET k v") == [b"+OK\r\n"]
        may_open(100)
        with closing(Wire(proxy.port)) as client:
            assert ask(client, "GET k", "CLIENT GETNAME") == [b"$1\r\nv\r\n", b"$-1\r\n"]
        assert ask(plain, "GET k") == [b"$1\r\nv\r\n"]
    assert workers(proxy)[0]["pid"] == worker["pid"]


def test_without_any_worker_the_owner_serves(server_62: Server, server_91: Server, start_proxy: StartProxy) -> None:
    """And goes on to serve who came meanwhile when the worker is back."""
    proxy = start_proxy(server_62, server_91, "--workers", "1")
    pid = workers(proxy)[0]["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: workers(proxy)[0]["pid"] not in (0, pid), "another one is started")
    os.kill(workers(proxy)[0]["pid"], signal.SIGSTOP)  # before it can take any client
    with closing(Wire(proxy.port)) as client:
        assert ask(client, "SET k v", "GET k") == [b"+OK\r\n", b"$1\r\nv\r\n"]
        assert (proxy.status()["clients"], workers(proxy)[0]["clients"]) == (1, 0)
        os.kill(workers(proxy)[0]["pid"], signal.SIGCONT)
        until(lambda: not workers(proxy)[0]["problem"], "the worker is back")
        with closing(Wire(proxy.port)) as newcomer:
            assert ask(newcomer, "GET k") == [b"$1\r\nv\r\n"]
            assert ask(client, "GET k") == [b"$1\r\nv\r\n"]
            assert (proxy.status()["clients"], workers(proxy)[0]["clients"]) == (2, 1)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_owner_killed_under_traffic(server_pool: Pool, start_proxy: StartProxy) -> None:
    """Its workers end with it, and started again it makes both sides equal; nothing acknowledged is lost."""
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    proxy = start_proxy(source, target, "--workers", "2")
    proxy.backfill()
    with Traffic(proxy, clients=8, rate=800.0, seed=9, also_known_to=target, tolerate_disconnects=True) as traffic:
        for _ in range(2):
            traffic.wait_for(300)
            pids = [worker["pid"] for worker in workers(proxy)]
            proxy.kill()
            gone = partial(lambda pids: not any(map(alive, pids)), pids)
            until(gone, "the workers end with their owner")
            proxy.start()
        traffic.wait_for(300)
    traffic.assert_clean()
    proxy.wait_settled()
    proxy.verify()
    assert_equal_servers(source, target)
    pids = [worker["pid"] for worker in workers(proxy)]
    assert proxy.stop() == 0
    assert not any(map(alive, pids))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_source_connection_lost_under_traffic(server_pool: Pool, start_proxy: StartProxy) -> None:
    """A lost write costs its client the connection, through the trunk too; reads are answered."""
    source, target = server_pool.get("redis-7.0"), server_pool.get("valkey-9.1")
    proxy = start_proxy(source, target, "--workers", "2")
    proxy.backfill()
    killer = source.client()
    reader = proxy.client(single_connection_client=True)
    with Traffic(proxy, clients=8, rate=800.0, seed=11, also_known_to=target, tolerate_disconnects=True) as traffic:
        for _ in range(3):
            traffic.wait_for(200)
            for entry in killer.client_list():
                if entry["name"].startswith("crossfade-") and entry["name"].endswith("-link"):
                    with suppress(redis.ResponseError):
                        killer.client_kill_filter(_id=entry["id"])
            assert reader.get("never") is None
        traffic.wait_for(200)
    traffic.assert_clean()
    proxy.wait_settled()
    proxy.verify()
    assert_equal_servers(source, target)
