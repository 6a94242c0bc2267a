from __future__ import annotations

import pytest

from proxy import losses
from proxy.losses import Losses

A, B, C = (0, b"a"), (0, b"b"), (1, b"a")


def test_a_key_is_named_until_it_is_whole() -> None:
    found = Losses()
    found.note(A, ["its field TTLs", "its groups"])
    assert (str(found), found.first(5)) == ("1", [(A, "its field TTLs; its groups")])
    found.note(A, [])
    assert not found


def test_beyond_the_limit_it_is_only_known_that_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "MAX_KEPT", 2)
    found = Losses()
    for place in (A, B, C):
        found.note(place, ["something"])
    assert (str(found), len(found)) == ("more than 2", 2)
    found.note(A, ["more"])
    found.recount()
    assert found.first(1) == [(A, "more")]
    assert str(found) == "2"


def test_everybody_has_his_turn() -> None:
    found = Losses()
    for place in (A, B, C):
        found.note(place, ["something"])
    assert found.turn(2) == [A, B]
    assert found.turn(2) == [C, A]
