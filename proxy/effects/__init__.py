"""What a write did, as deterministic commands or state copies for the mirror side, read off its reply.

    model.py      the words: Context, Effect, Rule
    compare.py    whether the mirror side answered the same
    build.py      the parts rules are made of
    strings.py keys.py lists.py sets.py zsets.py hashes.py streams.py groups.py scripting.py globals.py   the rules

Owns: RULES and `compute`. Pure: knows no connection, clock or dirty set. Invariants 2 (nothing that the server refused
is mirrored), 7 (scripts are never replayed) and 12 (unknown is a write).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from proxy.effects import globals as whole
from proxy.effects import groups, hashes, keys, lists, scripting, sets, streams, strings, zsets
from proxy.effects.build import copy_of
from proxy.effects.compare import same_reply
from proxy.effects.model import NOTHING, Context, Effect, Kind, Rule
from resp.catalog import Catalog, Spec

__all__ = ["NOTHING", "RULES", "Context", "Effect", "Kind", "Rule", "compute", "give_rules", "same_reply"]

ROOMS = (strings, keys, lists, sets, zsets, hashes, streams, groups, scripting, whole)
RULES: Mapping[bytes, Rule] = MappingProxyType({name: rule for room in ROOMS for name, rule in room.RULES.items()})

ATTRIBUTE = b"|"  # RESP3: metadata glued in front of a reply; no server sends it unasked
# A command that did not run at all. Other errors of unknown commands may come from half-way.
NOT_RUN = (b"-ERR unknown command", b"-ERR unknown subcommand", b"-ERR Unknown subcommand", b"-NOPERM", b"-NOAUTH")


def give_rules(catalog: Catalog) -> None:
    """Every command of the catalog gets its rule."""
    for spec in catalog:
        rule = spec.rule = RULES.get(spec.name)
        spec.rewritten = rule is not None and rule.rewrite is not None


def compute(spec: Spec, args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    """The effect of one command, as forwarded, given its complete reply frame (never +QUEUED).

    What has no rule, what its rule cannot read and what the mirror side does not know becomes a state copy of the
    command's keys. Never raises.
    """
    rule = RULES.get(spec.name)
    if rule is None:
        return _without_rule(spec, args, frame, ctx)
    if frame[:1] == ATTRIBUTE:
        return _state(spec, args, ctx)
    try:
        effect = rule.compute(args, frame, ctx)
    except (ValueError, IndexError):
        return _state(spec, args, ctx)
    for command in effect.commands:
        if not ctx.knows(command[0].upper()):
            return _unknown_there(effect, ctx)
    return effect


def _without_rule(spec: Spec, args: list[bytes], frame: bytes, ctx: Context) -> Effect:
    if not spec.writes or frame.startswith(NOT_RUN):
        return NOTHING
    return _state(spec, args, ctx)


def _state(spec: Spec, args: list[bytes], ctx: Context) -> Effect:
    keys = spec.keys(args)
    if not keys:
        return Effect(unmirrored=f"{spec.name.decode(errors='replace')}: its keys are not known")
    return copy_of(ctx, *keys)


def _unknown_there(effect: Effect, ctx: Context) -> Effect:
    """The mirror side lacks the command: the keys' state instead. Without keys it is a message or a script, no data."""
    if effect.barrier is not None:
        return Effect(unmirrored=f"the mirror side does not know {effect.barrier[0].decode(errors='replace')}")
    return copy_of(ctx, *effect.keys)
