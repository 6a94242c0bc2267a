"""What the sides cannot have in common: named before a flip, counted after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.equality import assert_equal_servers
from tests.proxies import RunningProxy, run_crossfade, until
from tests.servers import Server

StartProxy = Callable[..., RunningProxy]


def filled(proxy: RunningProxy) -> RunningProxy:
    proxy.admin("BACKFILL")
    until(lambda: proxy.status()["phase"] == "in-sync", "filled")
    return proxy


def dry_run(proxy: RunningProxy) -> dict[str, Any]:
    return dict(proxy.admin("FLIP", "DRY-RUN", "SKIP-VERIFY"))


def told(proxy: RunningProxy) -> str:
    """The warnings. A warning never forbids a flip."""
    outcome = dry_run(proxy)
    assert outcome["reasons"] == []
    return "\n".join(outcome["warnings"])


def test_before_and_after(start_proxy: StartProxy, server_62: Server, server_91: Server) -> None:
    """6.2 -> 9.1: what the source cannot hold is named before; what applications then use of it is counted."""
    proxy = filled(start_proxy(server_62, server_91))
    client = proxy.client()
    client.hset("h", mapping={"f": "v", "g": "w"})
    before = told(proxy)
    assert "the source cannot hold TTLs of hash fields (HEXPIRE)" in before and "in vain" not in before
    with pytest.raises(redis.ResponseError, match="unknown command"):
        client.execute_command("HEXPIRE", "h", "1000", "FIELDS", "1", "f")
    with pytest.raises(redis.ResponseError, match="requires the key to exist"):
        client.xgroup_create("no stream", "g")  # 6.2 knows it, though it does not list it
    assert "clients asked in vain for HEXPIRE (1), which" in told(proxy)
    flipped = proxy.admin("FLIP", "SKIP-VERIFY")
    assert flipped["flipped"] and len(flipped["warnings"]) == 2
    assert proxy.status()["unheld"] == {"commands": {}, "misunderstood": {}, "keys": 0, "examples": []}
    assert client.execute_command("HEXPIRE", "h", "1000", "FIELDS", "1", "f") == [1]
    client.eval("return redis.call('HPERSIST', KEYS[1], 'FIELDS', 1, 'g')", 1, "h")

    def counted() -> dict[str, Any] | None:
        dry_run(proxy)  # which asks the server at once; status is told every few seconds
        unheld = proxy.status()["unheld"]
        return unheld if len(unheld["commands"]) == 2 and unheld["keys"] else None

    unheld = until(counted, "counted")
    assert unheld["commands"] == {"HEXPIRE": 1, "HPERSIST": 1}, "what a script ran counts as well"
    assert unheld["keys"] == 1 and "db 0 b'h'" in unheld["examples"][0] and "TTL" in unheld["examples"][0]
    shown = proxy.cli("status").done().out
    assert "not for the mirror" in shown and "HEXPIRE (1)" in shown
    back = dry_run(proxy)
    assert any("the source does not know HEXPIRE (1), HPERSIST (1)" in warning for warning in back["warnings"])
    assert any("hash fields lose their TTL" in reason for reason in back["reasons"]), "that data would be lost"
    client.delete("h")
    until(lambda: proxy.status()["unheld"]["keys"] == 0, "nothing left to lose")


def test_a_step_backwards(start_proxy: StartProxy, server_70: Server, server_62: Server) -> None:
    """7.0 -> 6.2: commands and options in use that the target does not know. The data are equal all the same."""
    proxy = filled(start_proxy(server_70, server_62))
    client = proxy.client()
    client.set("k", "v")
    assert dry_run(proxy)["warnings"] == []
    assert client.execute_command("LMPOP", "1", "no list", "LEFT") is None
    client.xadd("s", {"f": "v"}, id="1-1")
    client.execute_command("XSETID", "s", "2-1", "ENTRIESADDED", "5", "MAXDELETEDID", "0-1")
    proxy.wait_settled()
    warnings = told(proxy)
    assert "the target does not know LMPOP (1), in use on the source" in warnings
    assert "does not understand what clients send: XSETID failed on the mirror: ERR" in warnings, "a new option"
    assert_equal_servers(server_70, server_62)


@pytest.mark.slow
def test_a_new_type(start_proxy: StartProxy, server_62: Server, server_82: Server) -> None:
    """6.2 -> 8.2, where a vector set is made: the old side cannot have it, and the gate says so."""
    proxy = filled(start_proxy(server_62, server_82))
    assert "vector sets (VADD)" in told(proxy)
    assert proxy.admin("FLIP", "SKIP-VERIFY")["flipped"]
    proxy.client().execute_command("VADD", "v", "VALUES", "2", "1", "0", "element")
    until(lambda: any("b'v' cannot be copied" in reason for reason in dry_run(proxy)["reasons"]), "named")
    until(lambda: proxy.status()["unheld"]["commands"] == {"VADD": 1}, "counted")


def test_equal_versions(start_proxy: StartProxy, start_server: Callable[..., Server], server_91: Server) -> None:
    """Nothing to say, and no command of crossfade's own is taken for an application's."""
    proxy = filled(start_proxy(server_91, start_server("valkey-9.1")))
    client = proxy.client()
    client.hset("h", "f", "v")
    client.execute_command("HEXPIRE", "h", "1000", "FIELDS", "1", "f")
    with pytest.raises(redis.ResponseError):
        client.execute_command("NOSUCHCOMMAND")
    proxy.wait_settled()
    for _ in range(2):
        outcome = dry_run(proxy)
        assert outcome["warnings"] == [] and outcome["reasons"] == []
        assert outcome["estimate_ms"] >= outcome["drain_ms"] > 0
        assert proxy.admin("FLIP", "SKIP-VERIFY")["warnings"] == []


def test_what_is_printed(start_proxy: StartProxy, server_62: Server, server_91: Server) -> None:
    proxy = filled(start_proxy(server_62, server_91))
    dry = proxy.cli("flip", "--dry-run", "--skip-verify").done().out
    assert "a pause of about" in dry and "  ! the source cannot hold" in dry
    asked = run_crossfade("flip", "--force", "--state-dir", str(proxy.state_dir), stdin="n\n")
    assert "  - no clean verify pass" in asked.err and "is lost" in asked.err and "new backfill" in asked.err
    assert asked.code not in (0, 4) and proxy.status()["serving"] == "source"
