"""A bare server, and the same version behind a proxy; the same calls go to both.

Owns: the processes, the lockstep, the list of what differed. Refuses to know: what the calls are, and which
differences are allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tests.differential.corpus import Call, Unit
from tests.differential.differences import Known, same_reply
from tests.differential.wire import NoReply, Wire, pack
from tests.proxies import RunningProxy
from tests.servers import Server, make_server

# Each version's proxy has a target of another version, where one can hold everything that the source can.
TARGETS = {
    "redis-6.2": "valkey-9.1",
    "redis-7.0": "redis-8.2",
    "valkey-8.1": "valkey-9.1",
    "redis-8.2": "redis-8.2",
    "valkey-9.1": "redis-8.2",
}


@dataclass(frozen=True, slots=True)
class Differs:
    """One call whose replies are not the same."""

    unit: Unit
    resp: int
    args: Call
    bare: bytes
    proxied: bytes

    def __str__(self) -> str:
        text = b" ".join(self.args)[:200].decode(errors="backslashreplace")
        return f"RESP{self.resp} {text!r}\n    server: {self.bare[:300]!r}\n    proxy:  {self.proxied[:300]!r}"


@dataclass(slots=True)
class Sides:
    name: str
    bare: Server
    source: Server
    target: Server
    proxy: RunningProxy
    differs: list[Differs] = field(default_factory=list)
    known: set[Known] = field(default_factory=set)  # entries of KNOWN that have been met
    varying: set[bytes] = field(default_factory=set)  # prefixes of keys whose value is a matter of chance or time
    calls: int = 0

    def run(self, units: Iterable[Unit], resp: int, *, pipelined: bool = True, fresh: bool = False) -> None:
        """Each unit on both, on one pair of connections; `fresh`: on a pair of its own."""
        wires: tuple[Wire, Wire] | None = None
        try:
            for unit in units:
                if unit.varies:
                    self.varying.add(unit.ident.encode())
                if wires is None:
                    wires = Wire(self.bare.port, resp), Wire(self.proxy.port, resp)
                if not self._run(unit, wires, resp, pipelined) or fresh:
                    _close(wires)
                    wires = None
        finally:
            if wires is not None:
                _close(wires)

    def _run(self, unit: Unit, wires: tuple[Wire, Wire], resp: int, pipelined: bool) -> bool:
        calls = (*unit.fixtures, *unit.calls)
        self.calls += len(calls)
        bundles: list[Sequence[Call]] = [calls] if pipelined else [[call] for call in calls]
        for bundle in bundles:
            payload = b"".join(map(pack, bundle))
            for wire in wires:
                wire.send(payload)
            replies, whole = [], True
            for wire in wires:
                try:
                    replies.append(wire.frames(len(bundle)))
                except NoReply as problem:
                    whole = False
                    replies.append([*problem.frames, problem.why.encode()])
            for args, bare, proxied in zip(bundle, *replies, strict=False):
                if not same_reply(args, bare, proxied):
                    self.differs.append(Differs(unit, resp, args, bare, proxied))
            if not whole:
                return False
        return True


def _close(wires: tuple[Wire, Wire]) -> None:
    for wire in wires:
        wire.close()


@contextmanager
def running(name: str, *options: str) -> Iterator[Sides]:
    """Servers and proxy, with the backfill of nothing done: from then on all is mirrored as commands."""
    with ExitStack() as stack:
        bare, source, target = (stack.enter_context(make_server(one)) for one in (name, name, TARGETS[name]))
        proxy = stack.enter_context(RunningProxy(source, target, *options))
        proxy.backfill()
        yield Sides(name, bare, source, target, proxy)
