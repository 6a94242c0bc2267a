"""Prometheus metrics and the status document over HTTP, for dashboards.

Owns the metric names. Reads the same status document as `crossfade status`; runs in a thread of prometheus_client's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import trio
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy.server import Refused

GAUGES: dict[str, tuple[tuple[str, ...], str]] = {
    "crossfade_dirty_keys": (("dirty",), "keys whose mirror copy may differ"),
    "crossfade_clients": (("clients",), "connected clients"),
    "crossfade_epoch": (("epoch",), "flips so far"),
    "crossfade_mirror_connected": (("mirror", "connected"), "1 when the mirror side is connected"),
    "crossfade_mirror_lag_milliseconds": (("mirror", "lag_ms"), "age of the oldest effect not acknowledged"),
    "crossfade_mirror_queued_bytes": (("mirror", "queued_bytes"), "bytes of effects not acknowledged"),
    "crossfade_waiting_clients": (("waiting",), "clients in blocking commands"),
    "crossfade_pinned_connections": (("pinned",), "sessions with a connection of their own"),
    "crossfade_backfill_scanned_keys": (("backfill", "scanned"), "keys found by the backfill"),
    "crossfade_backfill_copied_keys": (("backfill", "copied"), "keys copied by the backfill"),
}
COUNTERS: dict[str, tuple[tuple[str, ...], str]] = {
    "crossfade_commands": (("commands",), "commands taken from clients"),
    "crossfade_unmirrored": (("unmirrored",), "commands that could not be mirrored"),
    "crossfade_mirror_settled": (("mirror", "settled"), "effects acknowledged as expected"),
    "crossfade_mirror_differed": (("mirror", "differed"), "effects answered differently"),
    "crossfade_state_copies": (("copies", "done"), "state copies acknowledged"),
}


class _Status(Collector):
    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status
        self._token = trio.lowlevel.current_trio_token()  # collect() runs in a thread of prometheus_client's

    def describe(self) -> Iterable[Metric]:
        return ()  # collecting now, to learn the names, would wait for the very loop that this runs in

    def collect(self) -> Iterable[Metric]:
        status = trio.from_thread.run_sync(self._status, trio_token=self._token)
        for name, (path, text) in GAUGES.items():
            yield GaugeMetricFamily(name, text, value=_at(status, path))
        for name, (path, text) in COUNTERS.items():
            yield CounterMetricFamily(name, text, value=_at(status, path))
        for label, values in (
            ("phase", ("filling", "converging", "in-sync", "finished")),
            ("serving", ("source", "target")),
        ):
            family = GaugeMetricFamily(f"crossfade_{label}", f"1 for the current {label}", labels=[label])
            for value in values:
                family.add_metric([value], float(status[label] == value))
            yield family


def _at(status: dict[str, Any], path: tuple[str, ...]) -> float:
    value: Any = status
    for part in path:
        value = value[part]
    return float(value)


def serve_metrics(address: tuple[str, int], status: Callable[[], dict[str, Any]]) -> None:
    """Serve /metrics. Errors: Refused."""
    registry = CollectorRegistry()
    registry.register(_Status(status))
    try:
        start_http_server(address[1], addr=address[0], registry=registry)
    except OSError as problem:
        raise Refused(
            f"cannot listen on {address[0]}:{address[1]}: {problem.strerror or problem}; "
            "choose another --http HOST:PORT"
        ) from None
