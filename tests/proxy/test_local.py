"""What the proxy answers itself, in Redis' words."""

from __future__ import annotations

import pytest

from tests.proxy.stage import NIL, OK, ONE, ZERO, Stage, bulk

WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


def asked(stage: Stage, *commands: str | list[bytes], **options: bool) -> bytes:
    client = stage.client(**options)
    client.says(*commands)
    return client.hears()


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("CLIENT ID", ONE),
        ("CLIENT GETNAME", NIL),
        ("CLIENT SETNAME app", OK),
        ([b"CLIENT", b"SETNAME", b"a b"], b"-ERR Client names cannot contain spaces"),
        ("CLIENT SETINFO LIB-NAME redis-py", OK),
        ("CLIENT SETINFO NOSUCH x", b"-ERR Unrecognized option 'NOSUCH'\r\n"),
        ("CLIENT NO-EVICT ON", OK),
        ("CLIENT KILL 1.2.3.4:5", b"-ERR No such client\r\n"),
        ("CLIENT KILL ID", b"-ERR"),
        ("CLIENT UNBLOCK 77", ZERO),
        ("CLIENT UNBLOCK x", b"-ERR value is not an integer or out of range\r\n"),
        ("CLIENT UNBLOCK " + "9" * 5000, b""),
        ("CLIENT LIST ID " + "9" * 5000, b"-ERR Invalid client ID\r\n"),
        ("CLIENT REPLY MAYBE", b"-ERR syntax error\r\n"),
        ("SELECT x", b"-ERR value is not an integer or out of range\r\n"),
        ("SELECT 1_0", b"-ERR value is not an integer or out of range\r\n"),
        ([b"SELECT", b" 1"], b"-ERR value is not an integer or out of range\r\n"),
        ("SELECT " + "9" * 5000, b"-ERR"),
        ("SELECT", b"-ERR wrong number of arguments for 'select' command\r\n"),
        ("HELLO 4", b"-NOPROTO"),
        ("HELLO x", b"-ERR Protocol version is not an integer or out of range\r\n"),
        ("HELLO 3 NOSUCH", b"-ERR Syntax error in HELLO option 'NOSUCH'\r\n"),
        ("AUTH secret", b"-ERR AUTH <password> called without any password configured"),
        ("AUTH a b c", b"-ERR syntax error\r\n"),
        ("RESET", b"+RESET\r\n"),
        ("QUIT", OK),
    ],
)
def test_answers(stage: Stage, command: str | list[bytes], answer: bytes) -> None:
    assert asked(stage, command).startswith(answer)
    assert stage.lane.got() == []


def test_hello_tells_of_the_proxys_client(stage: Stage) -> None:
    stage.local.hello = {b"server": b"redis", b"version": b"7.2.0", b"proto": 2, b"id": 99, b"modules": []}
    assert asked(stage, "HELLO").startswith(b"*10\r\n$6\r\nserver\r\n$5\r\nredis\r\n")
    heard = asked(stage, "HELLO 3 SETNAME app")
    assert heard.startswith(b"%5\r\n")
    assert b"$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:2\r\n" in heard
    assert stage.clients[1].session.name == b"app"


def test_passwords() -> None:
    stage = Stage(password="secret")
    try:
        assert asked(stage, "AUTH wrong", "GET a", authenticated=False) == (
            WRONGPASS + b"-NOAUTH Authentication required.\r\n"
        )
        assert asked(stage, "AUTH secret", "CLIENT ID", authenticated=False) == OK + b":2\r\n"
        assert asked(stage, "AUTH default secret", authenticated=False) == OK
        assert asked(stage, "AUTH other secret", authenticated=False) == WRONGPASS
        assert asked(stage, "HELLO 3", authenticated=False).startswith(b"-NOAUTH HELLO must be called")
        assert asked(stage, "HELLO 3 AUTH default wrong", authenticated=False) == WRONGPASS
        assert asked(stage, "HELLO 3 AUTH default secret", authenticated=False).startswith(b"%")
        assert asked(stage, "AUTH secret", "RESET", "GET a", authenticated=False) == (
            OK + b"+RESET\r\n-NOAUTH Authentication required.\r\n"
        )
        assert stage.lane.got() == []
    finally:
        stage.close()


def test_client_list(stage: Stage) -> None:
    stage.client().says("CLIENT SETNAME one")
    listed = asked(stage, "CLIENT LIST").splitlines()
    assert len(listed) == 4  # header, two lines, the bulk's end
    assert listed[1].startswith(b"id=1 addr=10.0.0.1:1 ")
    assert b" name=one age=0 " in listed[1]
    assert asked(stage, "CLIENT LIST ID 2").count(b"id=") == 1
    assert b"name= " in asked(stage, "CLIENT INFO")


def test_client_kill(stage: Stage) -> None:
    one, two = stage.client(), stage.client()
    two.says("CLIENT KILL USER default SKIPME yes")
    assert one.hears() == b"<closed>"
    assert two.hears() == ONE
    two.says(f"CLIENT KILL {two.session.address}")
    assert two.hears() == OK + b"<closed>"


def test_reset_leaves_nothing(stage: Stage) -> None:
    client = stage.client(db=2)
    client.says("HELLO 3", "CLIENT SETNAME app", "SELECT 1", "SUBSCRIBE c")
    stage.lane.answers(b"%0\r\n", OK, OK)
    assert stage.pin.wire.open
    client.says("RESET")
    client.hears()
    session = client.session
    assert (session.resp, session.db, session.name, session.pin) == (2, 0, b"", None)
    stage.pin.answers(*[OK] * (len(stage.pin.got()) - 1))  # SUBSCRIBE's confirmation is a push in RESP3
    assert not stage.pin.wire.open
    stage.lane.got()
    client.says("GET a")
    assert stage.lane.got()[-2:] == ["SELECT 0", "GET a"]


def test_reset_of_a_muted_client(stage: Stage) -> None:
    client = stage.client()
    client.says("CLIENT REPLY OFF", "RESET", "CLIENT ID")
    assert client.hears() == b"+RESET\r\n" + ONE


def test_name_and_library(stage: Stage) -> None:
    assert asked(stage, "CLIENT SETNAME app", "CLIENT GETNAME") == OK + bulk("app")
    assert b"lib-name=x" in asked(stage, "CLIENT SETINFO LIB-NAME x", "CLIENT INFO")
