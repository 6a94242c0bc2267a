"""`crossfade demo` as a person and a CI job run it, and that application and comparison notice what is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from backfill.url import parse_url
from crossfade import main
from proxy.demo import app, command
from proxy.demo.compare import compare
from tests.servers import Server

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--keys", "1500", "--beat", "0.3"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the demo puts its files. pytest's tmp_path may be too long for a unix socket below it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(folder), "COLUMNS": "80"}
    command_line = [sys.executable, "-m", "crossfade", "demo", *SMALL, *args]
    return subprocess.Popen(
        command_line, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """What it has said, up to and including the line with `text`."""
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} never came: {said}")


def assert_nothing_left(folder: Path, children: list[psutil.Process]) -> None:
    assert list(folder.iterdir()) == []
    assert [child for child in children if child.is_running()] == []


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_json(folder: Path) -> None:
    process = start(folder, "--json")
    out, err = process.communicate(timeout=170)
    document = json.loads(out)
    assert (process.returncode, document["ok"], document["problems"]) == (0, True, []), err
    assert document["application"]["commands"] > 1000
    assert document["application"]["checks"] > 500
    assert (document["application"]["errors"], document["application"]["wrong"]) == (0, 0)
    assert document["backfill"]["complete"]
    assert [flip["serving"] for flip in document["flips"]] == ["target", "source"]
    assert [flip["epoch"] for flip in document["flips"]] == [1, 2]
    assert all(flip["pause_ms"] > 0 and flip["slowest_command_ms"] > 0 for flip in document["flips"])
    assert [(verify["state"], verify["different"]) for verify in document["verifies"]] == [("done", 0)] * 3
    comparison = document["comparison"]
    assert comparison["different"] == 0
    assert comparison["keys"]["source"] >= 1500
    assert {"string", "hash", "list", "set", "zset", "stream"} <= comparison["types"].keys()
    assert_nothing_left(folder, [])
    # The account reads well in a log: no control characters, no line too long, but for commands to be copied.
    assert "\x1b" not in err
    assert all(len(line) <= 80 for line in err.splitlines() if "--" not in line)
    assert "Everything is as it should be" in err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(folder: Path, number: signal.Signals) -> None:
    process = start(folder)
    read_until(process, "crossfade verify")
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 4  # two servers, the proxy, the application
    process.send_signal(number)
    process.send_signal(number)  # an impatient person
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, err
    assert f"Interrupted by {number.name}" in out
    assert err == ""
    assert_nothing_left(folder, children)


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "text"), [("proxy", "the proxy"), ("app.py", "the application")])
def test_a_dead_process_is_told(folder: Path, victim: str, text: str) -> None:
    process = start(folder)
    read_until(process, "crossfade verify")
    children = psutil.Process(process.pid).children(recursive=True)
    next(child for child in children if any(victim in word for word in child.cmdline()[:4])).kill()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1, err
    assert f"{text} has ended with exit code -9" in " ".join(out.split())
    assert "Not everything is as it should be" in out
    assert_nothing_left(folder, children)


@pytest.mark.slow
def test_nobody_reads_any_more(folder: Path) -> None:
    process = start(folder)
    read_until(process, "A data set")
    children = psutil.Process(process.pid).children(recursive=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(timeout=30) == 1
    assert process.stderr.read() == ""
    process.stderr.close()
    assert_nothing_left(folder, children)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("servers", "found none on this machine: pip install 'crossfade[demo]'"),
        ("redis", "needs redis-py: pip install"),
    ],
)
def test_something_is_missing(monkeypatch: pytest.MonkeyPatch, module: str, text: str) -> None:
    if module == "servers":
        monkeypatch.setattr(command, "available", list)
    else:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 3
    assert text in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.slow
def test_application_notices_what_is_wrong(start_server: Callable[..., Server]) -> None:
    """Without a proxy, and with somebody who takes things away."""
    server = start_server("redis-6.2")
    process = subprocess.Popen(
        [sys.executable, "-P", app.__file__, server.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with server.client() as thief:
        deadline = time.monotonic() + 20
        while not thief.exists("views:7", "shop:feed", "shop:jobs:0") and time.monotonic() < deadline:
            time.sleep(0.05)
        stolen = 0
        while not stolen and time.monotonic() < deadline:
            thief.delete(*(f"views:{number}" for number in range(300)))
            stolen += thief.lpop("shop:jobs:0") is not None
    out, _ = process.communicate(timeout=30)
    final = json.loads(out.splitlines()[-1])["final"]
    assert final["wrong"] > 0
    assert any(text.startswith("counters: ") for text in final["texts"])
    assert any("jobs lost" in text for text in final["texts"])


async def test_comparison_finds_every_kind_of_difference(start_server: Callable[..., Server]) -> None:
    a, b = start_server("redis-6.2"), start_server("valkey-9.1")
    for server in (a, b):
        with server.client() as client:
            client.mset({"same": "1", "value": "1", "ttl": "1", "gone-on-b": "1"})
            client.pfadd("estimate", "x", "y")
            client.zadd("scores", {"m": 0.1, "n": float("inf")})
            client.hset("hash", "f", "v")
            client.rpush("list", "x", "y")
            client.sadd("set", "x", "y")
            client.xadd("stream", {"f": "v"}, id="1-1")
            client.xgroup_create("stream", "g", id="0")
            client.xreadgroup("g", "c", {"stream": ">"})
    progress: list[tuple[int, int]] = []
    found = await compare(parse_url(a.url), parse_url(b.url), lambda *now: progress.append(now))
    assert (found.different.total(), found.findings) == (0, [])
    assert found.source == found.target
    assert progress[-1] == (10, 10)
    with b.client() as client:
        client.pfcount("estimate")  # writes its cache: not a difference
        client.set("value", "2")
        client.expire("ttl", 100)
        client.delete("gone-on-b", "set")
        client.set("set", "1")
        client.zadd("scores", {"m": 0.2})
        client.hset("hash", "g", "v")
        client.rpush("list", "z")
        client.xack("stream", "g", "1-1")
    with b.client(db=3) as client:
        client.set("extra", "1")
    found = await compare(parse_url(a.url), parse_url(b.url), lambda *now: None)
    assert found.different == {"string": 4, "set": 1, "zset": 1, "hash": 1, "list": 1, "stream": 1}
    texts = "\n".join(found.findings)
    assert "db 0 gone-on-b: only on the source" in texts
    assert "db 3 extra: only on the target" in texts
    assert "db 0 set: a set on the source, a string on the target" in texts
    assert "db 0 ttl: expires only on the target" in texts
    assert "db 0 stream: the stream has another value" in texts
