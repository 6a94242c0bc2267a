"""The admin socket: RESP commands of the operator, over a unix socket in the state directory (mode 0600).

Owns the commands' names and options. Answers are JSON in a bulk string; an error says what to do. `redis-cli -s
DIR/admin.sock STATUS` works.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from backfill.direct.selection import TYPES, Selection, parse_slots
from backfill.errors import BackfillError
from proxy.filling import Plan
from proxy.flip import MAX_PAUSE_MS, Terms
from proxy.jobs import Busy, Jobs
from proxy.recovery import thaw
from proxy.verifying import TOLERANCE_MS
from proxy.verifying import Terms as VerifyTerms
from resp.commands import CommandParser
from resp.encode import bulk, error, simple

if TYPE_CHECKING:
    from proxy.server import Proxy

log = logging.getLogger("crossfade")

Options = dict[str, str]


class BadOption(Exception):
    """The command's options are wrong; `text` says how."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def parse_options(args: list[str], known: dict[str, bool]) -> Options:
    """`NAME` and `NAME value` pairs; `known` says which names take a value. Errors: BadOption."""
    found: Options = {}
    index = 0
    while index < len(args):
        name = args[index].upper()
        if name not in known:
            raise BadOption(f"unknown option {args[index]}: there are {', '.join(known) or 'none'}")
        if not known[name]:
            found[name] = "1"
        elif index + 1 < len(args):
            index += 1
            found[name] = args[index]
        else:
            raise BadOption(f"{name} wants a value")
        index += 1
    return found


SELECTING = ("MATCH", "EXCLUDE", "TYPE", "DB", "SLOTS")
BACKFILL_OPTIONS = {"RATE": True, "BANDWIDTH": True, "IMPOLITE": False, "ANEW": False, "MIRROR-AGAIN": False}


def parse_repeated(
    args: list[str], several: Sequence[str], known: dict[str, bool]
) -> tuple[dict[str, list[str]], Options]:
    """As `parse_options`; the options `several` may be given more than once. Errors: BadOption."""
    found: dict[str, list[str]] = {name: [] for name in several}
    rest: list[str] = []
    index = 0
    while index < len(args):
        name = args[index].upper()
        if name in found and index + 1 < len(args):
            found[name].append(args[index + 1])
            index += 2
        elif name in found:
            raise BadOption(f"{name} wants a value")
        else:
            width = 2 if known.get(name) else 1
            rest += args[index : index + width]
            index += width
    return found, parse_options(rest, known)


def selection(several: dict[str, list[str]]) -> Selection:
    """Which keys to copy. Errors: BadOption."""
    kinds, dbs = {kind.lower() for kind in several["TYPE"]}, several["DB"]
    if unknown := kinds.difference(kind.decode() for kind in TYPES):
        raise BadOption(f"no such type: {', '.join(unknown)}")
    if not all(db.isdigit() for db in dbs):
        raise BadOption("DB wants a number from 0 up")
    try:
        return Selection(
            match=tuple(text.encode(errors="surrogateescape") for text in several["MATCH"]),
            exclude=tuple(text.encode(errors="surrogateescape") for text in several["EXCLUDE"]),
            types=frozenset(kind.encode() for kind in kinds),
            dbs=frozenset(map(int, dbs)),
            slots=parse_slots(several["SLOTS"]),
        )
    except BackfillError as problem:
        raise BadOption(problem.text) from None


def number(options: Options, name: str, default: float) -> float:
    """A number that is not negative. Errors: BadOption."""
    try:
        value = float(options.get(name, default))
    except ValueError:
        raise BadOption(f"{name} wants a number") from None
    if not (0 <= value < float("inf")):
        raise BadOption(f"{name} wants a number from 0 up")
    return value


def _try_to_write(path: Path) -> None:
    """Before a verify begins, whose findings belong there. Errors: BadOption."""
    try:
        path.open("a").close()
    except OSError as problem:
        raise BadOption(f"cannot write the findings to {path}: {problem.strerror}") from None


