"""Commands that the proxy answers itself, because they are about the client's connection to the proxy.

Owns who may get in (AUTH, HELLO), the session's protocol, db and name, and the CLIENT family over the proxy's own
clients. Texts are Redis' own. Passwords are compared in constant time and appear nowhere.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from proxy.session import Command, Mode, Session
from resp.encode import array, bulk, error, map_, null, simple
from resp.encode import integer as number
from resp.numbers import integer

if TYPE_CHECKING:
    from proxy.hub import Hub

OK = simple(b"OK")
WRONGPASS = error("WRONGPASS invalid username-password pair or user is disabled.")
NO_PASSWORD_SET = error(
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
NOAUTH_HELLO = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO {}AUTH "
    "<user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time"
)
NOPROTO = error("NOPROTO unsupported protocol version")
SYNTAX = error("ERR syntax error")
BAD_NAME = error("ERR Client names cannot contain spaces, newlines or special characters.")

Answer = Callable[["Local", Session, Command], None]


class Local:
    """The proxy as the server that clients see."""

    def __init__(self, hub: Hub, *, user: str = "", password: str = "") -> None:
        self._hub = hub
        self._user = (user or "default").encode()
        self._password = password.encode()
        self.hello: dict[Any, Any] = {}  # the serving side's own HELLO reply
        self.version = ("redis", 0, 0)  # of the serving side: texts and order of checks differ

    @property
    def open(self) -> bool:
        """No password is asked for."""
        return not self._password

    @property
    def valkey(self) -> bool:
        """Whether a Valkey serves."""
        return self.version[0] == "valkey"

    def newer_than(self, major: int) -> bool:
        """Whether the serving side's major version is above `major`."""
        return self.version[1] > major

    def admits(self, user: bytes, password: bytes) -> bool:
        """Whether these credentials are the ones of the source URL."""
        same_user = hmac.compare_digest(user, self._user)
        same_password = hmac.compare_digest(password, self._password)
        return same_user and (same_password or self.open)


def wrong_arity(args: Command) -> bytes:
    """Redis' text for a wrong number of arguments."""
    name = args[0].lower().decode(errors="replace")
    return error(f"ERR wrong number of arguments for '{name}' command")


# -- getting in ------------------------------------------------------------------------------------------------------


def auth(local: Local, session: Session, args: Command) -> None:
    _auth(local, session, args)
    session.read_on()


def _auth(local: Local, session: Session, args: Command) -> None:
    if not 2 <= len(args) <= 3:
        session.put(wrong_arity(args) if len(args) < 2 else SYNTAX)
    elif local.open and len(args) == 2:
        session.put(NO_PASSWORD_SET)
    elif local.admits(args[1] if len(args) == 3 else b"default", args[-1]):
        _admit(session, args[1] if len(args) == 3 else b"default")
        session.put(OK)
    else:
        session.put(WRONGPASS)


def _admit(session: Session, user: bytes) -> None:
    session.authenticated = session.parser.authenticated = True
    session.user = user


def hello(local: Local, session: Session, args: Command) -> None:
    _hello(local, session, args)
    session.read_on()


def _hello(local: Local, session: Session, args: Command) -> None:
    resp, index = session.resp, 1
    if len(args) > 1:
        version = integer(args[1])
        if version not in (2, 3):
            text = b"ERR Protocol version is not an integer or out of range"
            session.put(error(text) if version is None else NOPROTO)
            return
        resp, index = version, 2
    options = _hello_options(args, index)
    if isinstance(options, bytes):
        session.put(options)
        return
    log_in = partial(_log_in, local, session, options)
    rename = partial(_rename, session, options)
    for check in (rename, log_in) if local.valkey else (log_in, rename):  # valkey looks at the name first
        problem = check()
        if problem is not None:
            session.put(problem)
            return
    if not session.authenticated:
        session.put(error(NOAUTH_HELLO.format("<proto> " if local.newer_than(7) else "")))
        return
    _speak(session, resp)
    session.put(_hello_reply(local, session))


def _hello_options(args: Command, index: int) -> dict[bytes, list[bytes]] | bytes:
    """AUTH user password, SETNAME name; or the error."""
    found: dict[bytes, list[bytes]] = {}
    while index < len(args):
        option = args[index].upper()
        wanted = {b"AUTH": 2, b"SETNAME": 1}.get(option, len(args))
        if index + wanted >= len(args):
            return error(f"ERR Syntax error in HELLO option '{args[index].decode(errors='replace')}'")
        found[option] = args[index + 1 : index + 1 + wanted]
        index += 1 + wanted
    return found


