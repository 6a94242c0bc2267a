"""`python -m bench.without_journal proxy …`: crossfade with a journal that notes nothing. Only to measure what it
costs: after a crash such a proxy would not know what is unsettled."""

from crossfade import main
from proxy.server import Proxy


def _none(proxy: Proxy) -> None:
    proxy.journal.open(settled=True)
    proxy.hub.journal = None


Proxy._open_journal = _none  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
