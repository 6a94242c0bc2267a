"""A live proxy whose disk is really full: a small file system of its own, and, where mounting is not possible, a limit
on the size of the files that it may write. Both policies; what clients see, what status says, and that both sides are
equal in the end."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any, Protocol

import pytest

from tests.equality import assert_equal_servers
from tests.memory import Flood
from tests.promises import Promises
from tests.proxies import DidNotStart, RunningProxy, until
from tests.servers import Pool, Server
from tests.traffic import preload

REFUSED = "ERR crossfade: writes are refused, the journal cannot be written: "
DISK = "4m"  # as mount says it
SMALL = 10  # bytes that a file may have: not even the first line of a journal segment


class Disk(Protocol):
    """What the state directory is on."""

    def fill(self) -> None: ...

    def free(self) -> None: ...


class SmallDisk:
    """A file system of its own, of a few MB."""

    def __init__(self, proxy: RunningProxy, stack: ExitStack) -> None:
        self._state = proxy.state_dir
        self._state.mkdir(mode=0o700)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", os.fspath(self._state)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("mount is not installed")
        if done.returncode:
            pytest.skip(f"mounting is not possible here: {done.stderr.strip()}")
        stack.callback(subprocess.run, ["umount", os.fspath(self._state)], check=True)

    def fill(self) -> None:
        with (self._state / "ballast").open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 10, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        (self._state / "ballast").unlink()


class SmallFiles:
    """The process may not make any file longer than some bytes: EFBIG. Every system has that, and needs no rights."""

    def __init__(self, proxy: RunningProxy, stack: ExitStack) -> None:
        self._proxy = proxy

    def fill(self) -> None:
        self._limit(SMALL)

    def free(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        assert self._proxy.pid is not None
        with suppress(ProcessLookupError):  # killed: the next one has no limit
            resource.prlimit(self._proxy.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class Setting:
    """Two servers, the proxy, the disk of its state directory."""

    def __init__(self, stack: ExitStack, pool: Pool, disk: Callable[..., Disk], *options: str) -> None:
        self.source: Server = pool.get("redis-6.2")
        self.target: Server = pool.get("valkey-9.1")
        preload(self.source, 300, seed=7, short_ttls=False)
        self.proxy = RunningProxy(self.source, self.target, *options)
        stack.callback(self.proxy.close)
        self.disk = disk(self.proxy, stack)
        stack.callback(self.proxy.stop)
        self.proxy.start()
        self.proxy.backfill()

    def problem(self, words: str) -> str:
        """The line of the status that has these words, once it is there."""

        def found() -> str:
            return next((line for line in self.proxy.status()["problems"] if words in line), "")

        return str(until(found, f"a problem with {words!r}"))

    def no_problem(self) -> None:
        until(lambda: not self.proxy.status()["problems"], "no problem any more")

    def assert_equal(self) -> None:
        self.proxy.wait_settled()
        assert_equal_servers(self.source, self.target)


MakeSetting = Callable[..., Setting]


@pytest.fixture(params=[pytest.param(SmallDisk, marks=pytest.mark.slow), SmallFiles], ids=["a full disk", "a limit"])
def make_setting(request: pytest.FixtureRequest, server_pool: Pool) -> Iterator[MakeSetting]:
    with ExitStack() as stack:

        def make(*options: str) -> Setting:
            return Setting(stack, server_pool, request.param, *options)

        yield make


def test_serving_on_is_the_default(make_setting: MakeSetting) -> None:
    """Clients notice nothing; status says what a crash would cost; with space again all is as before."""
    setting = make_setting()
    with Promises(setting.proxy) as promises:
        promises.wait_for(50)
        setting.disk.fill()
        line = setting.problem("journal")
        assert "cannot be written" in line and "a crash now costs a backfill" in line, line
        promises.wait_for(50)
        outcome = setting.proxy.admin("FLIP", "SKIP-VERIFY")
        assert not outcome["flipped"] and any("state cannot be saved" in why for why in outcome["reasons"]), outcome
        promises.wait_for(50)
        setting.disk.free()
        setting.no_problem()
        promises.wait_for(50)
    assert not promises.errors and not promises.disconnects, promises
    setting.assert_equal()
    promises.check(setting.target)
    assert setting.proxy.status()["phase"] == "in-sync"


@pytest.mark.slow
def test_killed_while_it_serves_on(make_setting: MakeSetting) -> None:
    """What was under way is not known: a new backfill, by itself."""
    setting = make_setting()
    with Promises(setting.proxy) as promises:
        setting.disk.fill()
        setting.problem("journal")
        setting.target.pause()
        promises.wait_for(50)
    setting.proxy.kill()
    setting.target.resume()
    setting.disk.free()
    setting.proxy.start()
    until(lambda: setting.proxy.status()["phase"] == "in-sync", "a new backfill")
    assert "its journal is not complete" in setting.proxy.log
    setting.assert_equal()
    promises.check(setting.target)


def test_writes_are_refused_if_the_operator_wants_that(make_setting: MakeSetting) -> None:
    setting = make_setting("--journal-full", "refuse")
    with Promises(setting.proxy) as promises, Flood(setting.proxy) as pinned, Flood(setting.proxy) as reader:
        assert pinned.ask("WATCH", "pre:1") == b"+OK\r\n"
        promises.wait_for(50)
        setting.disk.fill()
        line = setting.problem("journal")
        assert "writes are refused" in line, line
        until(lambda: promises.errors, "refused writes")
        for command in (("SET", "k", "v"), ("MULTI",), ("BLPOP", "k", "0"), ("EVAL", "return 1", "0")):
            assert reader.ask(*command).startswith(b"-" + REFUSED.encode()), command
        assert reader.ask("GET", "no such key") == b"$-1\r\n"
        assert reader.ask("PING") == b"+PONG\r\n"
        assert pinned.ask("SET", "k", "v").startswith(b"-" + REFUSED.encode())
        assert pinned.ask("GET", "no such key") == b"$-1\r\n"
        kept = promises.kept
        setting.disk.free()
        setting.no_problem()
        until(lambda: promises.kept > kept, "writes again")
    assert not promises.disconnects
    assert all(error.startswith(REFUSED) for error in promises.errors), promises
    setting.assert_equal()
    promises.check(setting.source)
    promises.check(setting.target)


@pytest.mark.slow
def test_a_transaction_that_is_open_when_the_disk_is_full(make_setting: MakeSetting) -> None:
    """What it has queued is not executed; one that only reads is."""
    setting = make_setting("--journal-full", "refuse")
    with Flood(setting.proxy) as writing, Flood(setting.proxy) as reading, Flood(setting.proxy) as other:
        for client in (writing, reading):
            assert client.ask("MULTI") == b"+OK\r\n"
        assert writing.ask("SET", "in-multi", "v") == b"+QUEUED\r\n"
        assert reading.ask("GET", "in-multi") == b"+QUEUED\r\n"
        setting.disk.fill()
        until(lambda: other.ask("SET", "k", "v").startswith(b"-" + REFUSED.encode()), "refused writes")
        assert reading.ask("EXEC") == b"*1\r\n$-1\r\n"
        assert writing.ask("EXEC").startswith(b"-EXECABORT")
        setting.disk.free()
        setting.no_problem()
        assert writing.ask("SET", "k", "v") == b"+OK\r\n"
    assert setting.source.call("EXISTS", "in-multi") == 0
    setting.assert_equal()


@pytest.mark.parametrize("make_setting", [SmallDisk], indirect=True)
def test_it_does_not_start_on_a_full_disk(make_setting: MakeSetting) -> None:
    setting = make_setting()
    setting.proxy.stop()
    setting.disk.fill()
    with pytest.raises(DidNotStart) as problem:
        setting.proxy.start()
    last: Any = str(problem.value).strip().splitlines()[-1]
    assert last.startswith("crossfade: cannot write to the state directory") and "No space left on device" in last, last
    setting.disk.free()
    setting.proxy.start()
    setting.assert_equal()