def _log_in(local: Local, session: Session, options: dict[bytes, list[bytes]]) -> bytes | None:
    credentials = options.get(b"AUTH")
    if credentials is None:
        return None
    if not local.admits(*credentials):
        return WRONGPASS
    _admit(session, credentials[0])
    return None


def _rename(session: Session, options: dict[bytes, list[bytes]]) -> bytes | None:
    for name in options.get(b"SETNAME", []):
        if not _good_name(name):
            return BAD_NAME
        session.name = name
    return None


def _speak(session: Session, resp: int) -> None:
    session.resp = resp
    if session.pin is not None:
        session.pin.speak(resp)


def _hello_reply(local: Local, session: Session) -> bytes:
    fields = dict(local.hello)
    fields[b"proto"] = session.resp
    fields[b"id"] = session.id
    return _value(fields, session.resp)


def _value(value: Any, resp: int) -> bytes:
    if isinstance(value, int):
        return number(value)
    if isinstance(value, list):
        return array([_value(item, resp) for item in value])
    if isinstance(value, dict):
        return map_([(_value(name, resp), _value(item, resp)) for name, item in value.items()], resp)
    return bulk(value)


def quit_(local: Local, session: Session, args: Command) -> None:
    session.leave(OK)


def reset(local: Local, session: Session, args: Command) -> None:
    if session.pin is not None:
        pin, session.pin = session.pin, None
        pin.orphan()
        session.mode = Mode.READY
    session.resp, session.db, session.name = 2, 0, b""
    session.muted, session.skip_next = False, 0
    session.authenticated = session.parser.authenticated = local.open
    session.put(simple(b"RESET"))


def select(local: Local, session: Session, args: Command) -> None:
    if len(args) != 2:
        session.put(wrong_arity(args))
        return
    db = integer(args[1])
    if db is None:
        session.put(error("ERR value is not an integer or out of range"))  # Redis >= 7; 6.2: "ERR invalid DB index"
        return
    if session.pin is not None:
        session.pin.send(local_spec(local, args), args)
    else:
        local._hub.lane.select(session, db)
    if session.db != db:
        session.when_idle(lambda: None)  # the next commands wait for the answer


def local_spec(local: Local, args: Command) -> Any:
    """The catalog's entry of a command that goes to a pinned connection after all."""
    return local._hub.router.catalog.lookup(args)


# -- CLIENT ----------------------------------------------------------------------------------------------------------


def _good_name(name: bytes) -> bool:
    return all(33 <= byte <= 126 for byte in name)


def client_id(local: Local, session: Session, args: Command) -> None:
    session.put(number(session.id))


def client_getname(local: Local, session: Session, args: Command) -> None:
    session.put(bulk(session.name) if session.name else null(session.resp))


def client_setname(local: Local, session: Session, args: Command) -> None:
    if len(args) != 3:
        session.put(error("ERR wrong number of arguments for 'client|setname' command"))
    elif not _good_name(args[2]):
        session.put(BAD_NAME)
    else:
        session.name = args[2]
        session.put(OK)


def client_setinfo(local: Local, session: Session, args: Command) -> None:
    known = {b"LIB-NAME": b"lib-name", b"LIB-VER": b"lib-ver"}
    attribute = known.get(args[2].upper()) if len(args) == 4 else None
    if len(args) != 4:
        session.put(error("ERR wrong number of arguments for 'client|setinfo' command"))
    elif attribute is None:
        session.put(error(f"ERR Unrecognized option '{args[2].decode(errors='replace')}'"))
    elif not _good_name(args[3]):
        session.put(error(f"ERR {attribute.decode()} cannot contain spaces, newlines or special characters."))
    else:
        session.library[attribute] = args[3]
        session.put(OK)


