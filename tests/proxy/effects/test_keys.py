"""Deletion, expiry, and commands that build on other keys."""

from __future__ import annotations

import pytest

from proxy.effects import NOTHING
from tests.proxy.effects.transcript import ERROR, NOW, OK, ONE, ZERO, array, copied, did, number, sent

CHANGED = [
    ("DEL k l", ONE, "DEL k l"),
    ("unlink k", ONE, "unlink k"),
    ("EXPIRE k 10", ONE, f"PEXPIREAT k {NOW + 10_000}"),
    ("PEXPIRE k 10 GT", ONE, f"PEXPIREAT k {NOW + 10}"),
    ("EXPIREAT k 1800000000 NX", ONE, "PEXPIREAT k 1800000000007"),
    ("PEXPIREAT k 1800000000000", ONE, "PEXPIREAT k 1800000000007"),
    ("PEXPIREAT k 1", ONE, "PEXPIREAT k 8"),  # long past: both sides delete the key
    ("EXPIRE k 0", ONE, "DEL k"),
    ("PEXPIRE k -5", ONE, "DEL k"),
    ("PERSIST k", ONE, "PERSIST k"),
    ("RESTORE k 0 xyz", OK, "RESTORE k 0 xyz REPLACE ABSTTL"),
    ("RESTORE k 10 xyz REPLACE", OK, f"RESTORE k {NOW + 10} xyz REPLACE ABSTTL"),
    ("RESTORE k 1800000000000 xyz ABSTTL IDLETIME 5", OK, "RESTORE k 1800000000007 xyz REPLACE ABSTTL"),
    ("RESTORE k 0 xyz ABSTTL", OK, "RESTORE k 0 xyz REPLACE ABSTTL"),
    ("RESTORE-ASKING k 0 xyz", OK, "RESTORE k 0 xyz REPLACE ABSTTL"),
    ("MIGRATE h 1 k 0 1000", OK, "DEL k"),
    ("MIGRATE h 1 k 0 1000 REPLACE AUTH2 KEYS COPY", OK, "DEL k"),
]
UNCHANGED = [
    ("DEL k", ZERO),
    ("EXPIRE k 10", ZERO),
    ("PERSIST k", ZERO),
    ("RENAME k k", OK),
    ("RENAME k l", ERROR),
    ("RENAMENX k l", ZERO),
    ("MOVE k 1", ZERO),
    ("COPY k l", ZERO),
    ("RESTORE k 0 xyz", b"-BUSYKEY Target key name already exists.\r\n"),
    ("MIGRATE h 1 k 0 1000", b"+NOKEY\r\n"),
    ("MIGRATE h 1 k 0 1000 COPY", OK),
    ("SORT k", array()),
    ("SORT k BY store GET store", array()),
    ("GEORADIUS k 1 2 3 km", array()),
]
COPIED = [
    ("RENAME k l", OK, ["k", "l"]),
    ("RENAMENX k l", ONE, ["k", "l"]),
    ("MOVE k 3", ONE, ["k", "3/k"]),
    ("COPY k l", ONE, ["l"]),
    ("COPY k l DB 2 REPLACE", ONE, ["2/l"]),
    ("COPY k l REPLACE", ONE, ["l"]),
    ("SORT k STORE l", ZERO, ["l"]),
    ("SORT k BY w* LIMIT 0 5 GET # GET store store l DESC STORE m", number(5), ["m"]),
    ("MIGRATE h 1 k 0 1000", b"-IOERR error\r\n", ["k"]),
]


@pytest.mark.parametrize(("command", "reply", "mirrored"), CHANGED)
def test_changed(command: str, reply: bytes, mirrored: str) -> None:
    assert sent(did(command, reply, clock_shift_ms=7)) == [mirrored]


@pytest.mark.parametrize(("command", "reply"), UNCHANGED)
def test_unchanged(command: str, reply: bytes) -> None:
    assert did(command, reply) is NOTHING


@pytest.mark.parametrize(("command", "reply", "keys"), COPIED)
def test_copied(command: str, reply: bytes, keys: list[str]) -> None:
    assert copied(did(command, reply)) == keys


def test_a_copy_stays_in_the_session_s_db() -> None:
    assert copied(did("COPY k l", ONE, db=4)) == ["4/l"]
    assert copied(did("MOVE k 0", ONE, db=4)) == ["4/k", "k"]


def test_a_shift_does_not_make_a_deadline_vanish() -> None:
    assert sent(did("RESTORE k 5 xyz ABSTTL", OK, clock_shift_ms=-5)) == ["RESTORE k 1 xyz REPLACE ABSTTL"]
    assert sent(did("SET k v PXAT 5", OK, clock_shift_ms=-9)) == ["SET k v PXAT 1"]


def test_any_answer_to_a_deletion_is_fine_for_the_key_is_gone() -> None:
    effect = did("DEL k l", ONE)
    assert (effect.expected, effect.keys, effect.guard) == ((None,), (b"k", b"l"), ())


def test_migrate_of_several_keys() -> None:
    command = [b"MIGRATE", b"h", b"1", b"", b"0", b"1000", b"AUTH", b"pw", b"KEYS", b"k", b"KEYS"]
    assert did(command, OK).commands == ((b"DEL", b"k", b"KEYS"),)
    assert copied(did(command, b"-IOERR error\r\n")) == ["k", "KEYS"]  # some may have been moved
