"""The process of `crossfade proxy`: logging, signals, the order of start and stop, and what is told on failure.

Owns the translation of every expected failure into one line and an exit code.
"""

from __future__ import annotations

import errno
import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import trio

from backfill.cli_types import EXIT_CONNECT, EXIT_REFUSED, EXIT_USAGE, Failed
from backfill.errors import BackfillError
from backfill.url import Url
from proxy import garbage
from proxy.admin import Admin
from proxy.jobs import Jobs
from proxy.metrics import serve_metrics
from proxy.server import Proxy, Refused, Settings
from proxy.state import StateDir, StateError

log = logging.getLogger("crossfade")

DISK_ERRORS = frozenset([errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
MANY_KEYS = 20_000  # marked: then a full garbage collection would be felt


def identity(url: Url) -> str:
    """What a state directory remembers of a server: no secrets, no TLS details."""
    return str(replace(url, user="", password="", db=0))


def run_proxy(settings: Settings, state_dir: Path, http: tuple[str, int] | None, say: Callable[[Proxy], None]) -> None:
    """Run a proxy until it is stopped by SIGTERM, SIGINT or STOP. Errors: Failed."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    state = StateDir(state_dir)
    try:
        state.open(identity(settings.source), identity(settings.target))
        trio.run(_main, Proxy(settings, state), http, say)
    except BaseException as problem:
        raise _translated(problem, state_dir) from None
    finally:
        state.close()


def _translated(problem: BaseException, state_dir: Path) -> BaseException:
    """An expected failure as one line and an exit code; anything else as it is: it must be loud."""
    while isinstance(problem, BaseExceptionGroup) and len(problem.exceptions) == 1:
        problem = problem.exceptions[0]
    match problem:
        case StateError():
            return Failed(problem.text, EXIT_USAGE)
        case Refused():
            return Failed(problem.text, EXIT_REFUSED)
        case BackfillError():
            return Failed(problem.text, EXIT_CONNECT)
        case OSError() if problem.errno in DISK_ERRORS:
            text = f"cannot write to the state directory {state_dir}: {problem.strerror}; mend that, or choose another"
            return Failed(text, EXIT_USAGE)
        case OSError():
            return Failed(str(problem), EXIT_USAGE)
        case _:
            return problem


async def _main(proxy: Proxy, http: tuple[str, int] | None, say: Callable[[Proxy], None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            stopping = trio.Event()

            async def start_jobs(inner: trio.Nursery) -> None:
                jobs = Jobs(proxy, inner)
                await inner.start(Admin(proxy, jobs, stopping.set).serve, proxy.state.admin_socket)
                if http is not None:
                    serve_metrics(http, jobs.status)

            async def serve() -> None:
                await proxy.run(lambda: say(proxy), start_jobs)

            async def stop_on_signal() -> None:
                async for _ in signals:
                    stopping.set()

            garbage.tame()
            nursery.start_soon(garbage.run, lambda: len(proxy.hub.repair.keys) > MANY_KEYS)
            nursery.start_soon(serve)
            nursery.start_soon(stop_on_signal)
            await stopping.wait()
            clean = await proxy.stop()
            log.info("stopped; %s", "both sides settled" if clean else "not everything is settled, the journal has it")
            nursery.cancel_scope.cancel()
