"""`python -m proxy.ferry`: the process of a ferry. Started by the proxy, with the channel as its stdin."""

from __future__ import annotations

import os

NICE = 19  # live traffic comes first, from the first import on
os.nice(NICE)

# ruff: noqa: E402
import json
import signal
import socket
from contextlib import suppress
from typing import Any

import trio
from setproctitle import setproctitle

from backfill.direct.pipe import Pipe
from backfill.errors import BackfillError, ConnectError, ConnectionLost
from backfill.url import Url
from proxy.ferry.walk import Walk

READ_BYTES = 64 * 1024


class Channel:
    """The ferry's end."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._data = b""
        self._to_send, self._sending = trio.open_memory_channel[bytes](64)

    async def send_all(self) -> None:
        """Send what is told, until cancelled."""
        with suppress(trio.BrokenResourceError):  # reading tells of the end
            async for line in self._sending:
                await self._stream.send_all(line)

    def tell(self, message: dict[str, Any]) -> None:
        self._to_send.send_nowait(json.dumps(message).encode() + b"\n")

    async def next(self) -> dict[str, Any]:
        """The next message. Ends the process when the proxy is gone."""
        while b"\n" not in self._data:
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                os._exit(0)  # at once: what is not sent yet must not be
            self._data += data
        line, _, self._data = self._data.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


async def _hear(channel: Channel, walk: Walk) -> None:
    while True:
        message = await channel.next()
        if message["is"] == "go":
            walk.go(message["number"], message["shift"])
        else:
            walk.closed(message["number"])


async def _journey(channel: Channel, journey: dict[str, Any]) -> dict[str, Any]:
    """How it ended."""
    end = {"is": "done"}
    try:
        async with (
            Pipe.open(Url(**journey["serving"]), name=journey["name"]) as source,
            Pipe.open(Url(**journey["mirror"]), name=journey["name"]) as target,
        ):
            serving, mirror = (pipe.wire.server.get("run_id", "") for pipe in (source, target))
            channel.tell({"is": "connected", "client_id": target.wire.client_id, "serving": serving, "mirror": mirror})
            walk = Walk(journey, source, target, channel.tell)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_hear, channel, walk)
                await walk.run()
                nursery.cancel_scope.cancel()
    except* (ConnectError, ConnectionLost) as group:
        end = {"is": "lost", "text": _first(group)}
    except* BackfillError as group:
        end = {"is": "failed", "text": _first(group)}
    return end


def _first(group: BaseExceptionGroup[BackfillError]) -> str:
    problem: BaseException = group
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return problem.text if isinstance(problem, BackfillError) else str(problem)


async def _run(sock: socket.socket) -> None:
    channel = Channel(sock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.send_all)
        channel.tell(await _journey(channel, await channel.next()))
        while True:
            await channel.next()  # until the proxy hangs up


def main() -> None:
    """One journey."""
    setproctitle(f"crossfade ferry of {os.getppid()}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the proxy decides what Ctrl-C means
    trio.run(_run, socket.socket(fileno=os.dup(0)))


if __name__ == "__main__":
    main()