class Admin:
    """Answers the operator."""

    def __init__(self, proxy: Proxy, jobs: Jobs, stop: Callable[[], None]) -> None:
        self._proxy = proxy
        self._jobs = jobs
        self._stop = stop
        self._commands: dict[str, Callable[[list[str]], Awaitable[bytes]]] = {
            "PING": self._ping,
            "STATUS": self._status,
            "BACKFILL": self._backfill,
            "VERIFY": self._verify,
            "FINDINGS": self._findings,
            "FLIP": self._flip,
            "FINISH": self._finish,
            "THAW": self._thaw,
            "STOP": self._stop_proxy,
        }

    async def serve(self, path: Path, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; started once a client can connect."""
        with suppress(FileNotFoundError):
            path.unlink()
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        try:
            await sock.bind(os.fspath(path))
        finally:
            os.umask(old)
        sock.listen()
        task_status.started()
        try:
            await trio.serve_listeners(self._client, [trio.SocketListener(sock)])
        finally:
            with suppress(FileNotFoundError):
                path.unlink()

    async def _client(self, stream: trio.SocketStream) -> None:
        parser = CommandParser()
        with suppress(trio.BrokenResourceError):
            async for data in stream:
                for command in parser.feed(bytes(data)):
                    await stream.send_all(await self.answer(command))
                if parser.error is not None:
                    await stream.send_all(error("ERR " + parser.error.text))
                    return

    async def answer(self, command: list[bytes]) -> bytes:
        """The reply frame to one command."""
        name, *args = (part.decode(errors="surrogateescape") for part in command)  # names and patterns are bytes
        handler = self._commands.get(name.upper())
        if handler is None:
            return error(f"ERR unknown admin command: there are {', '.join(self._commands)}")
        try:
            return await handler(args)
        except (BadOption, Busy) as problem:
            return error("ERR " + problem.text.encode(errors="backslashreplace").decode())

    async def _ping(self, args: list[str]) -> bytes:
        return simple(b"PONG")

    async def _status(self, args: list[str]) -> bytes:
        return _json(self._jobs.status())

    async def _backfill(self, args: list[str]) -> bytes:
        several, options = parse_repeated(args, SELECTING, BACKFILL_OPTIONS)
        plan = Plan(
            selection=selection(several),
            rate=number(options, "RATE", 0),
            bandwidth=number(options, "BANDWIDTH", 0),
            polite="IMPOLITE" not in options,
            anew="ANEW" in options,
        )
        self._jobs.start_backfill(plan, mirror_again="MIRROR-AGAIN" in options)
        return _json(self._jobs.filling.progress.to_json())

    async def _verify(self, args: list[str]) -> bytes:
        options = parse_options(args, {"REPAIR": False, "TOLERANCE": True, "SAMPLE": True, "FINDINGS": True})
        terms = VerifyTerms(
            repair="REPAIR" in options,
            tolerance_ms=int(number(options, "TOLERANCE", TOLERANCE_MS)),
            sample=int(number(options, "SAMPLE", 0)),
            findings=Path(options["FINDINGS"]) if "FINDINGS" in options else None,
        )
        if terms.findings is not None:
            _try_to_write(terms.findings)
        self._jobs.start_verify(terms)
        return _json(self._jobs.verifying.report.to_json())

    async def _findings(self, args: list[str]) -> bytes:
        return _json(self._jobs.verifying.report.findings)

    async def _flip(self, args: list[str]) -> bytes:
        options = parse_options(args, {"DRY-RUN": False, "FORCE": False, "SKIP-VERIFY": False, "MAX-PAUSE": True})
        terms = Terms(
            dry_run="DRY-RUN" in options,
            force="FORCE" in options,
            skip_verify="SKIP-VERIFY" in options,
            max_pause_ms=number(options, "MAX-PAUSE", MAX_PAUSE_MS),
        )
        outcome = await self._jobs.flip(terms)
        log.info("flip: %s", outcome)
        return _json(outcome.to_json())

    async def _finish(self, args: list[str]) -> bytes:
        parse_options(args, {})
        return _json(self._jobs.finish().to_json())

    async def _thaw(self, args: list[str]) -> bytes:
        return _json({"thawed": thaw(self._proxy)})

    async def _stop_proxy(self, args: list[str]) -> bytes:
        self._stop()
        return simple(b"OK")


def _json(value: object) -> bytes:
    return bulk(json.dumps(value).encode())
