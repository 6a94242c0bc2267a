"""A client cannot tell the proxy from its server: the same calls, the same bytes, but for what differences.py lists.

One bare server, and one proxy between two others, per version; the tests of one version share them, and the last one
looks whether all that was done has left both sides of the proxy equal. (tests/conftest.py keeps them on one worker.)
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.differential import calls_server, transcripts
from tests.differential.conversations import Differ, Talk, parse
from tests.differential.corpus import Unit, command_name, templates, units
from tests.differential.coverage import TABLES, measure
from tests.differential.differences import KNOWN, KNOWN_CONVERSATIONS, documented, known
from tests.differential.sides import TARGETS, Sides, running
from tests.differential.wire import Wire, pack
from tests.equality import Difference, compare_servers
from tests.proxies import RunningProxy
from tests.servers import Pool

pytestmark = pytest.mark.server

DATA = [name for name in TABLES if name not in ("ALONE", "SESSION", "REFUSED")]
MB = 1 << 20


WITH_WORKER = [pytest.param(f"{name}+worker", marks=pytest.mark.slow) for name in TARGETS]


@pytest.fixture(scope="module", params=[*TARGETS, *WITH_WORKER])
def sides(request: pytest.FixtureRequest) -> Iterator[Sides]:
    name, _, worker = request.param.partition("+")
    with running(name, *(["--workers", "1"] if worker else [])) as sides:
        yield sides


def test_every_command_has_a_call(sides: Sides, record_property: Callable[[str, Any], None]) -> None:
    found = measure(sides.bare)
    record_property("differential coverage", str(found))
    assert not set(found.missing) - calls_server.UNTESTED.keys()
    assert not found.unused


@pytest.mark.parametrize("resp", [2, 3])
def test_calls_about_the_whole_server(sides: Sides, resp: int) -> None:
    """First, as the others' keys would be in the way."""
    for unit in _units("ALONE", resp):
        sides.run([unit], resp, pipelined=False)
    _same_but_known(sides)


@pytest.mark.parametrize("table", DATA)
def test_calls(sides: Sides, table: str) -> None:
    """RESP2 in one write for each unit, RESP3 one by one."""
    sides.run(_units(table, 2), 2)
    sides.run(_units(table, 3), 3, pipelined=False)
    _same_but_known(sides)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("table", DATA)
def test_many_more_calls(sides: Sides, table: str) -> None:
    """More combinations of options, and the other way round."""
    sides.run(_units(table, 3, limit=200, tag="more"), 3)
    sides.run(_units(table, 2, limit=60, tag="more"), 2, pipelined=False)
    _same_but_known(sides)


@pytest.mark.parametrize("resp", [2, 3])
def test_calls_about_the_session(sides: Sides, resp: int) -> None:
    sides.run(_units("SESSION", resp), resp, pipelined=False, fresh=True)
    _same_but_known(sides)


def test_refused_calls(sides: Sides) -> None:
    """Not sent to the bare server: it might do it."""
    wire = Wire(sides.proxy.port)
    for unit in _units("REFUSED", 2, mutate=False):
        for args in unit.calls:
            answer = wire.ask(args)
            assert answer.startswith(b"-ERR ") and b"proxy" in answer, (args, answer)
    assert wire.ask([b"PING"]) == b"+PONG\r\n"
    wire.close()


@pytest.mark.parametrize("section", transcripts.ALL)
def test_conversations(sides: Sides, section: str) -> None:
    wrong = []
    for conversation in parse(transcripts.ALL[section]):
        if sides.bare.version[1:] < conversation.min_version:
            continue
        name = f"{section}: {conversation.name}"
        is_known = name in KNOWN_CONVERSATIONS and sides.name in KNOWN_CONVERSATIONS[name].versions
        try:
            Talk(conversation, sides.bare.port, sides.proxy.port, prefix=_prefix(name)).run()
        except Differ as problem:
            if not is_known:
                wrong.append(str(problem))
        else:
            if is_known:
                wrong.append(f"{name} is the same now: take it off KNOWN_CONVERSATIONS")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("resp", [2, 3])
