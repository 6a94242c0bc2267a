"""Big keys of the size that the name means, with the product's own pages: minutes each.

5 million members, 2 million list elements and stream entries, a string of 200 MB, all written to while they are copied
and while they are verified. No reply on the lane may be larger than a few pages. `CROSSFADE_LARGE=0.1`: a tenth.
"""

from __future__ import annotations

import os

import pytest
import trio

from proxy.bigkeys import PAGE_BYTES
from proxy.filling import Filling, Plan
from proxy.verifying import Terms, Verifying
from tests.inprocess import in_process
from tests.integration.test_bigkeys import CALLS, fill, write
from tests.servers import Pool

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SCALE = float(os.environ.get("CROSSFADE_LARGE", "1"))

SIZES = {
    "hash": 5_000_000,
    "set": 5_000_000,
    "zset": 5_000_000,
    "list": 2_000_000,
    "stream": 2_000_000,
    "string": 14_300_000,  # of 14 bytes: 200 MB
}


@pytest.mark.parametrize("kind", SIZES)
async def test_copied_and_verified_while_it_is_written_to(server_pool: Pool, kind: str) -> None:
    a, b = server_pool.get("redis-7.0"), server_pool.get("valkey-9.1")
    count = round(SIZES[kind] * SCALE)
    pause = 0.2 if kind == "list" else 0.01  # LREM and LINSERT go through all of it: nothing else would be served
    fill(a.client(socket_timeout=60), kind, "big", count)
    try:
        async with in_process(a, b, backfilled=False) as running:
            largest = [0]
            call = running.hub.lane.call

            def measured(db, commands, callback, **options):  # type: ignore[no-untyped-def]
                def on_reply(frame: bytes | None) -> None:
                    largest[0] = max(largest[0], len(frame or b""))
                    callback(frame)

                call(db, commands, on_reply, **options)

            running.hub.lane.call = measured  # type: ignore[method-assign]
            done = trio.Event()
            async with trio.open_nursery() as nursery:
                for seed in range(4):
                    client = await running.client()
                    nursery.start_soon(write, client, CALLS[kind], b"big", count, seed, done.is_set, pause)
                filling = Filling(running.proxy)
                await filling.run(Plan())
                assert filling.progress.complete, filling.progress
                verifying = Verifying(running.proxy)
                await verifying.run(Terms())
                assert verifying.report.state == "done" and not verifying.report.different, verifying.report
                done.set()
            with trio.fail_after(120):
                while not running.hub.settled:
                    await trio.sleep(0.1)
            print(kind, running.hub.repair.copies_in_pages, "largest", largest[0], filling.progress)
            pending = sum(group["pending"] for group in a.client().xinfo_groups("big")) if kind == "stream" else 0
            assert largest[0] < 8 * PAGE_BYTES + 120 * pending  # these are read at one point
            assert not await running.differences()
    finally:
        a.client(socket_timeout=60).flushall()
        b.client(socket_timeout=60).flushall()
