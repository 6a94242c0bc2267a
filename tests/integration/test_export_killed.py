"""`crossfade export`, killed at any moment: the same command goes on, and the file is whole and has every key once."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner

from backfill import cli_files
from backfill.files import exporting, reading
from backfill.files.formats import format_of
from backfill.scan import Page, scan_page
from crossfade import main
from tests.equality import assert_equal_servers
from tests.proxies import ROOT, Result, until
from tests.servers import Pool, Server
from tests.traffic import preload

# Runs the CLI once for every point, each in a process of its own, with pages so small that there are many; each ends
# itself as `kill -9` does: before or after the n-th call of a function. Prints how each one ended.
KILLED = """
import importlib, itertools, json, os, signal, sys
from backfill.files import exporting, reading
import crossfade

exporting.COUNT, exporting.SAVE_S, exporting.SAVES_SHARE, reading.BIG_BYTES = 20, 0.0, 0, 5000
points, *words = json.loads(sys.argv[1]), *sys.argv[2:]

def run(place, when, number):
    module, path, name = place
    owner = importlib.import_module(module)
    owner = getattr(owner, path) if path else owner
    inner, calls = getattr(owner, name), itertools.count(1)

    def at(moment):
        if moment == when and next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def killing(*args, **options):
        at("before")
        result = inner(*args, **options)
        at("after")
        return result

    setattr(owner, name, killing)
    crossfade.main(words)

for point in points:
    child = os.fork()
    if not child:
        run(*point)
    print(os.waitpid(child, 0)[1], flush=True)
