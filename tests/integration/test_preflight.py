"""Preflight on real servers: every obstacle that can be made is made, and must be named; a healthy pair has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner

from backfill import embedded
from backfill.embedded import TlsFiles
from backfill.errors import ConnectError
from backfill.preflight.command import examine
from backfill.preflight.model import Check, Verdict
from backfill.url import parse_url
from crossfade import main
from tests.proxies import run_crossfade, url_of
from tests.servers import Server, tls_capable
from tests.traffic import preload

StartServer = Callable[..., Server]
OK, WARNING, PROBLEM = Verdict.OK, Verdict.WARNING, Verdict.PROBLEM


async def checks_of(source: Server | str, target: Server | str, **options: Any) -> list[Check]:
    checks, _, _ = await examine(parse_url(url_of(source)), parse_url(url_of(target)), **options)
    return checks


async def one(name: str, source: Server | str, target: Server | str, **options: Any) -> Check:
    """The check of this name; there must be exactly one."""
    checks = await checks_of(source, target, **options)
    (found,) = [check for check in checks if check.name == name]
    assert found.verdict is OK or found.advice or found.name.endswith("latency"), f"says not what to do: {found}"
    return found


def bad(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.fact for check in checks if check.verdict is not OK}


def fingerprint(server: Server) -> tuple[Any, ...]:
    """What must not change on the source: data, scripts, functions."""
    info = server.call("INFO", "persistence").decode()
    changes = next(line for line in info.splitlines() if line.startswith("rdb_changes_since_last_save"))
    return server.call("INFO", "keyspace").split(b"avg_ttl")[0], changes


# --- nothing in the way ---


async def test_a_healthy_pair(server_62: Server, server_91: Server) -> None:
    """No problem, no warning; the source is as it was, to its last counter of changes, and the target is empty."""
    preload(server_62, 500)
    before = fingerprint(server_62)
    checks = await checks_of(server_62, server_91)
    assert bad(checks) == {}
    assert fingerprint(server_62) == before
    assert server_91.call("DBSIZE") == 0 and server_91.call("INFO", "keyspace") == b"# Keyspace\r\n"
    assert bad(await checks_of(server_62, server_91)) == {}, "it trips over its own traces"


def test_the_command(server_62: Server, server_91: Server) -> None:
    preload(server_62, 100)
    good = run_crossfade("preflight", "--source", server_62.url, "--target", server_91.url).done()
    assert "nothing stands in the way" in good.out and "100 of 100 keys" in good.out
    server_91.call("SET", "k", "v")
    refused = run_crossfade(
        "preflight", "--json", env={"CROSSFADE_SOURCE": server_62.url, "CROSSFADE_TARGET": server_91.url}
    )
    assert refused.code == 4 and refused.json["verdict"] == "problem"
    assert {"name", "verdict", "fact", "advice"} == set(refused.json["checks"][0])
    assert [check["name"] for check in refused.json["checks"] if check["verdict"] == "problem"] == ["target empty"]


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("redis://127.0.0.1:1", 3, "connection refused"),
        ("redis://:sesame@{at}", 3, "password"),
        ("http://x", 2, "unknown scheme"),
    ],
)
def test_no_way_in(server_62: Server, server_91: Server, url: str, code: int, words: str) -> None:
    where = ["preflight", "--source", url.format(at=f"127.0.0.1:{server_62.port}"), "--target", server_91.url, "--json"]
    result = CliRunner().invoke(main, where)
    assert result.exit_code == code and words in result.stderr and not result.stdout
    assert isinstance(result.exception, SystemExit) and "sesame" not in result.output


# --- the two servers ---


async def test_one_server_twice(server_62: Server) -> None:
    assert (await one("two servers", server_62, server_62)).verdict is PROBLEM


async def test_the_target_is_not_empty(server_62: Server, server_91: Server) -> None:
    server_91.call("SET", "k", "v", db=3)
    found = await one("target empty", server_62, server_91)
    assert found.verdict is PROBLEM and "1 keys in db 3" in found.fact


@pytest.mark.parametrize("role", ["source", "target"])
async def test_cluster_mode(start_server: StartServer, server_70: Server, role: str) -> None:
    cluster = start_server("valkey-8.1", config={"cluster-enabled": "yes"})
    pair = (cluster, server_70) if role == "source" else (server_70, cluster)
    found = await one(f"{role} cluster mode", *pair)
    assert found.verdict is PROBLEM and "single endpoint" in found.advice


@pytest.mark.parametrize("role", ["source", "target"])
async def test_a_replica(start_server: StartServer, server_70: Server, server_91: Server, role: str) -> None:
    replica = start_server("redis-7.0", config={"replicaof": f"127.0.0.1 {server_70.port}"})
    pair = (replica, server_91) if role == "source" else (server_91, replica)
    checks = await checks_of(*pair)
    found = next(check for check in checks if check.name == f"{role} role")
    assert found.verdict is PROBLEM and "primary" in found.advice
    assert any(check.name == f"{role} commands" and "READONLY" in check.fact for check in checks)


async def test_fewer_dbs(start_server: StartServer, server_62: Server) -> None:
    target = start_server("valkey-9.1", config={"databases": "2"})
    server_62.call("SET", "k", "v", db=1)
    assert (await one("dbs", server_62, target)).verdict is OK
    server_62.call("SET", "k", "v", db=5)
    found = await one("dbs", server_62, target)
    assert found.verdict is PROBLEM and "does not have db 5" in found.fact


async def test_more_dbs_than_usual(start_server: StartServer) -> None:
    source, target = (start_server(name, config={"databases": "40"}) for name in ("redis-6.2", "valkey-9.1"))
    source.call("SET", "k", "v", db=33)
    found = await one("dbs", source, target)
    assert found.verdict is OK and "33" in found.fact


async def test_a_service_that_ignores_select(start_server: StartServer, server_62: Server) -> None:
    """Made of ECHO under the name of SELECT: every number is taken, and all is one db."""
    target = start_server("redis-7.0", config={"rename-command SELECT": "", "rename-command ECHO": "SELECT"})
    found = await one("dbs", server_62, target)
    assert found.verdict is WARNING and "takes SELECT 1-15 and stays in db 0" in found.fact
    server_62.call("SET", "k", "v", db=4)
    assert (await one("dbs", server_62, target)).verdict is PROBLEM
    assert (await one("target empty", server_62, target)).verdict is OK, "the probe is still there"


# --- memory ---


def fill(server: Server, megabytes: int) -> None:
    random = Random(1)
    for number in range(megabytes):
        server.call("SET", f"filler:{number}", random.randbytes(1_000_000))


async def test_too_little_memory(server_62: Server, server_91: Server) -> None:
    fill(server_62, 6)
    server_91.call("CONFIG", "SET", "maxmemory", "100mb")
    assert (await one("memory", server_62, server_91)).verdict is OK
    server_91.call("CONFIG", "SET", "maxmemory", "9mb")
    assert (await one("memory", server_62, server_91)).verdict is WARNING
    server_91.call("CONFIG", "SET", "maxmemory", "5mb")
    found = await one("memory", server_62, server_91)
    assert found.verdict is PROBLEM and "5.0 MB" in found.fact


async def test_a_target_out_of_memory(server_62: Server, server_91: Server) -> None:
    server_91.call("CONFIG", "SET", "maxmemory", "1")
    checks = await checks_of(server_62, server_91)
    assert any(check.name == "target commands" and check.verdict is PROBLEM and "OOM" in check.fact for check in checks)


@pytest.mark.parametrize(
    ("source", "target", "verdict"),
    [
        ("noeviction", "allkeys-lru", PROBLEM),
        ("noeviction", "volatile-lru", WARNING),
        ("allkeys-lru", "allkeys-lru", OK),
        ("allkeys-lru", "noeviction", WARNING),
        ("allkeys-lru", "volatile-ttl", WARNING),
        ("noeviction", "noeviction", OK),
    ],
)
async def test_eviction(server_62: Server, server_91: Server, source: str, target: str, verdict: Verdict) -> None:
    for server, policy in ((server_62, source), (server_91, target)):
        server.call("CONFIG", "SET", "maxmemory", "200mb")
        server.call("CONFIG", "SET", "maxmemory-policy", policy)
    assert (await one("eviction", server_62, server_91)).verdict is verdict
    server_91.call("CONFIG", "SET", "maxmemory", "0")
    assert (await one("eviction", server_62, server_91)).verdict is OK, "nothing is evicted without maxmemory"


# --- what is allowed ---


def as_user(server: Server, *rules: str) -> str:
    server.call("ACL", "SETUSER", "app", "on", ">secret", *rules)
    return f"redis://app:secret@127.0.0.1:{server.port}"


async def test_a_user_with_few_rights(server_62: Server, server_91: Server) -> None:
    """What crossfade needs, and what the applications use, in one look; the password is nowhere."""
    server_62.call("GETSET", "k", "v")
    server_62.call("LPUSH", "l", "v")
    source = as_user(server_62, "~*", "+@all", "-@dangerous", "+info", "-getset")
    checks = await checks_of(source, server_91)
    assert "secret" not in repr(checks)
    told = [f"{check.name} {check.verdict.value}: {check.fact}" for check in checks]
    assert any(line.startswith("source commands warning: refused: CLIENT ID, CLIENT SETNAME") for line in told)
    (rights,) = [line for line in told if line.startswith("source rights problem")]
    assert "user app may not run GETSET, which" in rights, "and nothing else"


async def test_a_user_with_few_rights_on_the_target(server_62: Server, server_91: Server) -> None:
    server_62.call("GETSET", "k", "v")
    target = as_user(server_91, "~*", "+@all", "-getset", "-restore", "-dump")
    checks = await checks_of(server_62, target)
    told = {(check.name, check.verdict): check for check in checks}
    assert "DUMP" in told["target commands", PROBLEM].fact
    assert "RESTORE" in told["target commands", WARNING].fact and "rebuilt" in told["target commands", WARNING].advice
    assert "GETSET" in told["target rights", PROBLEM].fact


async def test_a_user_for_some_keys_only(server_62: Server, server_91: Server) -> None:
    checks = await checks_of(server_62, as_user(server_91, "~app:*", "+@all"))
    found = [check for check in checks if check.name == "target commands" and check.verdict is PROBLEM]
    assert found and all("all keys" in check.advice for check in found)


async def test_a_user_who_may_do_nothing(server_62: Server, server_91: Server) -> None:
    """Whatever is refused, it ends in verdicts."""
    for rules in (["~*", "-@all", "+ping"], ["-@all"], ["~*", "-@all", "+@read", "+select"]):
        checks = await checks_of(as_user(server_62, *rules), as_user(server_91, *rules))
        assert any(check.name == "source commands" and check.verdict is PROBLEM for check in checks)
        assert any(check.name == "commands in use" and check.verdict is WARNING for check in checks)
        server_62.call("ACL", "DELUSER", "app")
        server_91.call("ACL", "DELUSER", "app")


def without(*commands: str) -> dict[str, str]:
    """The configuration of a server that does not know them."""
    return {f"rename-command {name}": "" for name in commands}


async def test_a_service_that_disables_commands(start_server: StartServer, server_62: Server) -> None:
    target = start_server("redis-7.0", config=without("CONFIG", "MEMORY", "MODULE", "RESTORE", "SCRIPT"))
    preload(server_62, 200)
    checks = await checks_of(server_62, target)
    told = [check for check in checks if check.name == "target commands"]
    assert {check.verdict for check in told} == {OK, WARNING}, "it works without them"
    assert any("RESTORE" in check.fact and "rebuilt" in check.advice for check in told)
    assert any("SCRIPT" in check.fact for check in told)


async def test_no_multi(start_server: StartServer, server_62: Server) -> None:
    """Then nothing may be asked by way of MULTI: it would be executed."""
    source = start_server("redis-6.2", config=without("MULTI"))
    source.call("SET", "k", "v")
    before = fingerprint(source)
    checks = await checks_of(source, server_62)
    assert any("MULTI" in check.fact and check.verdict is PROBLEM for check in checks)
    assert fingerprint(source) == before, "something was written"


# --- what is in use ---


async def test_a_command_that_the_target_does_not_know(server_91: Server, server_62: Server) -> None:
    """Backwards: hash-field TTLs of a newer source, as a command and as data."""
    server_91.call("HSET", "h", "f", "v", "g", "w")
    assert "commands in use" not in bad(await checks_of(server_91, server_62))
    server_91.call("HEXPIRE", "h", "1000", "FIELDS", "1", "f")
    checks = await checks_of(server_91, server_62)
    told = {(check.name, check.verdict): check.fact for check in checks}
    assert "HEXPIRE (1 calls)" in told["commands in use", PROBLEM]
    assert "lose their TTL" in told["values", PROBLEM]
    assert "refuses the source's DUMP of hash" in told["values", WARNING]


async def test_a_subcommand_that_the_target_does_not_know(
    server_82: Server, server_62: Server, server_70: Server
) -> None:
    server_82.call("XADD", "s", "1-1", "f", "v")
    server_82.call("XGROUP", "CREATE", "s", "g", "0")
    server_82.call("XGROUP", "CREATECONSUMER", "s", "g", "c")
    assert "commands in use" not in bad(await checks_of(server_82, server_70))
    assert "commands in use" not in bad(await checks_of(server_82, server_62)), "6.2 lists no subcommands"
    server_82.call("XDELEX", "s", "IDS", "1", "1-1")
    assert "XDELEX" in bad(await checks_of(server_82, server_70))["commands in use"]


async def test_functions(server_70: Server, server_62: Server, server_91: Server) -> None:
    server_70.call("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)")
    assert (await one("functions", server_70, server_62)).verdict is PROBLEM
    assert (await one("functions", server_70, server_91)).verdict is WARNING
    server_70.call("FUNCTION", "FLUSH")


async def test_modules_and_their_keys(start_server: StartServer, server_91: Server) -> None:
    """A real module (a graph database), and a type that newer servers have built in."""
    library = Path(embedded.find("redis-8.2").path).parent / "falkordb.so"
    source = start_server("redis-8.2", config={"loadmodule": str(library)})
    found = await one("modules", source, server_91)
    assert found.verdict is WARNING and "graph" in found.fact
    source.call("GRAPH.QUERY", "g", "CREATE (:A)")
    source.call("VADD", "v", "VALUES", "2", "1", "0", "element")
    checks = await checks_of(source, server_91)
    types = [check.fact for check in checks if check.name == "types"]
    assert len(types) == 2 and any("graphdata" in fact for fact in types) and any("vectorset" in fact for fact in types)
    used = next(check for check in checks if check.name == "commands in use")
    assert used.verdict is PROBLEM and "GRAPH.QUERY" in used.fact and "VADD" in used.fact


# --- keys ---


async def test_big_keys(server_62: Server, server_91: Server) -> None:
    preload(server_62, 200)
    server_62.call("SET", "monster", b"x" * 40_000_000, db=2)
    found = await one("big keys", server_62, server_91, whole=True)
    assert found.verdict is WARNING and "db 2 b'monster' (string): " in found.fact and "201 of 201" in found.fact
    server_91.call("CONFIG", "SET", "proto-max-bulk-len", "30mb")
    found = await one("big keys", server_62, server_91, whole=True)
    assert found.verdict is PROBLEM and "proto-max-bulk-len" in found.advice


async def test_big_keys_without_memory_usage(start_server: StartServer, server_91: Server) -> None:
    source = start_server("redis-6.2", config=without("MEMORY"))
    source.call("RPUSH", "l", *range(500))
    source.call("SET", "s", "x" * 300)
    found = await one("big keys", source, server_91)
    assert found.verdict is OK and "b'l' (list): 500 elements" in found.fact


async def test_a_sample_ends_in_time(server_62: Server, server_91: Server) -> None:
    preload(server_62, 3000)
    some = await one("big keys", server_62, server_91, seconds=0.0)
    seen = int(some.fact.split()[0].replace(",", ""))
    assert 0 < seen < 3000 and "of 3,000 keys" in some.fact
    everything = await one("big keys", server_62, server_91, seconds=0.0, whole=True)
    assert everything.fact.startswith("3,000 of 3,000")


# --- TLS ---


@pytest.mark.parametrize("insecure", [False, True])
async def test_tls(start_server: StartServer, server_91: Server, tls_files: TlsFiles, insecure: bool) -> None:
    if not tls_capable():
        pytest.skip("no server here speaks TLS")
    source = start_server(tls_capable()[0], tls=tls_files, password="sesame")
    url = source.url if not insecure else source.url.partition("?")[0] + "?insecure=true"
    found = await one("source TLS", url, server_91)
    assert found.fact.startswith("TLSv1.") and found.verdict is (WARNING if insecure else OK)
    assert ("not checked" if insecure else "certificate checked") in found.fact
    assert json.dumps(found.to_json()).count("sesame") == 0


async def test_no_answer_is_no_verdict(server_62: Server) -> None:
    with pytest.raises(ConnectError):
        await checks_of(server_62, "redis://127.0.0.1:1")
