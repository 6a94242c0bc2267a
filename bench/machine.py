"""On what the figures were made: machine and versions, as the report names them."""

import datetime
import os
import platform
from pathlib import Path

from backfill.embedded import Server
from bench.peers import Peer
from bench.processes import output_of


def describe() -> dict[str, str]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores (shared by load generator, proxy and both servers)",
        "memory": f"{memory:.0f} GB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def versions(source: Server, target: Server, peers: list[Peer]) -> dict[str, str]:
    found = {
        "source": f"{source.binary.product} {source.binary.release}",
        "target": f"{target.binary.product} {target.binary.release}",
        "load generator": output_of(["redis-benchmark", "--version"]),
        "Python": platform.python_version(),
    }
    return found | {peer.name: peer.version for peer in peers if peer.version}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
