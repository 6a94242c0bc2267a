"""same_reply: what carries the same information in another RESP version or from another server is the same."""

from __future__ import annotations

import pytest

from proxy.effects import same_reply
from tests.proxy.effects.transcript import ERROR, NIL, NULL, OK, ONE, ZERO, array, bulk, bulks, double

SAME = [
    (OK, OK),
    (NIL, NULL),
    (b"*-1\r\n", NULL),
    (NIL, b"*-1\r\n"),
    (ONE, b"#t\r\n"),
    (ZERO, b"#f\r\n"),
    (double("0.1"), bulk("0.10000000000000001")),
    (bulk("3"), double("3")),
    (double("inf"), double("inf")),
    (bulk("inf"), double("inf")),
    (bulk("a"), b"=5\r\ntxt:a\r\n"),
    (array(NIL, ONE), array(NULL, ONE)),
    (array(bulk("a"), bulk("b"), kind="~"), bulks("b", "a")),
    (bulks("k", "v", "l", "w"), array(bulk("l"), bulk("w"), bulk("k"), bulk("v"), kind="%")),
    (array(bulks("k", "v")), array(bulk("k"), bulk("v"), kind="%")),
    (array(array(bulk("k"), array())), array(bulk("k"), array(), kind="%")),
    (array(array(bulk("m"), double("1"))), array(bulks("m", "1"))),
    (b"-WRONGTYPE of one\r\n", b"-WRONGTYPE of another\r\n"),
    (b"-ERR x\r\n", b"!5\r\nERR y\r\n"),
]
DIFFERENT = [
    (OK, ERROR),
    (ERROR, OK),
    (NIL, ERROR),
    (b"-ERR x\r\n", b"-WRONGTYPE x\r\n"),
    (ONE, ZERO),
    (NIL, bulk("")),
    (NIL, array()),
    (NULL, ZERO),
    (bulk("1"), bulk("1.0")),  # two strings, not numbers
    (bulk("1e3"), bulk("1000")),
    (double("1"), bulk("one")),
    (bulks("a", "b"), bulks("b", "a")),  # an order that counts
    (array(bulk("a"), bulk("b"), kind="~"), bulks("a", "c")),
    (array(bulk("a"), bulk("a"), kind="~"), bulks("a", "b")),
    (bulks("a"), bulks("a", "a")),
    (bulks("a"), bulk("a")),
    (bulks("k", "v"), array(bulk("k"), bulk("w"), kind="%")),
    (bulks("k"), array(bulk("k"), bulk("v"), kind="%")),
    (array(NIL), bulks("")),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_whichever_side_says_it(one: bytes, other: bytes) -> None:
    assert same_reply(one, other)
    assert same_reply(other, one)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_whichever_side_says_it(one: bytes, other: bytes) -> None:
    assert not same_reply(one, other)
    assert not same_reply(other, one)
