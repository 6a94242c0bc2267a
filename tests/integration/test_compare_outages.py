"""`crossfade compare`, cut off from its servers: it connects again and goes on by itself, and says what it would have
said; a server that is gone for good ends it, and so does one with which it gets no further."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial, wraps
from itertools import count
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

import pytest
import trio

from backfill.direct import comparing, comparing_progress, looking
from backfill.direct.comparing import ComparePlan, Comparison
from backfill.direct.comparing_progress import Report
from backfill.direct.copier import Copier
from backfill.errors import ConnectError, ConnectionLost
from backfill.findings import FindingsFile
from backfill.url import parse_url
from tests.equality import assert_equal_servers
from tests.integration.direct_rig import EVERYTHING, fill_with_special_keys, replicate, run_here
from tests.integration.test_compare import spoil
from tests.integration.test_compare_killed import counts, told
from tests.relay import HasUrl, Relay
from tests.servers import Pool, Server
from tests.traffic import preload


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "COUNT", 50)
    monkeypatch.setattr(comparing, "MAX_SUSPECTS", 20)


@pytest.fixture
def spoilt(server_pool: Pool, tmp_path: Path) -> tuple[Server, Server]:
    """Equal but for some keys, of every kind of difference."""
    source, target = server_pool.get("redis-7.0"), server_pool.get("valkey-9.1")
    preload(source, 2000, short_ttls=False)
    fill_with_special_keys(source)
    replicate(source, target, tmp_path)
    rng = Random(4)
    spoil(target, rng.sample(sorted(source.call("KEYS", "*")), 200), rng)
    source.call("FUNCTION", "LOAD", "#!lua name=l\nredis.register_function('f', function() return 7 end)")
    return source, target


@pytest.fixture
def every(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """every(7, owner, name, act): call `act` at every seventh call of a method, before it."""

    def arrange(step: int, owner: type, name: str, act: Callable[[], Any]) -> None:
        inner, calls = getattr(owner, name), count(1)

        @wraps(inner)
        def watched(*args: Any, **options: Any) -> Any:
            if next(calls) % step == 0:
                act()
            return inner(*args, **options)

        monkeypatch.setattr(owner, name, watched)

    return arrange


@pytest.fixture
def relays(spoilt: tuple[Server, Server]) -> Iterator[tuple[Relay, Relay]]:
    with ExitStack() as stack:
        yield stack.enter_context(Relay(spoilt[0])), stack.enter_context(Relay(spoilt[1]))


def elsewhere(call: Callable[[], Any]) -> None:
    """In another thread, as trio does not let its own one wait for a relay."""
    thread = Thread(target=call)
    thread.start()
    thread.join()


def compare(source: HasUrl, target: HasUrl, findings: Path, said: list[str], **options: Any) -> Report:
    """To the end; `said` gets the lines for people."""
    plan = ComparePlan(parse_url(source.url), parse_url(target.url), EVERYTHING, rounds=2, pause=0.01, **options)
    file = FindingsFile(findings)
    run = Comparison(plan, None, file, said.append)
    try:
        trio.run(run.run)
    finally:
        file.close()
    return run.report


@pytest.mark.parametrize(
    "fix", [pytest.param(False, id="looking", marks=pytest.mark.slow), pytest.param(True, id="mending")]
)
def test_it_goes_on_by_itself(
    spoilt: tuple[Server, Server],
    relays: tuple[Relay, Relay],
    every: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fix: bool,
) -> None:
    source, target = spoilt
    monkeypatch.setattr("backfill.direct.patience.BACKOFF_S", (0.01,))
    undisturbed = compare(source, target, tmp_path / "undisturbed", [])
    expected = undisturbed.to_json()
    assert undisturbed.different > 150
    cuts = count()
    cut = partial(elsewhere, lambda: relays[next(cuts) % 2].cut())
    every(9, comparing_progress.Progress, "looked_at", cut)
    every(4, looking.Look, "differences", cut)
    every(3, Copier, "look_and_add", cut)
    said: list[str] = []
    report = compare(*relays, tmp_path / "findings", said, fix=fix)
    assert len(said) > 10 and all(text.endswith("; trying again") for text in said), said
    found = report.to_json()
    if fix:
        expected["fixed"] = report.different
        assert_equal_servers(source, target, stream_counters=False)
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    assert told(tmp_path / "findings") == told(tmp_path / "undisturbed")
    assert [each.key for each in report.findings] == [each.key for each in undisturbed.findings]


@pytest.mark.parametrize("side", [0, pytest.param(1, marks=pytest.mark.slow)], ids=["source", "target"])
def test_a_server_that_is_restarted_meanwhile(
    start_server: Callable[..., Server], server_82: Server, every: Callable[..., None], tmp_path: Path, side: int
) -> None:
    """Its cursors mean nothing any more, and what was compared may not be there."""
    restarted = start_server("redis-6.2", config={"appendonly": "yes"})
    source, target = (restarted, server_82) if side == 0 else (server_82, restarted)
    preload(source, 1000, short_ttls=False)
    once = iter([True])
    every(8, comparing_progress.Progress, "looked_at", lambda: restarted.restart() if next(once, False) else None)
    said: list[str] = []
    run = compare(source, target, tmp_path / "findings", said)
    assert "trying again" in said[0] and f"the {('source', 'target')[side]} was restarted" in said[-1], said
    assert sorted(told(tmp_path / "findings").values()) == [1] * 1000
    assert run.missing == run.checked == 1000 or run.extra == 1000


def test_a_server_that_is_gone_for_good(
    start_server: Callable[..., Server],
    server_82: Server,
    every: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One clear line at the end, exit code 3; and when it is there after all, the same command goes on."""
    target = start_server("redis-7.0", config={"appendonly": "yes"})
    preload(server_82, 1000, short_ttls=False)
    once = iter([True])
    every(8, comparing_progress.Progress, "looked_at", lambda: target.stop() if next(once, False) else None)
    words = ["compare", server_82.url, target.url, "--state-dir", str(tmp_path), "--rounds", "1", "--json"]
    result = run_here(monkeypatch, *words, "--patience", "0.3")
    lines = result.err.splitlines()
    assert result.code == 3 and len(lines) > 2, str(result)
    assert lines[-1] == f"crossfade: connection refused by 127.0.0.1:{target.port}"
    assert all(line.endswith("; trying again") for line in lines[:-1]), lines
    checked = result.json["checked"]
    target.start()
    result = run_here(monkeypatch, *words)
    assert f"{checked:,} keys were compared before" in result.err and "begins anew" in result.err, str(result)
    assert result.code == 1 and counts(result.json)["missing"] == 1000


def test_to_compare_the_same_keys_again_is_no_progress(
    spoilt: tuple[Server, Server],
    relays: tuple[Relay, Relay],
    every: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The suspects are as many as may wait, and the look at them is always cut off."""
    monkeypatch.setattr("backfill.direct.patience.BACKOFF_S", (0.01,))
    every(1, looking.Look, "differences", partial(elsewhere, relays[1].cut))
    said: list[str] = []
    with pytest.raises((ConnectionLost, ConnectError)):
        compare(*relays, tmp_path / "findings", said, patience=0.3)
    assert len(said) > 2
