"""CLIENT PAUSE ... WRITE: who waits behind the proxy is who waits at a server."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from tests.differential.wire import pack, split_frames
from tests.proxies import RunningProxy, until
from tests.servers import Pool

READS = "#!lua flags=no-writes\nreturn 1"
WRITES = "return 1"
FLAGGED = "#!lua flags=allow-oom\nreturn 1"
LIBRARY = """#!lua name=l
redis.register_function{function_name='reads', callback=function() return 1 end, flags={'no-writes', 'allow-stale'}}
redis.register_function('writes', function() return 2 end)"""
CASES: dict[str, list[tuple[Any, ...]]] = {
    "EVAL": [("EVAL", WRITES, 0)],
    "EVAL flagged": [("EVAL", FLAGGED, 0)],
    "EVAL reads": [("EVAL", READS, 0)],
    "EVAL_RO": [("EVAL_RO", WRITES, 0)],
    "EVALSHA": [("EVALSHA", "writes", 0)],
    "EVALSHA flagged": [("EVALSHA", "flagged", 0)],
    "EVALSHA reads": [("EVALSHA", "reads", 0)],
    "EVALSHA reads, refused": [("EVALSHA", "reads", "x")],
    "EVALSHA unknown": [("EVALSHA", "f" * 40, 0)],
    "EVALSHA_RO": [("EVALSHA_RO", "writes", 0)],
    "FCALL reads": [("FCALL", "reads", 0)],
    "FCALL READS": [("FCALL", "READS", 0)],
    "FCALL writes": [("FCALL", "writes", 0)],
    "FCALL unknown": [("FCALL", "nosuch", 0)],
    "FCALL_RO": [("FCALL_RO", "reads", 0)],
    "MULTI EVALSHA reads": [("MULTI",), ("EVALSHA", "reads", 0), ("EXEC",)],
    "MULTI FCALL reads": [("MULTI",), ("FCALL", "reads", 0), ("EXEC",)],
    "MULTI FCALL writes": [("MULTI",), ("FCALL", "writes", 0), ("EXEC",)],
    "FUNCTION LOAD": [("FUNCTION", "LOAD", "REPLACE", LIBRARY)],
    "FUNCTION LIST": [("FUNCTION", "LIST")],
    "SCRIPT LOAD": [("SCRIPT", "LOAD", READS)],
}


def waits(port: int, operator: redis.Redis, commands: list[tuple[Any, ...]]) -> bool:
    """Whether they wait for the end of the pause. A function may wait a moment, until the proxy has asked the server:
    that question is answered before a read that comes later."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(pack([b"CLIENT", b"ID"]))
        own = client.recv(100).strip(b":\r\n").decode()
        operator.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        client.sendall(b"".join(pack([str(word).encode() for word in words]) for words in commands))
        data = b""

        def answered() -> bool:
            nonlocal data
            while select.select([client], [], [], 0)[0]:
                data += client.recv(10_000)
            return len(split_frames(data)[0]) == len(commands)

        def held() -> bool:
            return any(each["id"] == own and "b" in each["flags"] for each in operator.client_list())

        until(lambda: answered() or (held() and operator.get("nothing") is None and held()))
        waited = not answered()
        operator.execute_command("CLIENT", "UNPAUSE")
        until(answered)
        return waited


@pytest.mark.parametrize(
    "name", ["redis-7.0", *(pytest.param(each, marks=pytest.mark.slow) for each in ("redis-8.2", "valkey-9.1"))]
)
def test_scripts_that_wait(server_pool: Pool, name: str) -> None:
    """As at the server, for whatever the proxy has seen."""
    source, target = server_pool.get(name), server_pool.get("valkey-8.1")
    with ExitStack() as stack:
        proxy = stack.enter_context(RunningProxy(source, target))
        found = []
        for where in (source, proxy):
            operator = stack.enter_context(redis.Redis(port=where.port, decode_responses=True))
            operator.flushall()
            operator.function_load(LIBRARY, replace=True)
            digests = {text: operator.script_load(body) for text, body in SCRIPTS.items()}
            resolved = {case: [_resolved(words, digests) for words in commands] for case, commands in CASES.items()}
            found.append({case: waits(where.port, operator, commands) for case, commands in resolved.items()})
    assert found[1] == found[0]
    assert sum(found[0].values()) in range(5, 15)


SCRIPTS = {"reads": READS, "writes": WRITES, "flagged": FLAGGED}


def _resolved(words: tuple[Any, ...], digests: dict[str, str]) -> tuple[Any, ...]:
    if words[0].startswith("EVALSHA"):
        return words[0], digests.get(words[1], words[1]), *words[2:]
    return words
