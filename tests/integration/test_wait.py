"""WAIT counts the replicas that have what went down the lane, not what the asking connection wrote itself."""

from __future__ import annotations

from collections.abc import Callable

from tests.proxies import RunningProxy, until
from tests.servers import Server

Start = Callable[..., Server]
StartProxy = Callable[..., RunningProxy]


def test_wait_with_a_replica(start_server: Start, start_proxy: StartProxy, server_91: Server) -> None:
    source, replica = start_server("redis-6.2"), start_server("redis-6.2")
    replica.call("REPLICAOF", "127.0.0.1", str(source.port))
    until(lambda: replica.client().info("replication")["master_link_status"] == "up", "replicates")
    client = start_proxy(source, server_91).client()
    for number in range(3):
        client.set("k", number)
        assert client.wait(1, 20_000) == 1
        assert replica.client().get("k") == b"%d" % number
    assert client.wait(0, 0) in (0, 1)
    assert client.wait(2, 50) <= 1  # there are not so many: what there is, when the time is over


def test_wait_inside_a_transaction_does_not_wait(start_proxy: StartProxy, server_62: Server, server_91: Server) -> None:
    client = start_proxy(server_62, server_91).client()
    pipeline = client.pipeline(transaction=True)
    pipeline.set("k", 1)
    pipeline.execute_command("WAIT", 1, 0)
    assert pipeline.execute() == [True, 0]
