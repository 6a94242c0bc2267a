"""Clients and a job queue of Node: each a script in node/ that checks what it is told and ends with 0.

Their packages are installed once per lock file, beside the virtual environment's own; without Node, npm or a registry
that answers, the tests are skipped.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.migration import Migration

SCRIPTS = Path(__file__).parent / "node"
MANIFEST = ("package.json", "package-lock.json", ".npmrc")
OLDEST = 20
INSTALL = ("install", "--no-save", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund")
INSTALL_TIMEOUT_S = 120
SCRIPT_TIMEOUT_S = 40


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Where require() finds the packages."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("no node and npm here")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").split(".")[0]) < OLDEST:
        pytest.skip(f"node {version} is older than {OLDEST}")
    digest = hashlib.sha256(b"".join((SCRIPTS / name).read_bytes() for name in MANIFEST)).hexdigest()[:16]
    home = Path(sys.prefix) / "node-clients"
    home.mkdir(exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other test processes want the same
        if not (home / digest).exists():
            install(npm, home / digest)
    return home / digest / "node_modules"


def install(npm: str, place: Path) -> None:
    """All of it or nothing: an unfinished installation has another name."""
    unfinished = place.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for name in MANIFEST:
        shutil.copy(SCRIPTS / name, unfinished)
    try:
        end = subprocess.run([npm, *INSTALL], cwd=unfinished, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm {INSTALL[0]} did not end within {INSTALL_TIMEOUT_S} s")
    if end.returncode:
        pytest.skip(f"npm cannot install the clients here: {end.stderr.strip()[-500:]}")
    unfinished.rename(place)


WAYS = pytest.mark.parametrize(
    ("resp", "migration"),
    [(2, "at rest"), (3, "flipping")],
    ids=["resp2-at rest", "resp3-flipping"],
    indirect=["migration"],
)


def run_script(name: str, migration: Migration, resp: int, node_modules: Path) -> None:
    # npm's packages warn of what Node deprecates; that is their business.
    end = subprocess.run(
        ["node", "--no-warnings", str(SCRIPTS / name), str(migration.port), str(resp)],
        env={**os.environ, "NODE_PATH": str(node_modules)},
        capture_output=True,
        text=True,
        timeout=SCRIPT_TIMEOUT_S,
        check=False,
    )
    assert end.returncode == 0, f"{name} ended with {end.returncode}:\n{end.stdout}{end.stderr}"


@WAYS
def test_ioredis(migration: Migration, resp: int, node_modules: Path) -> None:
    run_script("ioredis.cjs", migration, resp, node_modules)


@WAYS
def test_node_redis(migration: Migration, resp: int, node_modules: Path) -> None:
    run_script("node_redis.cjs", migration, resp, node_modules)


def test_bullmq(migration: Migration, node_modules: Path) -> None:
    run_script("bullmq.cjs", migration, 2, node_modules)
