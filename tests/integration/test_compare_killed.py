"""`crossfade compare`, killed at named points: the same command goes on, and what it says is what an uninterrupted
comparison says. The points are between any two things that last: lines of the findings file, the checkpoint, mended
keys."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from backfill.counts import STATUSES
from tests.equality import assert_equal_servers
from tests.integration.direct_rig import Command, fill_with_special_keys, replicate, run_here
from tests.integration.test_compare import spoil
from tests.proxies import ROOT, run_crossfade, until
from tests.servers import Pool, Server
from tests.traffic import preload

# Runs the CLI, with pages and portions so small that there are many, and ends itself as `kill -9` does: before or after
# the n-th call of a function.
KILLED = """
import functools, importlib, inspect, itertools, os, signal, sys
from backfill.direct import comparing
import crossfade

comparing.COUNT, comparing.MAX_SUSPECTS, comparing.SAVE_S, comparing.SAVES_SHARE = 100, 20, 0.01, 1
place, when, number, *words = sys.argv[1:]
module, _, path = place.partition(":")
owner, name = functools.reduce(getattr, path.split(".")[:-1], importlib.import_module(module)), path.split(".")[-1]
inner, calls = getattr(owner, name), itertools.count(1)

def at(moment):
    if moment == when and next(calls) == int(number):
        os.kill(os.getpid(), signal.SIGKILL)

def plain(*args, **options):
    at("before")
    result = inner(*args, **options)
    at("after")
    return result

async def awaited(*args, **options):
    at("before")
    result = await inner(*args, **options)
    at("after")
    return result

setattr(owner, name, awaited if inspect.iscoroutinefunction(inner) else plain)
crossfade.main(words)
"""

PROGRESS = "backfill.direct.comparing_progress:Progress"
LOOK = "backfill.direct.looking:Look.differences"
TELL = "backfill.findings:FindingsFile.tell"
WRITE = "backfill.direct.checkpoint:CheckpointFile.write"
KEPT = "backfill.findings:FindingsFile._kept"
EMPTY = "backfill.findings:FindingsFile.empty"
ADD = "backfill.direct.copier:Copier.look_and_add"
POINTS = [
    (f"{PROGRESS}.looked_at", "after", 5),
    (TELL, "before", 1),
    (TELL, "after", 1),
    (LOOK, "after", 1),
    (f"{PROGRESS}.judged", "after", 1),
    (WRITE, "before", 3),
    (WRITE, "after", 2),
    (TELL, "after", 2),
    (f"{PROGRESS}.go_on", "before", 1),
    (f"{PROGRESS}.go_on", "after", 1),
    (TELL, "after", 2),
    (f"{PROGRESS}.looked_at", "after", 3),
    (f"{PROGRESS}.go_on", "after", 1),
    ("backfill.direct.checkpoint:CheckpointFile.remove", "before", 1),
]
MENDING = [
    (ADD, "before", 1),
    (ADD, "after", 1),
    (f"{PROGRESS}.mended", "before", 1),
    (f"{PROGRESS}.mended", "after", 2),
]


@pytest.fixture
def spoilt(server_pool: Pool, tmp_path: Path) -> tuple[Server, Server]:
    """A copy of which some 600 keys are not what they should be."""
    source, target = server_pool.get("redis-7.0"), server_pool.get("valkey-9.1")
    preload(source, 2400, short_ttls=False)
    fill_with_special_keys(source)
    source.call("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 7 end)")
    replicate(source, target, tmp_path)
    rng = Random(8)
    spoil(target, rng.sample(sorted(source.call("KEYS", "*")), 300), rng)
    target.call("FUNCTION", "FLUSH")
    for number in range(300):
        target.call("SET", f"extra {number}", 1, db=number % 3)
    return source, target


def counts(document: dict[str, Any]) -> dict[str, int]:
    return {name: document[name] for name in ("checked", "equal", "fixed", *STATUSES)}


def told(file: Path) -> Counter[tuple[int, str, str]]:
    """How often each finding was."""
    documents = map(json.loads, file.read_text().splitlines())
    return Counter((each["db"], each["key_hex"], each["status"]) for each in documents)


def kill_at(place: str, when: str, number: int, *words: str) -> None:
    """Run the command until then."""
    command = [sys.executable, "-c", KILLED, place, when, str(number), *words]
    end = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert end.returncode == -signal.SIGKILL, (place, when, number, end.stdout[-300:], end.stderr)


@pytest.mark.parametrize(
    "points",
    [pytest.param(POINTS, id="looking", marks=pytest.mark.slow), pytest.param(MENDING + POINTS, id="mending")],
)
def test_killed_it_goes_on(
    spoilt: tuple[Server, Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, points: list[tuple[str, str, int]]
) -> None:
    source, target = spoilt
    files = [tmp_path / "undisturbed.jsonl", tmp_path / "findings.jsonl"]
    words = ["compare", source.url, target.url, "--rounds", "2", "--pause", "0.01", "--json"]
    words += ["--state-dir", str(tmp_path / "state"), "--findings"]
    expected = counts(run_here(monkeypatch, *words, str(files[0])).json)
    assert expected["checked"] - expected["equal"] > 500
    words += [str(files[1])]
    if points is not POINTS:
        words += ["--fix"]
        expected["fixed"] = expected["checked"] - expected["equal"]
    for point in points:
        kill_at(*point, *words)
    result = run_crossfade(*words)
    assert "going on from the checkpoint" in result.err
    assert told(files[1]) == told(files[0])
    assert counts(result.json) == expected
    assert len(result.json["findings"]) == 100
    assert result.code == ("--fix" not in words)
    if "--fix" in words:
        assert_equal_servers(source, target, stream_counters=False)
    assert not list((tmp_path / "state").iterdir())  # nothing is left


def test_another_command_does_not_go_on(server_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of findings, counts and a sample belong to one command."""
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-8.1")
    preload(source, 300, short_ttls=False)
    findings, place = tmp_path / "findings.jsonl", tmp_path / "here.json"
    words: tuple[str, ...] = ("compare", source.url, target.url, "--checkpoint", str(place), "--rounds", "1")
    kill_at(ADD, "before", 1, *words, "--findings", str(findings), "--fix")
    before = place.read_bytes(), findings.read_bytes()
    for others, named in [
        (("--fix",), "--findings"),
        (("--findings", str(findings)), "--fix"),
        (("--findings", str(findings), "--fix", "--tolerance", "5", "--sample", "5%"), "--tolerance and --sample"),
        (("--findings", str(findings), "--fix", "--type", "hash"), "selection"),
    ]:
        result = run_here(monkeypatch, *words, *others)
        assert result.code == 2 and f"of another comparison (with other {named}): give" in result.err, str(result)
        assert "Traceback" not in result.err and not result.out and len(result.err.splitlines()) == 1
    assert (place.read_bytes(), findings.read_bytes()) == before
    result = run_here(monkeypatch, "replicate", source.url, target.url, "--checkpoint", str(place))
    assert result.code == 2 and "is not a checkpoint of this version" in result.err
    findings.write_text("{}\n")
    words = (*words, "--findings", str(findings), "--fix")
    result = run_here(monkeypatch, *words)
    assert result.code == 2 and "are not in" in result.err and "--restart" in result.err, str(result)
    result = run_here(monkeypatch, *words, "--restart", "--json")
    assert (result.code, result.json["missing"], len(findings.read_text().splitlines())) == (0, 300, 300)
    assert "going on" not in result.err and not place.exists()


