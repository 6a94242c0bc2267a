"""The demo's verdict, and its data set: without servers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from proxy.demo import data
from proxy.demo.account import DIFFERENCES, Account
from proxy.demo.compare import Comparison

FINAL = {"commands": 5, "errors": 0, "wrong": 0, "texts": []}
VERIFY = {"state": "done", "checked": 9, "problem": "", **dict.fromkeys(DIFFERENCES, 0)}
FLIP = {"flipped": True, "serving": "target", "pause_ms": 1.0, "reasons": []}
BACKFILL = {"state": "done", "copied": 9, "failed": 0, "problem": "", "failures": []}


def good() -> Account:
    account = Account(complete=True)
    account.take_backfill(BACKFILL)
    account.take_verify(VERIFY, [])
    account.take_flip(FLIP, 3.0, 2.0)
    account.take_application(FINAL)
    account.take_comparison(Comparison(Counter(hash=2), Counter(hash=2)))
    return account


def test_all_is_well() -> None:
    document = good().to_json()
    assert document["ok"] is True
    assert document["problems"] == []
    assert document["comparison"]["types"] == {"hash": {"source": 2, "target": 2, "different": 0}}


def test_half_a_story_is_not_well() -> None:
    account = good()
    account.complete = False
    assert not account.ok


@pytest.mark.parametrize(
    ("take", "text"),
    [
        (lambda account: account.take_backfill({**BACKFILL, "failed": 1, "failures": ["db 0 k"]}), "db 0 k"),
        (lambda account: account.take_verify({**VERIFY, "state": "failed", "problem": "lost"}, []), "lost"),
        (
            lambda account: account.take_verify({**VERIFY, "ttl": 1}, [{"db": 0, "key": "k", "detail": "late"}]),
            "1 keys that differ: db 0 k: late",
        ),
        (lambda account: account.take_flip({**FLIP, "flipped": False, "reasons": ["lag"]}, 0.0, 0.0), "lag"),
        (lambda account: account.take_application({**FINAL, "errors": 1, "texts": ["reset"]}), "reset"),
        (lambda account: account.take_application({**FINAL, "wrong": 1, "texts": ["a not b"]}), "a not b"),
        (
            lambda account: account.take_comparison(Comparison(different=Counter(list=1), findings=["db 1 q"])),
            "1 keys differ: db 1 q",
        ),
    ],
)
def test_whatever_is_wrong_is_a_problem(take: Any, text: str) -> None:
    account = good()
    take(account)
    assert not account.ok
    assert text in account.problems[0]


def test_data_set() -> None:
    made = list(data.make(2000))
    assert made == list(data.make(2000))
    assert (
        made[-1][0]
        == data.total(2000)
        == len(
            {
                (db, command[1])
                for _, db, command in made
                if len(command) > 2 and command[0] not in (b"XGROUP", b"XREADGROUP")
            }
        )
    )
    assert {db for _, db, _ in made} == {data.SHOP, data.CACHE}
    assert max(sum(map(len, command)) for _, _, command in data.make(data.DEFAULT_KEYS)) < 5_000_000