"""

OUTPUT = "backfill.files.opening", "Output"
CHECKPOINT = "backfill.direct.checkpoint", "CheckpointFile"
PLACES = [
    (*OUTPUT, "write"),
    (*OUTPUT, "sync"),
    (*OUTPUT, "end"),
    (*CHECKPOINT, "write"),
    ("backfill.files.exporting", "_Run", "_write"),
    ("os", "", "fsync"),
    ("os", "", "replace"),
]
SPOOL = "backfill.files.reading", "Spool", "add"
Point = tuple[tuple[str, ...], str, int]
FILES = ("x.json", "x.crossfade.gz", "x.jsonl.gz", "x.csv", "x.xml.gz", "x.json.gz", "x.crossfade")
QUICK = FILES[:2]


def points(rng: Random, file: str) -> list[Point]:
    """Each is reached a few pages behind the point at which an export begins or goes on; the last ones at its end."""
    chosen: list[Point] = [
        (rng.choice(PLACES), rng.choice(["before", "after"]), rng.randrange(2, 8)) for _ in range(10)
    ]
    writer = type(format_of(file, None).writer())
    ends: list[Point] = [((writer.__module__, writer.__name__, "tail"), when, 1) for when in ("before", "after")]
    return [*chosen, (SPOOL, "after", 3), *ends]


def kill(points: list[Point], *words: str) -> str:
    """Run the command so often; what all of them said."""
    command = [sys.executable, "-c", KILLED, json.dumps(points), *words]
    end = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert end.stdout.split() == [str(int(signal.SIGKILL))] * len(points), (points, end.stdout[-500:], end.stderr)
    return end.stderr


def here(*words: str | Path) -> Result:
    """The command in this process, to its end."""
    outcome = CliRunner().invoke(main, list(map(str, words)))
    assert "Traceback" not in outcome.output, outcome.output
    return Result(tuple(map(str, words)), outcome.exit_code, outcome.stdout, outcome.stderr)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_files, "setproctitle", str.encode)
    monkeypatch.setattr(exporting, "COUNT", 20)
    monkeypatch.setattr(exporting, "SAVE_S", 0.0)
    monkeypatch.setattr(exporting, "SAVES_SHARE", 0)
    monkeypatch.setattr(reading, "BIG_BYTES", 5000)


@pytest.fixture
def filled(server_pool: Pool) -> tuple[Server, Server]:
    """Every type in two dbs, some of the keys big; a server of another version without any."""
    source, target = server_pool.get("redis-6.2"), server_pool.get("valkey-9.1")
    preload(source, 2000, short_ttls=False, dbs=(0, 3))
    with source.client() as client:
        client.rpush("big list", *(b"item \xff %d" % number for number in range(3000)))
        client.hset("big hash", mapping={f"field {number}": "v" * 20 for number in range(1000)})
    return source, target


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FILES]
)
def test_killed_it_goes_on(filled: tuple[Server, Server], tmp_path: Path, name: str) -> None:
    source, target = filled
    file = tmp_path / name
    file.write_text("what was there")
    words = ["export", source.url, str(file), "--json"]
    said = kill(points(Random(name), name), *words)
    assert said.count("going on from the checkpoint") >= 9 and "anew:" not in said and "begins anew\n" not in said, said
    assert file.read_text() == "what was there"
    result = here(*words)
    assert result.code == 0 and "going on from the checkpoint" in result.err, str(result)
    counts = [source.call("DBSIZE", db=db) for db in (0, 3)]
    assert result.json["keys"] == sum(counts) == sum(result.json["types"].values())
    assert [one.name for one in tmp_path.iterdir()] == [name]
    data = file.read_bytes()
    assert len(gzip.decompress(data) if name.endswith(".gz") else data) == result.json["bytes"]
    result = here("import", file, target.url)  # a key that is there twice would end it
    assert result.code == 0, str(result)
    assert_equal_servers(source, target, stream_counters=False)


@pytest.fixture
def killed(server_62: Server, tmp_path: Path) -> Callable[..., list[str]]:
    """An export that was killed in its middle; gives the words of the command."""

    def begin(*options: str, name: str = "x.jsonl") -> list[str]:
        if not server_62.call("DBSIZE"):
            preload(server_62, 500, short_ttls=False, dbs=(0, 0))
        words = ["export", server_62.url, str(tmp_path / name), *options]
        kill([((*CHECKPOINT, "write"), "after", 5)], *words)
        return words

    return begin


def exported(folder: Path, name: str = "x.jsonl") -> list[str]:
    """The keys in the file, the only one that is there."""
    assert [one.name for one in folder.iterdir()] == [name]
    return [json.loads(line)["key"] for line in (folder / name).read_text().splitlines()]


def test_another_command_begins_anew(killed: Callable[..., list[str]], server_62: Server, tmp_path: Path) -> None:
    words = killed()
    for others, why in [
        ((), "going on from the checkpoint"),
        (("--restart",), ""),
        (("--match", "*"), "is of another export (with other selection): the export begins anew"),
        (("--ttl", "relative", "--format", "csv"), "(with other --format and --ttl): the export begins anew"),
    ]:
        killed()
        result = here(*words, *others)
        assert result.code == 0 and why in result.err and result.err.count("\n") == bool(why), str(result)
    assert {one.name for one in tmp_path.iterdir()} == {"x.jsonl"}
    killed()
    (tmp_path / "x.jsonl.part").write_text("cut")
    result = here(*words, "--json")
    assert "what was written is not in" in result.err and "begins anew" in result.err
    keys = exported(tmp_path)
    assert len(keys) == len(set(keys)) == result.json["keys"] == server_62.call("DBSIZE")


def test_what_is_no_checkpoint_is_left_alone(server_62: Server, tmp_path: Path) -> None:
    model = tmp_path / "x.jsonl.checkpoint"
    for data in (b"\xff\0 a model of another program", b"[]", b'{"format": 1}'):
        model.write_bytes(data)
        result = here("export", server_62.url, tmp_path / "x.jsonl")
        assert result.code == 2 and "is not a checkpoint of this version: remove it" in result.err, str(result)
        assert len(result.err.splitlines()) == 1 and model.read_bytes() == data


def test_killed_when_the_file_has_its_name(killed: Callable[..., list[str]], server_62: Server, tmp_path: Path) -> None:
    words = killed()
    kill([((*CHECKPOINT, "remove"), "before", 1)], *words)
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == server_62.call("DBSIZE")
    result = here(*words)
    assert "what was written is not in" in result.err, str(result)
    assert len(exported(tmp_path)) == server_62.call("DBSIZE")


def test_a_source_that_was_restarted(start_server: Callable[..., Server], tmp_path: Path) -> None:
    """Its cursors mean nothing any more."""
    source = start_server("redis-7.0", config={"appendonly": "yes"})
    preload(source, 500, short_ttls=False, dbs=(0, 0))
    words = ["export", source.url, str(tmp_path / "x.jsonl")]
    kill([((*CHECKPOINT, "write"), "after", 5)], *words)
    source.restart()
    result = here(*words)
    assert result.code == 0 and "the source was restarted, or is another server: the export begins anew" in result.err
    assert len(set(exported(tmp_path))) == source.call("DBSIZE")


@pytest.mark.slow
def test_a_table_that_shrinks_meanwhile(server_62: Server, tmp_path: Path) -> None:
    """SCAN returns keys again that were written before the kill: they stand in the file once."""
    server_62.call("MSET", *(part for number in range(300) for part in (f"stays {number}", "v")))
    server_62.call("MSET", *(part for number in range(20_000) for part in (f"goes {number}", "v")))
    words = ["export", server_62.url, str(tmp_path / "x.jsonl")]
    for pages, keeps in ((300, 10), (20, 20_000)):
        kill([((*CHECKPOINT, "write"), "after", pages)], *words)
        server_62.call("DEL", *(f"goes {number}" for number in range(20_000) if number % keeps))
    assert here(*words).code == 0
    keys = exported(tmp_path)
    assert len(keys) == len(set(keys))
    assert {key for key in keys if key.startswith("stays")} == {f"stays {number}" for number in range(300)}


def test_scan_returns_what_was_written_before_the_kill(
    killed: Callable[..., list[str]], server_62: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the table shrinks, and surely."""
    words = killed()
    again = [json.loads(line)["key"] for line in (tmp_path / "x.jsonl.part").read_text().splitlines()]
    assert len(again) > 50

    async def repeating(*args: Any, **options: Any) -> Page:
        page = await scan_page(*args, **options)
        return Page(page.cursor, [*page.keys, *(key.encode("utf-8", "surrogateescape") for key in again)])

    monkeypatch.setattr(exporting, "scan_page", repeating)
    assert here(*words).code == 0
    keys = exported(tmp_path)
    assert len(keys) == len(set(keys)) == server_62.call("DBSIZE")