def test_big_values(sides: Sides, resp: int) -> None:
    big = bytes(range(256)) * (MB // 256)
    key = b"big:%d" % resp
    calls = (
        (b"SET", key, big), (b"GET", key), (b"APPEND", key, big), (b"STRLEN", key), (b"GETRANGE", key, b"-9", b"-1"),
        (b"RPUSH", key + b"l", *[b"%d" % number for number in range(10_000)]), (b"LRANGE", key + b"l", b"0", b"-1"),
        (b"HSET", key + b"h", b"f", big), (b"HGETALL", key + b"h"), (b"MGET", key, key, key), (b"ECHO", big),
        (b"EVAL", b"return {ARGV[1], ARGV[1]}", b"0", big), (b"SETRANGE", key, b"1", big), (b"INCR", key),
    )  # fmt: skip
    for pipelined in (False, True):
        sides.run([Unit("big", f"big:{resp}", (), calls, False)], resp, pipelined=pipelined)
    _same_but_known(sides)


def test_deep_pipelines(sides: Sides) -> None:
    """All kinds of commands in one write, many times over."""
    calls = [
        (b"SET", b"deep:k", b"v"), (b"GET", b"deep:k"), (b"MULTI",), (b"INCR", b"deep:n"), (b"GET", b"deep:n"),
        (b"EXEC",), (b"RPUSH", b"deep:q", b"a", b"b"), (b"BLPOP", b"deep:q", b"0"), (b"NOSUCH",),
        (b"EVAL", b"return redis.call('INCR', KEYS[1])", b"1", b"deep:n"), (b"HGET", b"deep:k", b"f"),
        (b"SELECT", b"1"), (b"INCR", b"deep:n"), (b"SELECT", b"0"), (b"WATCH", b"deep:k"), (b"MULTI",),
        (b"GET", b"deep:k"), (b"EXEC",), (b"HELLO", b"3"), (b"HGETALL", b"deep:h"), (b"HELLO", b"2"),
        (b"CONFIG", b"GET", b"maxmemory"), (b"LPOP", b"deep:q"), (b"CLIENT", b"SETNAME", b"deep"), (b"PING",),
    ]  # fmt: skip
    sides.run([Unit("deep", "deep", (), tuple(calls * 200), False)], 2)
    _same_but_known(sides)


def test_a_pipeline_that_is_sent_before_it_is_read(server_pool: Pool, start_proxy: Callable[..., RunningProxy]) -> None:
    """As client libraries do it; a server goes on reading, and keeps the replies."""
    proxy = start_proxy(server_pool.get("redis-7.0"), server_pool.get("redis-6.2"))
    payload = bytes(MB)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=4) as client:
        client.sendall(pack([b"ECHO", payload]) * 32)
        with client.makefile("rb") as replies:
            assert len(replies.read(32 * (MB + 12))) == 32 * (MB + 12)


def test_monitor(sides: Sides) -> None:
    """Through the proxy one sees the proxy's own commands, too, and no client's address: a list of what was done."""
    seen = []
    for port in (sides.bare.port, sides.proxy.port):
        watcher, client = Wire(port), Wire(port)
        assert watcher.ask([b"MONITOR"]) == b"+OK\r\n"
        client.send(b"".join(map(pack, [(b"SET", b"mon:k", b"a\r\nb"), (b"SELECT", b"1"), (b"GET", b"mon:k")])))
        client.frames(3)
        lines: list[bytes] = []
        while len(lines) < 2:
            line = watcher.frames(1)[0]
            if b'"SET" "mon:k"' in line or b'"GET" "mon:k"' in line:
                lines.append(line[line.index(b'"') :] + line[line.index(b"[") : line.index(b" ", line.index(b"["))])
        seen.append(lines)
        watcher.close()
        client.close()
    assert seen[0] == seen[1]


def test_at_rest_both_sides_are_equal(sides: Sides) -> None:
    """What all of the above has left: on source and target the same, and on the bare server, but for chance."""
    sides.proxy.wait_settled()
    counters = not (sides.source.version >= ("valkey", 9, 1) and sides.target.version[0] == "redis")
    apart = compare_servers(sides.source, sides.target, stream_counters=counters, limit=10_000)
    _nothing([one for one in apart if not _random_links(one)])
    spoilt = tuple(_prefix(name).encode() for name in KNOWN_CONVERSATIONS)
    changed = [
        one
        for one in compare_servers(sides.bare, sides.source, 5000, limit=10_000)
        if one.key.rpartition(b":")[0] not in sides.varying and not one.key.startswith(spoilt)
    ]
    _nothing([one for one in changed if not _random_links(one)])


def test_known_differences_are_still_there(sides: Sides) -> None:
    """An entry of KNOWN that is mended must go."""
    mended = [one.reason for one in KNOWN if one.concerns(sides.name) and one not in sides.known]
    assert not mended


def test_the_documented_list_is_readable() -> None:
    for names, instead, reason in documented():
        assert names and instead and reason


def _units(table: str, resp: int, *, tag: str = "", mutate: bool = True, limit: int = 16) -> Iterator[Unit]:
    for number, line in enumerate(templates(TABLES[table])):
        yield from units(line, f"{tag}{table}{number}.{resp}", mutate=mutate, limit=limit)


def _same_but_known(sides: Sides) -> None:
    found, sides.differs = sides.differs, []
    wrong = []
    for one in found:
        entry = known(one.args, sides.name)
        if entry is None:
            wrong.append(one)
        else:
            sides.known.add(entry)
    counted: dict[str, int] = {}
    shown = []
    for one in wrong:
        name = command_name(one.args)
        counted[name] = counted.get(name, 0) + 1
        if counted[name] <= 3:
            shown.append(f"{one}\n    in {one.unit.ident}")
    assert not wrong, f"{len(wrong)} replies differ {counted}:\n" + "\n".join(shown[:20])


def _nothing(found: list[Difference]) -> None:
    assert not found, f"{len(found)} keys, the first: " + "\n".join(map(str, found[:20]))


def _random_links(one: Difference) -> bool:
    """A vector set's DUMP holds links between its elements, which are random."""
    return "vectorset" in one.detail


def _prefix(conversation: str) -> str:
    return f"{conversation}:".replace(" ", "_")
