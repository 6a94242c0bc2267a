"""Which scripts are in use."""

from __future__ import annotations

import hashlib

from proxy.scripts import MAX_SCRIPTS, Scripts


def digest(body: bytes) -> bytes:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest().encode()


def test_a_body_is_told_once() -> None:
    scripts = Scripts()
    assert scripts.learn(b"EVAL", [b"EVAL", b"return 1", b"0"], ok=True) == b"return 1"
    assert scripts.learn(b"EVAL", [b"EVAL", b"return 1", b"0"], ok=True) is None
    assert scripts.bodies() == [b"return 1"]


def test_a_body_that_failed_is_known_to_the_server_all_the_same() -> None:
    assert Scripts().learn(b"EVAL", [b"EVAL", b"x", b"0"], ok=False) == b"x"


def test_loaded_bodies_are_mirrored_as_sent() -> None:
    scripts = Scripts()
    assert scripts.learn(b"SCRIPT LOAD", [b"SCRIPT", b"LOAD", b"return 1"], ok=True) is None
    assert scripts.bodies() == [b"return 1"]


def test_digests_in_use() -> None:
    scripts = Scripts()
    scripts.learn(b"EVALSHA", [b"EVALSHA", digest(b"a").upper(), b"0"], ok=True)
    scripts.learn(b"EVALSHA", [b"EVALSHA", b"gone", b"0"], ok=False)
    assert scripts.used() == [digest(b"a")]


def test_flush() -> None:
    scripts = Scripts()
    scripts.learn(b"EVAL", [b"EVAL", b"a", b"0"], ok=True)
    scripts.learn(b"EVALSHA", [b"EVALSHA", digest(b"a"), b"0"], ok=True)
    scripts.learn(b"SCRIPT FLUSH", [b"SCRIPT", b"FLUSH"], ok=True)
    assert (scripts.bodies(), scripts.used()) == ([], [])


def test_bounded() -> None:
    scripts = Scripts()
    for number in range(MAX_SCRIPTS + 50):
        scripts.learn(b"EVAL", [b"EVAL", b"%d" % number, b"0"], ok=True)
        scripts.learn(b"EVALSHA", [b"EVALSHA", b"%d" % number, b"0"], ok=True)
    assert len(scripts.used()) <= MAX_SCRIPTS
    assert len(scripts.bodies()) <= MAX_SCRIPTS


def test_many_big_bodies_are_bounded_in_bytes() -> None:
    scripts = Scripts()
    for number in range(300):
        scripts.learn(b"EVAL", [b"EVAL", b"%d" % number + b"x" * 900_000, b"0"], ok=True)
    assert sum(map(len, scripts.bodies())) < 128 * 1024 * 1024


def test_malformed() -> None:
    for name in (b"EVAL", b"EVALSHA", b"EVAL_RO", b"EVALSHA_RO"):
        assert Scripts().learn(name, [name], ok=False) is None