def test_what_stands_behind_the_checkpoint_is_cut_off(server_62: Server, tmp_path: Path) -> None:
    """Also when there is nothing to take its place."""
    preload(server_62, 500, short_ttls=False, dbs=(0, 0))
    words = ["export", server_62.url, str(tmp_path / "x.jsonl"), "--json"]
    kill([((*CHECKPOINT, "write"), "before", 5)], *words)
    server_62.call("FLUSHALL")
    result = here(*words)
    assert "going on" in result.err and result.code == 0, str(result)
    assert 50 < len(exported(tmp_path)) == result.json["keys"] < 100


def test_interrupted_and_twice(server_62: Server, tmp_path: Path) -> None:
    preload(server_62, 3000, short_ttls=False, dbs=(0, 0))
    words = ["export", server_62.url, str(tmp_path / "x.jsonl")]
    slow = KILLED.replace(
        "if not child:", "if not child:\n        signal.signal(signal.SIGINT, signal.default_int_handler)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", slow, json.dumps([[["os", "", "fsync"], "never", 0]]), *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        until(lambda: (tmp_path / "x.jsonl.checkpoint").exists())
        second = here(*words)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate()
    assert second.code == 2 and "the same export is running already" in second.err, str(second)
    assert "interrupted; run the same command to go on" in said, said
    assert here(*words).code == 0
    keys = exported(tmp_path)
    assert len(keys) == len(set(keys)) == server_62.call("DBSIZE")


def test_a_connection_that_is_lost(start_server: Callable[..., Server], tmp_path: Path) -> None:
    source = start_server("redis-7.0")
    preload(source, 500, short_ttls=False, dbs=(0, 0))
    words = ["export", source.url, str(tmp_path / "x.jsonl")]
    kill([((*CHECKPOINT, "write"), "after", 5)], *words)
    calls = count(1)

    async def lost(*args: Any, **options: Any) -> Any:
        if next(calls) == 5:
            source.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        return await scan_page(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "scan_page", lost)
        result = here(*words)
    assert result.code == 3 and result.err.endswith("; run the same command to go on\n"), str(result)
    result = here(*words)
    assert result.code == 0 and "going on" in result.err
    assert len(exported(tmp_path)) == source.call("DBSIZE")
