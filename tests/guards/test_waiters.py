"""Waiters are served behind the write that serves them, before the next command, as a server does it.

What is switched off: their attempts go into the lane at the end of what the pushing client has sent, or at the next
poll. The sides are equal all the same; the harm is done to a client.
"""

from __future__ import annotations

import pytest

from proxy.waiters import Waiters
from resp.frames import is_null
from tests.inprocess import Client, InProcess, in_process, until
from tests.servers import Server

# The waiter's command, what others send in one write, the waiter's answer (of a server of every version).
CASES = {
    "BLPOP": ("BLPOP q 0", ["RPUSH q a", "DEL q"], b"*2\r\n$1\r\nq\r\n$1\r\na\r\n"),
    "BRPOP": ("BRPOP other q 0", ["RPUSH q a", "LPOP q"], b"*2\r\n$1\r\nq\r\n$1\r\na\r\n"),
    "BLMOVE": ("BLMOVE q to LEFT LEFT 0", ["LPUSH q a", "FLUSHALL"], b"$1\r\na\r\n"),
    "BZPOPMIN": ("BZPOPMIN z 0", ["ZADD z 1 a", "ZADD z 0 b"], b"*3\r\n$1\r\nz\r\n$1\r\na\r\n$1\r\n1\r\n"),
    "XREAD": (
        "XREAD BLOCK 0 STREAMS x $",
        ["XADD x 1-1 f v", "XDEL x 1-1"],
        b"*1\r\n*2\r\n$1\r\nx\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n",
    ),
    "MULTI": ("BLPOP q 0", ["MULTI", "RPUSH q a b", "EXEC", "DEL q"], b"*2\r\n$1\r\nq\r\n$1\r\na\r\n"),
    "RENAME": ("BLPOP q 0", ["RPUSH tmp a", "RENAME tmp q", "DEL q"], b"*2\r\n$1\r\nq\r\n$1\r\na\r\n"),
    "EVAL": (
        "BLPOP q 0",
        ["EVAL return(redis.call('RPUSH',KEYS[1],'a')) 1 q", "SET q x"],
        b"*2\r\n$1\r\nq\r\n$1\r\na\r\n",
    ),
}


async def waiting(running: InProcess, command: str) -> Client:
    client = await running.client()
    await client.say(command)
    await until(lambda: len(running.hub.waiters) and not running.busy)
    return client


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
@pytest.mark.parametrize("name", CASES)
async def test_the_waiter_gets_what_the_next_command_would_take_away(
    name: str, guarded: bool, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:
        monkeypatch.setattr(Waiters, "touched", lambda self, db, commands: None)
    command, write, answer = CASES[name]
    async with in_process(server_62, server_91) as running:
        waiter = await waiting(running, command)
        other = await running.client()
        replies = await other.ask(*write)
        assert not any(reply.startswith(b"-") for reply in replies)
        running.hub.waiters.poll()
        running.hub.flush()
        await until(lambda: not running.busy)
        heard = waiter.heard()
        await running.settled()
        assert not await running.differences()
    assert (heard == [answer]) is guarded


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
async def test_first_come_first_served(
    guarded: bool, server_62: Server, server_91: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts in another order than that of arrival starve who came first."""
    if not guarded:
        plain = Waiters.touched

        def backwards(self: Waiters, db, commands) -> None:
            for line in [line for lines in self.keys.values() for line in lines.values()]:
                line.waiting = dict.fromkeys(reversed(line.waiting))
            plain(self, db, commands)

        monkeypatch.setattr(Waiters, "touched", backwards)
    async with in_process(server_62, server_91) as running:
        waiters = [await waiting(running, "BLPOP q 0") for _ in range(3)]
        other = await running.client()
        await other.ask("RPUSH q 1 2")
        await until(lambda: not running.busy)
        heard = [waiter.heard() for waiter in waiters]
        await running.settled()
        assert not await running.differences()
    first, second = ([b"*2\r\n$1\r\nq\r\n$1\r\n%d\r\n" % number] for number in (1, 2))
    assert (heard == [first, second, []]) is guarded


@pytest.mark.parametrize("guarded", [True, False], ids=["on", "off"])
async def test_a_wait_that_creates_its_consumer(
    guarded: bool, server_82: Server, server_62: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 7.2 on an XREADGROUP that gets nothing creates its consumer; older servers must be told to."""
    if not guarded:
        plain = Waiters._record
        monkeypatch.setattr(
            Waiters, "_record", lambda self, waiter, answer: None if is_null(answer) else plain(self, waiter, answer)
        )
    async with in_process(server_82, server_62) as running:
        client = await running.client()
        await client.ask("XGROUP CREATE s g $ MKSTREAM")
        await running.settled()  # a new key is copied
        await waiting(running, "XREADGROUP GROUP g c BLOCK 0 STREAMS s >")
        await until(lambda: not running.busy)
        await running.settled()
        assert bool(await running.differences(empty_consumers=True)) is not guarded
