"""A key that only the mirror side has, and that clients make anew behind the backfill's scan.

What is switched off: the look for such keys before the scan.
"""

from __future__ import annotations

import pytest

from backfill.client import Client
from proxy.filling import Filling, Plan
from tests.equality import What
from tests.inprocess import in_process
from tests.servers import Server


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
async def test_a_stale_key_that_is_made_anew_behind_the_scan(
    guarded: bool, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill, when the effect of a DEL was lost. SADD is answered alike, and no side has the key alone."""
    finish, look = Filling._finish_copies, Filling._extras
    server_62.call("SET", "another", "1")
    async with in_process(server_62, server_91, backfilled=False) as running:
        server_91.call("SADD", "k", "stale")
        client = await running.client()
        looks: list[str] = []

        async def finish_copies(self: Filling) -> None:
            await client.ask("SADD k new")
            await finish(self)

        async def extras(self: Filling, serving: Client) -> None:
            looks.append("a look")
            if guarded or len(looks) > 1:
                await look(self, serving)

        monkeypatch.setattr(Filling, "_finish_copies", finish_copies)
        monkeypatch.setattr(Filling, "_extras", extras)
        await Filling(running.proxy).run(Plan())
        await running.settled()
        found = await running.differences()
    assert len(looks) == 2
    assert [(one.key, one.what) for one in found] == ([] if guarded else [(b"k", What.VALUE)])
