"""Several clients at once, written as transcripts: the same conversation with a bare server and through a proxy.

Owns: the transcript language and its lockstep. Refuses to know: what should be answered.

    a: SET %k v ; GET %k    the client `a` sends these in one write. `%` stands for the conversation's own prefix
    c3: GET %k              a name that ends with 3 speaks RESP3 from the start
    a: CLIENT KILL ID {b}   `b`'s connection id, on each side its own
    a raw: PING\\r\\n       bytes as they are
    a< 1                    wait until a has got one reply in all to its last line (a timeout's, say)
    a!                      whether it has been hung up on
    a close                 it leaves

There is no waiting for something not to come: a server executes what is in its socket buffers in one go, so two PINGs
on another connection are behind everything that a step brought about. (On a busy machine the kernel may be late with a
reply: it is compared with the next step's.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.differential.corpus import Call, words
from tests.differential.differences import same_reply
from tests.differential.wire import TIMEOUT_S, NoReply, Wire, pack

_ID = re.compile(r"\{(\w+)\}")
BARRIER_S = 2.0  # far more than a busy machine needs
PING = pack([b"PING"])
_HELLO_ID = b"$2\r\nid\r\n:"
_LINE = re.compile(r"(\w+)(!|<| close| raw:|:)\s?(.*)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Conversation:
    name: str
    lines: tuple[str, ...]
    min_version: tuple[int, int] = (0, 0)


def parse(text: str) -> list[Conversation]:
    """`== name` begins a conversation; `== name >= 7.0` is for versions from there."""
    found = []
    for part in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        head, *lines = part.splitlines()
        name, _, version = head.partition(" >= ")
        major, _, minor = (version or "0.0").partition(".")
        wanted = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
        found.append(Conversation(name.strip(), wanted, (int(major), int(minor))))
    return found


class Differ(Exception):
    """The two sides did not say the same."""


@dataclass(slots=True)
class Side:
    """The clients of one side."""

    port: int
    clients: dict[str, Wire] = field(default_factory=dict)
    idents: dict[str, int] = field(default_factory=dict)  # also of those that have left
    control: Wire = field(init=False)

    def __post_init__(self) -> None:
        self.control = Wire(self.port)

    def client(self, name: str) -> Wire:
        if name not in self.clients:
            self.clients[name] = wire = Wire(self.port, 3 if name.endswith("3") else 2)
            self.idents[name] = int(wire.ask([b"CLIENT", b"ID"])[1:])
        return self.clients[name]

    def barrier(self) -> None:
        """Errors: Differ, when others have to wait for one of these clients."""
        try:
            for _ in range(2):
                self.control.send(PING)
                self.control.frames(1, BARRIER_S)
        except NoReply as problem:
            raise Differ(f"    another client's PING: {problem.why}") from None

    def with_ids(self, word: str) -> bytes:
        text = _ID.sub(lambda match: str(self.idents[match[1]]), word)
        return text.encode("latin-1").decode("unicode_escape").encode("latin-1")

    def close(self) -> None:
        for wire in (*self.clients.values(), self.control):
            wire.close()


class Talk:
    """A conversation held with both."""

    def __init__(self, conversation: Conversation, bare: int, proxied: int, *, prefix: str = "") -> None:
        self.conversation = conversation
        self.prefix = prefix or f"{conversation.name}:".replace(" ", "-")
        self.bare, self.proxied = Side(bare), Side(proxied)
        self._got: dict[str, int] = {}  # replies of the bare server since the client's last line

    def run(self) -> None:
        """Errors: Differ, with the step."""
        try:
            for number, line in enumerate(self.conversation.lines):
                try:
                    self._step(line)
                except Differ as problem:
                    story = "\n      ".join(self.conversation.lines[: number + 1])
                    raise Differ(f"{self.conversation.name}:\n      {story}\n{problem}") from None
            self._all_said()
        finally:
            self.bare.close()
            self.proxied.close()

    def _step(self, line: str) -> None:
        match = _LINE.match(line)
        assert match is not None, line
        name, what, rest = match.groups()
        for side in (self.bare, self.proxied):
            side.client(name)
        if what == "!":
            self._ended(name)
        elif what == " close":
            for side in (self.bare, self.proxied):
                side.clients.pop(name).close()
            self._settle({})
        elif what == "<":
            self._waited(name, int(rest or 1))
        elif what == " raw:":
            data = rest.replace("%", self.prefix).encode("latin-1").decode("unicode_escape").encode("latin-1")
            for side in (self.bare, self.proxied):
                side.client(name).send(data)
            self._settle({})
        else:
            self._said(name, rest)

    def _said(self, name: str, rest: str) -> None:
        calls: list[Call] = []
        self._got[name] = 0
        for side in (self.bare, self.proxied):
            calls = [
                tuple(side.with_ids(word.replace("%", self.prefix)) for word in words(part))
                for part in rest.split(" ; ")
            ]
            side.client(name).send(b"".join(map(pack, calls)))
        self._settle({name: calls})

    def _settle(self, said: dict[str, list[Call]]) -> None:
        """See that the proxy's clients get what the bare server's got."""
        self.bare.barrier()
        arrived = {name: wire.arrived() for name, wire in self.bare.clients.items()}
        self.proxied.barrier()
        for name, frames in arrived.items():
            self._compare(name, frames, said.get(name, []))

    def _waited(self, name: str, count: int) -> None:
        missing = count - self._got.get(name, 0)
        if missing > 0:
            self._compare(name, self.bare.client(name).frames(missing), [])

    def _compare(self, name: str, frames: list[bytes], calls: Sequence[Call]) -> None:
        wire = self.proxied.client(name)
        self._got[name] = self._got.get(name, 0) + len(frames)
        try:
            came = wire.frames(len(frames), 2.0)
        except NoReply as problem:
            less = f"{_short(problem.frames)}, then {problem.why}"
            raise Differ(f"    {name} got from the server {_short(frames)}\n    by the proxy {less}") from None
        for index, (bare, proxied) in enumerate(zip(frames, came, strict=True)):
            args = calls[index] if index < len(calls) else (b"HELLO",) if _HELLO_ID in bare else ()
            names = self._named(self.bare, bare), self._named(self.proxied, proxied)
            told_apart_by_ids = bare[:1] == b">" and names[0] == names[1]
            if not (bare == proxied or told_apart_by_ids or (args and same_reply(args, *names))):
                raise Differ(f"    {name} got from the server {_short(frames)}\n    by the proxy {_short(came)}")

    @staticmethod
    def _named(side: Side, frame: bytes) -> bytes:
        """Integers that are a client's id, by its name."""
        for name, ident in side.idents.items():
            frame = frame.replace(b":%d\r\n" % ident, b":<%b>\r\n" % name.encode())
        return frame

    def _ended(self, name: str) -> None:
        bare, proxied = self.bare.client(name), self.proxied.client(name)
        self.bare.barrier()
        self._compare(name, bare.arrived(), [])
        if bare.ended:
            try:
                proxied.frames(1, TIMEOUT_S)
                raise Differ(f"    {name}: the server hung up, the proxy answered")
            except NoReply as problem:
                if not proxied.ended:
                    raise Differ(f"    {name}: the server hung up, the proxy did not ({problem.why})") from None
        elif proxied.arrived() or proxied.ended:
            raise Differ(f"    {name}: the proxy hung up (or said more), the server did not")

    def _all_said(self) -> None:
        for side in (self.bare, self.proxied):
            side.barrier()
        for name, wire in self.proxied.clients.items():
            rest, theirs = wire.arrived(), self.bare.clients[name].arrived()
            if len(theirs) < len(rest):
                with suppress(NoReply):  # late
                    theirs += self.bare.clients[name].frames(len(rest) - len(theirs), BARRIER_S)
            if rest != theirs:
                text = f"at the end {name} got {_short(rest)} by the proxy, {_short(theirs)} from the server"
                raise Differ(f"{self.conversation.name}: {text}")


def _short(frames: Sequence[bytes]) -> str:
    return repr([frame if len(frame) < 300 else frame[:300] + b"..." for frame in frames])
