"""The end of mirroring, and its beginning anew.

Owns `finish` (the operator is content with the target: nothing is sent to the source any more) and `mirror_again` (the
way back: both sides become equal by a new backfill). Both are made durable before anything else, so a proxy that is
killed in between is, on its next start, what the operator was told or what it was before.

While mirroring is finished the proxy is a plain one: replies of the lane are not looked at (`Plain`), effects and marks
from elsewhere lead nowhere (`Mirror.retired`, `Unkept`), no journal is written, nothing is watched, and the source is
not even connected to.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from proxy import faults
from proxy.dirty import DirtyKeys, Unkept
from proxy.recorder import Plain
from proxy.roles import Name

if TYPE_CHECKING:
    from proxy.jobs import Jobs
    from proxy.server import Proxy

log = logging.getLogger("crossfade")

FINISHED = (
    "mirroring to the source was ended by `crossfade finish`, so it is out of date: `crossfade backfill "
    "--mirror-again` begins it anew"
)


@dataclass(slots=True)
class End:
    """What became of `finish`. `reasons`: why mirroring goes on."""

    finished: bool = False
    at: float = 0.0  # time.time()
    serving: str = ""
    epoch: int = 0
    clients: int = 0  # still connected to the proxy
    reasons: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def finish(proxy: Proxy, jobs: Jobs) -> End:
    """End mirroring to the source, or say why not. Once it is finished, finishing changes nothing."""
    end = End(serving=proxy.roles.serving.value, epoch=proxy.roles.epoch, clients=proxy.hub.client_count)
    if not proxy.finished:
        end.reasons = _gate(proxy, jobs)
        if not end.reasons:
            _finish(proxy, end)
    end.finished, end.at = proxy.finished, proxy.state.durable.finished
    return end


def _gate(proxy: Proxy, jobs: Jobs) -> list[str]:
    reasons = []
    if proxy.roles.serving is not Name.TARGET:
        reasons.append("the source serves: nothing can be finished before `crossfade flip`")
    if jobs.filling.running:
        reasons.append("a backfill is running: wait for its end")
    if jobs.verifying.running:
        reasons.append("a verify is running: wait for its end")
    return reasons


def _finish(proxy: Proxy, end: End) -> None:
    try:
        proxy.state.save(finished=time.time(), backfilled=False, filled=False, filling=False, frozen="")
    except OSError as problem:
        end.reasons.append(f"nothing has changed: the state cannot be saved: {problem.strerror}")
        return
    log.info("mirroring to the %s is finished", proxy.mirror.name.value)
    retire(proxy)
    faults.reached("finish retired")
    proxy.links.stop_mirroring()


def retire(proxy: Proxy) -> None:
    """From now on nothing is kept for the mirror side; also at the start of a proxy that was finished before."""
    hub = proxy.hub
    hub.journal = None
    hub.lane.recorder = Plain(hub.recorder)
    hub.read_only = ""
    hub.repair.keys = Unkept()
    hub.repair.forget()
    hub.repair.frozen = ""
    hub.recorder.unmirrored.clear()
    proxy.verified_epoch = -1
    for topic in ("watch", "scrub", "target", "journal", "fsync"):
        proxy.problems.pop(topic, None)
    proxy.forget_checkpoint()
    hub.mirror.retire()


def mirror_again(proxy: Proxy) -> None:
    """Mirror to the other side again. It is out of date until a backfill is complete; one is due from now on, also
    after a crash. Errors: OSError (nothing has changed)."""
    hub = proxy.hub
    proxy.begin_journal()
    proxy.state.save(finished=0.0, backfilled=False, filling=True)
    log.info("mirroring to the %s begins again", proxy.mirror.name.value)
    hub.repair.keys = DirtyKeys()
    hub.mirror.retired = False
    hub.lane.recorder = hub.recorder
    hub.journal = proxy.journal
    proxy.links.start_mirroring()
    faults.reached("mirroring again")