def test_restarted_again_and_again(start_server: Callable[..., Server], server_82: Server, tmp_path: Path) -> None:
    """Whatever was found before is in a file of its own, also after kills while it is put there."""
    source = start_server("redis-6.2", config={"appendonly": "yes"})
    preload(source, 500, short_ttls=False)
    findings = tmp_path / "findings.jsonl"
    words = ["compare", source.url, server_82.url, "--state-dir", str(tmp_path / "state"), "--rounds", "1"]
    words += ["--fix", "--findings", str(findings)]
    kill_at(ADD, "before", 1, *words)
    first = told(findings)
    source.restart()
    for place in (KEPT, "backfill.findings:FindingsFile.put_aside"):
        kill_at(place, "after", 1, *words)
    for when in ("before", "after"):
        kill_at(EMPTY, when, 1, *words)
        source.restart()
    kill_at(ADD, "before", 2, *words)
    second = told(findings)
    source.restart()
    result = run_crossfade(*words, "--json")
    assert result.json["missing"] == result.json["fixed"] == len(told(findings)), str(result)
    assert set(told(findings).values()) == {1}
    kept = [told(path) for path in tmp_path.glob("findings.jsonl.before*")]
    assert first and second and first in kept and second in kept, sorted(tmp_path.iterdir())


@pytest.mark.parametrize("side", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["source", "target"])
def test_a_server_that_was_restarted(
    start_server: Callable[..., Server], server_82: Server, tmp_path: Path, side: int
) -> None:
    """Its cursors mean nothing any more, and what was compared may not be there."""
    restarted = start_server("redis-6.2", config={"appendonly": "yes"})
    source, target = (restarted, server_82) if side == 0 else (server_82, restarted)
    preload(source, 500, short_ttls=False)
    findings = tmp_path / "findings.jsonl"
    words = ["compare", source.url, target.url, "--state-dir", str(tmp_path / "state"), "--rounds", "1"]
    words += ("--findings", str(findings), "--fix")
    kill_at(ADD, "before", 1, *words)
    before = findings.read_text()
    restarted.restart()
    result = run_crossfade(*words, "--json")
    assert f"the {('source', 'target')[side]} was restarted" in result.err and "begins anew" in result.err
    assert result.json["missing"] == result.json["checked"] == result.json["fixed"] == 500
    assert (tmp_path / "findings.jsonl.before").read_text() == before and before
    assert sorted(told(findings).values()) == [1] * 500


def test_interrupted_and_twice(server_pool: Pool, tmp_path: Path) -> None:
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-8.1")
    preload(source, 3000, short_ttls=False)
    state = tmp_path / "state"
    words = ("compare", source.url, target.url, "--state-dir", str(state), "--rounds", "1")
    with Command(*words, "--rate", "100") as command:
        until(lambda: list(state.glob("compare-*.json")), "a checkpoint")
        second = run_crossfade(*words)
        assert second.code == 2 and "the same comparison is running already" in second.err, str(second)
        assert list(state.glob("compare-*.lock"))
        code, _, err = command.interrupt()
        assert code == 1, err
    result = run_crossfade(*words, "--json")
    assert "going on from the checkpoint" in result.err and result.json["missing"] == 3000
    assert not list(state.glob("compare-*"))
