"""Commands that the proxy answers itself, because they are about the client's connection to the proxy.

Owns who may get in (AUTH, HELLO), the session's protocol, db and name, and the CLIENT family over the proxy's own
clients. Texts are Redis' own. Passwords are compared in constant time and appear nowhere.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from proxy.client_filters import Refused, flags_of, listed, parse
from proxy.pausing import Pause, too_long
from proxy.session import Command, Mode, Session
from resp.encode import array, bulk, error, map_, null, simple
from resp.encode import integer as number
from resp.numbers import integer

if TYPE_CHECKING:
    from proxy.hub import Client, Hub

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

PAUSES = {b"WRITE": Pause.WRITE, b"ALL": Pause.ALL}

Answer = Callable[["Local", Session, Command], None]


class Local:
    """The proxy as the server that clients see."""

    def __init__(self, hub: Hub, *, user: str = "", password: str = "") -> None:
        self.hub = hub
        self.credentials = ((user or "default").encode(), password.encode())
        self.hello: dict[Any, Any] = {}  # the serving side's own HELLO reply
        self.commands: frozenset[bytes] = frozenset()  # of the serving side
        self.version = ("redis", 0, 0)  # of the serving side: texts and order of checks differ

    @property
    def open(self) -> bool:
        """No password is asked for."""
        return not self.credentials[1]

    @property
    def valkey(self) -> bool:
        """Whether a Valkey serves."""
        return self.version[0] == "valkey"

    def newer_than(self, major: int) -> bool:
        """Whether the serving side's major version is above `major`."""
        return self.version[1] > major

    def knows(self, user: bytes) -> bool:
        """Whether clients may log in as this user."""
        return user in (self.credentials[0], b"default")

    def admits(self, user: bytes, password: bytes) -> bool:
        """Whether these credentials are the ones of the source URL."""
        same_user, same_password = map(hmac.compare_digest, (user, password), self.credentials)
        return same_user and (same_password or self.open)


# -- getting in ------------------------------------------------------------------------------------------------------


def auth(local: Local, session: Session, args: Command) -> None:
    _auth(local, session, args)
    session.read_on()


def _auth(local: Local, session: Session, args: Command) -> None:
    if len(args) > 3:
        session.put(SYNTAX)
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
    db = integer(args[1])
    if db is None:
        session.put(error("ERR value is not an integer or out of range"))  # Redis >= 7; 6.2: "ERR invalid DB index"
        return
    if session.pin is not None:
        session.pin.send(local_spec(local, args), args)
    else:
        local.hub.lane.select(session, db)
    if session.db != db:
        session.when_idle(lambda: None)  # the next commands wait for the answer


def local_spec(local: Local, args: Command) -> Any:
    """The catalog's entry of a command that goes to a pinned connection after all."""
    return local.hub.router.catalog.lookup(args)


# -- CLIENT ----------------------------------------------------------------------------------------------------------


def _good_name(name: bytes) -> bool:
    return all(33 <= byte <= 126 for byte in name)


def client_id(local: Local, session: Session, args: Command) -> None:
    session.put(number(session.id))


def client_getname(local: Local, session: Session, args: Command) -> None:
    session.put(bulk(session.name) if session.name else null(session.resp))


def client_setname(local: Local, session: Session, args: Command) -> None:
    if not _good_name(args[2]):
        session.put(BAD_NAME)
    else:
        session.name = args[2]
        session.put(OK)


def client_setinfo(local: Local, session: Session, args: Command) -> None:
    attribute = {b"LIB-NAME": b"lib-name", b"LIB-VER": b"lib-ver"}.get(args[2].upper())
    if attribute is None:
        session.put(error(f"ERR Unrecognized option '{args[2].decode(errors='replace')}'"))
    elif not _good_name(args[3]):
        option = args[2].decode(errors="replace")
        session.put(error(f"ERR {option} cannot contain spaces, newlines or special characters."))
    else:
        session.library[attribute] = args[3]
        session.put(OK)


def describe(local: Local, session: Client) -> bytes:
    """One line of CLIENT LIST, with the fields that servers have; what has no meaning for a proxy is 0."""
    now = local.hub.clock()
    channels, patterns, shards = session.pin.subscribed.counts() if session.pin is not None else (0, 0, 0)
    command = session.last_command[0].lower().decode(errors="replace") if session.last_command else "NULL"
    queued = session.pin.queued if session.pin is not None else -1
    library = {name: session.library.get(name, b"").decode() for name in (b"lib-name", b"lib-ver")}
    line = (
        f"id={session.id} addr={session.address} laddr={session.local_address} fd={session.fileno()} "
        f"name={session.name.decode()} age={int(now - session.connected_at)} idle={int(now - session.last_at)} "
        f"flags={flags_of(session)} db={session.db} sub={channels} psub={patterns} ssub={shards} multi={queued} "
        f"qbuf={session.buffered} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 "
        f"events=r cmd={command} user={session.user.decode(errors='replace')} redir=-1 resp={session.resp} "
        f"lib-name={library[b'lib-name']} lib-ver={library[b'lib-ver']}"
    )
    return line.encode()


def _text(session: Session, text: bytes) -> bytes:
    """A text for people: a verbatim string in RESP3."""
    return bulk(text) if session.resp == 2 else b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text)


def client_list(local: Local, session: Session, args: Command) -> None:
    try:
        sessions = listed(local, args[2:], session)
    except Refused as problem:
        session.put(problem.frame)
        return
    session.put(_text(session, b"".join(describe(local, one) + b"\n" for one in sessions)))


def client_info(local: Local, session: Session, args: Command) -> None:
    session.put(_text(session, describe(local, session) + b"\n"))


