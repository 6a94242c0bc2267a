"""Invariant 6: what is derived from other keys is copied, never replayed: its operands may not be equal yet.

The operand is changed by a script, whose copy is only lag; the derived command is right behind it. What is switched
off: the derived command is mirrored as it was sent, its reply compared. Where all else is equal, so is the reply.
"""

from __future__ import annotations

import pytest

from proxy.effects.build import as_sent
from tests.inprocess import InProcess, in_process
from tests.servers import Server

# By command: what both sides have, what a script makes of it, the derived command, what differs in the end.
CASES = {
    "SUNIONSTORE": ("SADD s a b", "DEL s|SADD s c d", "SUNIONSTORE to s", "to"),
    "SDIFFSTORE": ("SADD s a b", "DEL s|SADD s c d", "SDIFFSTORE to s none", "to"),
    "SINTERSTORE": ("SADD s a b", "DEL s|SADD s c d", "SINTERSTORE to s s", "to"),
    "ZUNIONSTORE": ("ZADD s 1 a", "ZADD s 2 a", "ZUNIONSTORE to 1 s", "to"),
    "ZRANGESTORE": ("ZADD s 1 a", "ZADD s 2 a", "ZRANGESTORE to s 0 -1", "to"),
    "GEOSEARCHSTORE": (
        "GEOADD s 13 38 a",
        "GEOADD s 14 38 a",
        "GEOSEARCHSTORE to s FROMLONLAT 13 38 BYRADIUS 500 km",
        "to",
    ),
    "BITOP": ("SET s abc", "SET s xyz", "BITOP NOT to s", "to"),
    "PFMERGE": ("PFADD s a", "DEL s|PFADD s b", "PFMERGE to s", "to"),
    "SORT": ("RPUSH s 1 2", "LSET s 0 3", "SORT s STORE to", "to"),
    "COPY": ("SET s abc", "SET s xyz", "COPY s to", "to"),
    "RENAME": ("SET s abc", "SET s xyz", "RENAME s to", "to"),
    "MOVE": ("SET s abc", "SET s xyz", "MOVE s 1", "s"),
}


def script(body: str) -> list[bytes]:
    lines = (", ".join(f"'{word}'" for word in line.split()) for line in body.split("|"))
    return [b"EVAL", "\n".join(f"redis.call({line})" for line in lines).encode(), b"1", b"s"]


def replayed(running: InProcess, name: str) -> None:
    """The naive rule. Catalogs are made anew for each proxy."""
    running.proxy.serving.catalog.specs[name.encode()].rule = as_sent()


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
@pytest.mark.parametrize("name", CASES)
async def test_an_operand_that_is_not_copied_yet(
    name: str, guarded: bool, server_62: Server, server_91: Server
) -> None:
    before, change, derived, key = CASES[name]
    async with in_process(server_62, server_91) as running:
        if not guarded:
            replayed(running, name)
        client = await running.client()
        await client.ask(before)
        await running.settled()
        replies = await client.ask(script(change), derived)
        assert not any(reply.startswith(b"-") for reply in replies)
        await running.settled()
        found = await running.differences()
    assert {one.key for one in found} == (set() if guarded else {key.encode()})


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
@pytest.mark.parametrize("name", ["SUNIONSTORE", "COPY", "BITOP"])
async def test_an_operand_that_the_backfill_has_not_reached(
    name: str, guarded: bool, server_62: Server, server_91: Server
) -> None:
    """In `filling`: the mirror side has an older state of the operand, which another proxy left behind."""
    before, change, derived, key = CASES[name]
    async with in_process(server_62, server_91, backfilled=False) as running:
        if not guarded:
            replayed(running, name)
        for server, command in ((server_91, before), *((server_62, line) for line in change.split("|"))):
            server.call(*command.split())
        client = await running.client()
        assert not (await client.ask(derived))[0].startswith(b"-")
        await running.settled()
        found = await running.differences()
        assert key.encode() not in {one.key for one in found} or not guarded
        await running.at_rest()
        left = await running.differences()
    assert not left  # the backfill mends both
    assert guarded or key.encode() in {one.key for one in found}
