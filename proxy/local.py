"""Commands that the proxy answers itself, because they are about the client's connection to the proxy.

Owns who may get in (AUTH, HELLO), the session's protocol, db and name, and the CLIENT family over the proxy's own
clients. Texts are Redis' own. Passwords are compared in constant time and appear nowhere.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from proxy.session import Command, Mode, Session
from resp.encode import array, bulk, error, integer, map_, null, simple

if TYPE_CHECKING:
    from proxy.hub import Hub

OK = simple(b"OK")
WRONGPASS = error("WRONGPASS invalid username-password pair or user is disabled.")
NO_PASSWORD_SET = error(
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
NOAUTH_HELLO = error(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH "
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

    @property
    def open(self) -> bool:
        """No password is asked for."""
        return not self._password

    def admits(self, user: bytes, password: bytes) -> bool:
        """Whether these credentials are the ones of the source URL."""
        same_user = hmac.compare_digest(user, self._user)
        same_password = hmac.compare_digest(password, self._password)
        return self.open or (same_user and same_password)


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
    resp, index, name = session.resp, 1, None
    if len(args) > 1:
        if args[1] not in (b"2", b"3"):
            session.put(
                NOPROTO if args[1].isdigit() else error("ERR Protocol version is not an integer or out of range")
            )
            return
        resp, index = int(args[1]), 2
    while index < len(args):
        option = args[index].upper()
        if option == b"AUTH" and index + 2 < len(args):
            if not local.admits(args[index + 1], args[index + 2]):
                session.put(WRONGPASS)
                return
            _admit(session, args[index + 1])
            index += 3
        elif option == b"SETNAME" and index + 1 < len(args):
            name = args[index + 1]
            if not _good_name(name):
                session.put(BAD_NAME)
                return
            index += 2
        else:
            session.put(error(f"ERR Syntax error in HELLO option '{args[index].decode(errors='replace')}'"))
            return
    if not session.authenticated:
        session.put(NOAUTH_HELLO)
        return
    if name is not None:
        session.name = name
    _speak(session, resp)
    session.put(_hello_reply(local, session))


def _speak(session: Session, resp: int) -> None:
    session.resp = resp
    if session.pin is not None:
        session.pin.speak(resp)


def _hello_reply(local: Local, session: Session) -> bytes:
    fields = dict(local.hello)
    fields[b"proto"] = session.resp
    fields[b"id"] = session.id
    return map_([(bulk(key), _value(value)) for key, value in fields.items()], resp=session.resp)


def _value(value: Any) -> bytes:
    if isinstance(value, int):
        return integer(value)
    if isinstance(value, list):
        return array([_value(item) for item in value])
    if isinstance(value, dict):
        return array([part for pair in value.items() for part in map(_value, pair)])
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
    try:
        db = int(args[1])
    except ValueError:
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
    session.put(integer(session.id))


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
    wanted = {int(arg) for arg in args[3:] if arg.isdigit()} if len(args) > 3 and args[2].upper() == b"ID" else None
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
    session.put(integer(len(found)))
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
    if len(args) not in (3, 4) or not args[2].isdigit():
        session.put(error("ERR value is not an integer or out of range"))
        return
    how = args[3].upper() if len(args) == 4 else b"TIMEOUT"
    if how not in (b"TIMEOUT", b"ERROR"):
        session.put(error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"))
        return
    frame = error("UNBLOCKED client unblocked via CLIENT UNBLOCK") if how == b"ERROR" else None
    session.put(integer(int(local._hub.waiters.unblock(int(args[2]), frame))))


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
