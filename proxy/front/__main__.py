"""`python -m proxy.front NUMBER`: the process of one front. Started by the owner, with the channel as its stdin."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys

import trio
from setproctitle import setproctitle

from proxy.front.hub import FrontHub

RETRY_SECONDS = 0.05  # a trunk that is closed again and again is not made in a tight loop


async def _run(hub: FrontHub) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.floor.run)
        while True:
            await hub.until_lost()
            await trio.sleep(RETRY_SECONDS)
            hub.open_trunk()
            hub.flush()


def main() -> None:
    """Serve until the owner is gone."""
    number = sys.argv[1]
    setproctitle(f"crossfade worker {number} of {os.getppid()}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner decides what Ctrl-C means
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format=f"%(asctime)s %(levelname)s worker {number}: %(message)s"
    )
    channel = socket.socket(fileno=os.dup(0))
    trio.run(_run, FrontHub(channel))


if __name__ == "__main__":
    main()
