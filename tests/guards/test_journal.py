"""Invariants 3 and 4: the journal names a key until its write is known to be equal on both sides."""

from __future__ import annotations

import pytest
import trio

from proxy import journal, upkeep
from tests.inprocess import in_process, until
from tests.servers import Server

KEY = (0, b"k")


@pytest.mark.parametrize("hanging", ["lane", "mirror"])
async def test_a_segment_serves_until_both_sides_have_answered(
    hanging: str, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the proxy killed while one of them hangs, its next start would have to know the key."""
    monkeypatch.setattr(upkeep, "JOURNAL_SECONDS", 0.01)
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1)
    async with in_process(server_62, server_91) as running:
        kept = running.proxy.journal
        client = await running.client()
        link = getattr(running.hub, hanging).link
        running.stall(link)
        first = kept._segments[-1].number
        await client.say("SET k v")
        await until(lambda: kept._segments[-1].number > first, "another segment")
        await trio.sleep(0.1)  # ten looks at it
        assert KEY in (journal.unsettled(kept.directory) or ())
        running.go(link)
        await until(lambda: KEY not in (journal.unsettled(kept.directory) or ()), "it has served")
        assert not await running.differences()
