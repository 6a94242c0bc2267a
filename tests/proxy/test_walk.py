"""What a ferry writes as it is, and what it leaves to the lane."""

from __future__ import annotations

import pytest

from backfill.direct import bulk
from backfill.direct.selection import Selection
from proxy import together
from proxy.ferry.walk import SKEW_MS, Walk

WITH_FIELDS = bytes([min(bulk.WITH_FIELD_DEADLINES)]) + b"payload"


@pytest.mark.parametrize(
    ("payload", "shift_ms", "fits"),
    [
        (b"\0payload", 0, True),
        (b"\0payload", 60_000, True),  # its deadline is outside
        (None, 0, False),
        (bytes(together.BYTES), 0, True),
        (bytes(together.BYTES + 1), 0, False),
        (WITH_FIELDS, SKEW_MS, True),
        (WITH_FIELDS, -SKEW_MS - 1, False),
        (WITH_FIELDS, SKEW_MS + 1, False),
    ],
)
def test_what_it_writes_as_it_is(payload: bytes | None, shift_ms: int, fits: bool) -> None:
    journey = {"selection": Selection().describe(), "absolute": True, "dbs": [0], "start": {}, "journal": ""}
    walk = Walk(journey, None, None, None)  # type: ignore[arg-type]
    walk._shift_ms = shift_ms
    assert walk._fits(payload) is fits