def describe(local: Local, session: Session) -> bytes:
    """One line of CLIENT LIST."""
    now = local._hub.clock()
    command = session.last_command[0].lower() if session.last_command else b"NULL"
    fields: list[tuple[bytes, object]] = [
        (b"id", session.id),
        (b"addr", session.address),
        (b"name", session.name),
        (b"age", int(now - session.connected_at)),
        (b"idle", int(now - session.last_at)),
        (b"flags", "b" if session.mode is Mode.WAITING else "N"),
        (b"db", session.db),
        (b"cmd", command),
        (b"user", session.user),
        (b"resp", session.resp),
        *session.library.items(),
    ]
    return b" ".join(
        name + b"=" + (value if isinstance(value, bytes) else str(value).encode()) for name, value in fields
    )


def client_list(local: Local, session: Session, args: Command) -> None:
    wanted = {integer(arg) for arg in args[3:]} if len(args) > 3 and args[2].upper() == b"ID" else None
    sessions = [one for one in local._hub.sessions.values() if wanted is None or one.id in wanted]
    session.put(bulk(b"".join(describe(local, one) + b"\n" for one in sessions)))


def client_info(local: Local, session: Session, args: Command) -> None:
    session.put(bulk(describe(local, session) + b"\n"))


def client_kill(local: Local, session: Session, args: Command) -> None:
    """By address (old form), or by ID, ADDR, USER, SKIPME."""
    if len(args) == 3:
        found = [one for one in local._hub.sessions.values() if one.address.encode() == args[2]]
        if not found:
            session.put(error("ERR No such client"))
            return
        _kill(found, session)
        session.put(OK)
        return
    if len(args) < 4 or len(args) % 2:
        session.put(SYNTAX)
        return
    filters: dict[bytes, bytes] = {args[index].upper(): args[index + 1] for index in range(2, len(args), 2)}
    skip_me = filters.pop(b"SKIPME", b"yes").lower() == b"yes"
    readers: dict[bytes, Callable[[Session], bytes]] = {
        b"ID": lambda one: b"%d" % one.id,
        b"ADDR": lambda one: one.address.encode(),
        b"USER": lambda one: one.user,
    }
    if any(name not in readers for name in filters):
        session.put(SYNTAX)
        return
    found = [
        one
        for one in local._hub.sessions.values()
        if all(readers[name](one) == value for name, value in filters.items()) and not (skip_me and one is session)
    ]
    session.put(number(len(found)))
    _kill(found, session)


def _kill(found: list[Session], by: Session) -> None:
    for one in found:
        if one is by:
            one.leave(b"")
        else:
            one.close()


def client_reply(local: Local, session: Session, args: Command) -> None:
    how = args[2].upper() if len(args) == 3 else b""
    if how == b"ON":
        session.muted, session.skip_next = False, 0
        session.put(OK)
    elif how == b"OFF":
        session.muted = True
    elif how == b"SKIP":
        session.skip_next = 0 if session.muted else 1
    else:
        session.put(SYNTAX)


def client_unblock(local: Local, session: Session, args: Command) -> None:
    waiting = integer(args[2]) if len(args) in (3, 4) else None
    if waiting is None:
        session.put(error("ERR value is not an integer or out of range"))
        return
    how = args[3].upper() if len(args) == 4 else b"TIMEOUT"
    if how not in (b"TIMEOUT", b"ERROR"):
        session.put(error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"))
        return
    frame = error("UNBLOCKED client unblocked via CLIENT UNBLOCK") if how == b"ERROR" else None
    session.put(number(int(local._hub.waiters.unblock(waiting, frame))))


def client_ok(local: Local, session: Session, args: Command) -> None:
    """NO-EVICT, NO-TOUCH: they are about a server's own clients, and mean nothing for the proxy's."""
    session.put(OK)


ANSWERS: dict[bytes, Answer] = {
    b"AUTH": auth,
    b"HELLO": hello,
    b"QUIT": quit_,
    b"RESET": reset,
    b"SELECT": select,
    b"CLIENT ID": client_id,
    b"CLIENT GETNAME": client_getname,
    b"CLIENT SETNAME": client_setname,
    b"CLIENT SETINFO": client_setinfo,
    b"CLIENT LIST": client_list,
    b"CLIENT INFO": client_info,
    b"CLIENT KILL": client_kill,
    b"CLIENT REPLY": client_reply,
    b"CLIENT UNBLOCK": client_unblock,
    b"CLIENT NO-EVICT": client_ok,
    b"CLIENT NO-TOUCH": client_ok,
}
"""By Spec.name; what the catalog calls LOCAL and is not here goes to a pinned connection."""