def client_kill(local: Local, session: Session, args: Command) -> None:
    """By address (old form), or by filters."""
    if len(args) == 2:
        session.put(error("ERR wrong number of arguments for 'client|kill' command") if local.newer_than(6) else SYNTAX)
        return
    sessions = local.hub.clients()
    if len(args) == 3:
        found = [one for one in sessions if one.address.encode() == args[2]][:1]
        session.put(OK if found else error("ERR No such client"))
        _kill(found, session)
        return
    try:
        found = parse(local, args[2:], skip_me=True).of(sessions, session)
    except Refused as problem:
        session.put(problem.frame)
        return
    session.put(number(len(found)))
    _kill(found, session)


def _kill(found: list[Client], by: Session) -> None:
    for one in found:
        if one is by:
            by.leave(b"")
        else:
            one.close()


def client_reply(local: Local, session: Session, args: Command) -> None:
    how = args[2].upper()
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
    if len(args) > 4 and not local.valkey:
        session.put(_wrong_subcommand(local, args))
        return
    waiting = integer(args[2])
    how = args[3].upper() if len(args) == 4 else b"TIMEOUT"
    if how not in (b"TIMEOUT", b"ERROR"):
        session.put(error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"))
        return
    if waiting is None:
        session.put(error("ERR value is not an integer or out of range"))
        return
    frame = error("UNBLOCKED client unblocked via CLIENT UNBLOCK") if how == b"ERROR" else None
    session.put(number(int(local.hub.waiters.unblock(waiting, frame))))


def client_pause(local: Local, session: Session, args: Command) -> None:
    """CLIENT PAUSE milliseconds [WRITE|ALL]."""
    if len(args) > 4 and not local.valkey:
        session.put(_wrong_subcommand(local, args))
        return
    kind = PAUSES.get(args[3].upper()) if len(args) == 4 else Pause.ALL
    milliseconds = integer(args[2])
    if kind is None:
        session.put(error("ERR CLIENT PAUSE mode must be WRITE or ALL"))
    elif milliseconds is None:
        session.put(error("ERR timeout is not an integer or out of range"))
    elif milliseconds < 0:
        session.put(error("ERR timeout is negative"))
    elif local.version[1:] >= (7, 2) and too_long(milliseconds):
        session.put(error("ERR timeout is out of range"))
    else:
        session.put(OK)
        local.hub.pausing.begin(milliseconds, kind)


def client_unpause(local: Local, session: Session, args: Command) -> None:
    local.hub.pausing.end()
    session.put(OK)


def client_switch(local: Local, session: Session, args: Command) -> None:
    """NO-EVICT, NO-TOUCH: they are about a server's own clients, and mean nothing for the proxy's."""
    session.put(OK if args[2].upper() in (b"ON", b"OFF") else SYNTAX)


MANY = 1 << 20  # no upper limit on the number of arguments

# By Spec.name: the answer, the least and the greatest number of arguments (names included). What the catalog calls
# LOCAL and is not here, or what the serving side does not know, goes to a pinned connection.
ANSWERS: dict[bytes, tuple[Answer, int, int]] = {
    b"AUTH": (auth, 2, MANY),
    b"HELLO": (hello, 1, MANY),
    b"QUIT": (quit_, 1, MANY),
    b"RESET": (reset, 1, 1),
    b"SELECT": (select, 2, 2),
    b"CLIENT ID": (client_id, 2, 2),
    b"CLIENT GETNAME": (client_getname, 2, 2),
    b"CLIENT SETNAME": (client_setname, 3, 3),
    b"CLIENT SETINFO": (client_setinfo, 4, 4),
    b"CLIENT LIST": (client_list, 2, MANY),
    b"CLIENT INFO": (client_info, 2, 2),
    b"CLIENT KILL": (client_kill, 2, MANY),
    b"CLIENT REPLY": (client_reply, 3, 3),
    b"CLIENT UNBLOCK": (client_unblock, 3, MANY),
    b"CLIENT PAUSE": (client_pause, 3, MANY),
    b"CLIENT UNPAUSE": (client_unpause, 2, 2),
    b"CLIENT NO-EVICT": (client_switch, 3, 3),
    b"CLIENT NO-TOUCH": (client_switch, 3, 3),
}


def answers(local: Local, name: bytes) -> bool:
    """Whether the proxy answers this command itself."""
    return name in ANSWERS


def _known(local: Local, name: bytes) -> bool:
    """Whether the serving side has this subcommand: client libraries try newer ones, and go by the error."""
    if b" " not in name or not local.commands:
        return True
    told = local.newer_than(6)  # since 7.0 COMMAND lists subcommands
    return name in local.commands if told else name not in NEWER_THAN_6_2


def answer(local: Local, session: Session, name: bytes, args: Command) -> None:
    """Answer it, or say that the number of arguments is wrong."""
    handler, least, most = ANSWERS[name]
    if not _known(local, name) and local.newer_than(6):
        session.put(error(f"ERR unknown subcommand '{args[1][:128].decode(errors='replace')}'. Try CLIENT HELP."))
    elif least <= len(args) <= most and _known(local, name):
        handler(local, session, args)
    elif b" " in name and not local.newer_than(6):
        session.put(_wrong_subcommand(local, args))
    else:
        shown = name.lower().replace(b" ", b"|").decode()
        session.put(error(f"ERR wrong number of arguments for '{shown}' command"))


def _wrong_subcommand(local: Local, args: Command) -> bytes:
    shown = args[1].decode(errors="replace")
    unknown = "unknown" if local.newer_than(6) else "Unknown"
    return error(f"ERR {unknown} subcommand or wrong number of arguments for '{shown}'. Try CLIENT HELP.")


NEWER_THAN_6_2 = frozenset([b"CLIENT SETINFO", b"CLIENT NO-EVICT", b"CLIENT NO-TOUCH"])
