"""What options of the command line are taken for."""

from __future__ import annotations

import click
import pytest

from backfill.cli_types import SizeType


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1500", 1500), ("500KB", 500e3), ("20MB", 20e6), ("20 mb/s", 20e6), ("1.5g", 1.5e9), ("2MiB", 2 << 20)],
)
def test_sizes(text: str, size: float) -> None:
    assert SizeType()(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "20XB", "1e6", "MB", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write 500KB, 20MB or 1GB"):
        SizeType()(text)
