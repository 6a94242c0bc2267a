"""Owns a nursery that raises what went wrong as itself, not wrapped: here one failure ends the whole work."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from ..errors import BackfillError


@asynccontextmanager
async def open_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """As trio.open_nursery. Of several failures at once, which have one cause as a rule, the first expected one is
    raised; a group with an unexpected one is raised as it is."""
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        expected, unexpected = group.split((BackfillError, trio.Cancelled))
        if unexpected is not None or expected is None:
            raise
        raise first_of(expected) from None


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure that is not a mere cancellation."""
    leaves = list(_leaves(group))
    return next((leaf for leaf in leaves if not isinstance(leaf, trio.Cancelled)), leaves[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
