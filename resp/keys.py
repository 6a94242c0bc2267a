"""Which arguments of a command are keys.

Owns: one pure function for every way Redis places keys among arguments, and the reading of the key specifications
that servers >= 7.0 describe their commands with. Refuses to know: command names (resp.table), what a command does.

Invariant: no extractor raises, whatever the arguments. A call that no server would execute gives no keys; the server
answers its error. Where a server takes the last of a repeated option (SORT ... STORE a STORE b), so do we: the result
holds every key that the call can write.

Key extraction was compared with COMMAND GETKEYS of Redis 6.2, 7.0, 8.2 and Valkey 8.1, 9.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

KeysOf = Callable[[list[bytes]], list[bytes]]

MAX_COUNT_DIGITS = 10  # "numkeys" beyond 2^31 is refused by every server; also keeps int() cheap


# -- fixed places --------------------------------------------------------------------------------------------


def no_keys(args: list[bytes]) -> list[bytes]:
    return []


def first_key(args: list[bytes]) -> list[bytes]:
    """GET key ..."""
    return args[1:2]


def second_key(args: list[bytes]) -> list[bytes]:
    """OBJECT ENCODING key, XGROUP CREATE key ..., PFDEBUG subcommand key: the key behind a subcommand."""
    return args[2:3]


def two_keys(args: list[bytes]) -> list[bytes]:
    """RENAME key newkey, COPY source destination ..., LMOVE source destination ..."""
    return args[1:3]


def all_keys(args: list[bytes]) -> list[bytes]:
    """DEL key [key ...]"""
    return args[1:]


def all_but_last(args: list[bytes]) -> list[bytes]:
    """BLPOP key [key ...] timeout"""
    return args[1:-1]


def every_other(args: list[bytes]) -> list[bytes]:
    """MSET key value [key value ...]"""
    return args[1::2]


def bitop_keys(args: list[bytes]) -> list[bytes]:
    """BITOP operation destkey key [key ...]"""
    return args[2:]


# -- counted keys --------------------------------------------------------------------------------------------


def numkeys_at_1(args: list[bytes]) -> list[bytes]:
    """SINTERCARD numkeys key [key ...] ..., ZUNION, LMPOP, ZMPOP"""
    return _counted(args, 1, 1)


def numkeys_at_2(args: list[bytes]) -> list[bytes]:
    """EVAL script numkeys [key ...] [arg ...], FCALL, BLMPOP timeout numkeys key ..., BZMPOP"""
    return _counted(args, 2, 1)


def numkeys_of_pairs(args: list[bytes]) -> list[bytes]:
    """MSETEX numkeys key value [key value ...] [options]"""
    return _counted(args, 1, 2)


def store_numkeys(args: list[bytes]) -> list[bytes]:
    """ZUNIONSTORE destination numkeys key [key ...] ...: the destination comes first."""
    operands = _counted(args, 2, 1)
    return [args[1], *operands] if operands else []


def _counted(args: list[bytes], at: int, step: int) -> list[bytes]:
    count = _count(args, at)
    start = at + 1
    stop = start + count * step
    return args[start:stop:step] if count > 0 and stop <= len(args) else []


def _count(args: list[bytes], at: int) -> int:
    """The number at args[at] in Redis' strict notation (no sign, blanks, leading zeros); -1 when it is none."""
    if at >= len(args):
        return -1
    text = args[at]
    if not text.isdigit() or len(text) > MAX_COUNT_DIGITS or (len(text) > 1 and text[:1] == b"0"):
        return -1
    return int(text)


# -- keys behind keywords ------------------------------------------------------------------------------------

READ_OPTIONS: Mapping[bytes, int] = {  # options of XREAD and XREADGROUP -> how many arguments follow
    b"BLOCK": 1,
    b"COUNT": 1,
    b"GROUP": 2,
    b"NOACK": 0,
    b"CLAIM": 1,
}
SORT_OPTIONS: Mapping[bytes, int] = {b"LIMIT": 2, b"GET": 1, b"BY": 1}
MIGRATE_OPTIONS: Mapping[bytes, int] = {b"COPY": 0, b"REPLACE": 0, b"AUTH": 1, b"AUTH2": 2}
GEORADIUS_OPTIONS: Mapping[bytes, int] = {b"COUNT": 1}


def stream_keys(args: list[bytes]) -> list[bytes]:
    """XREAD/XREADGROUP [options] STREAMS key [key ...] id [id ...]"""
    at = _keyword(args, 1, b"STREAMS", READ_OPTIONS)
    if at < 0 or (len(args) - at - 1) % 2:
        return []
    return args[at + 1 : at + 1 + (len(args) - at - 1) // 2]


def blocks(args: list[bytes]) -> bool:
    """Whether a command whose route is BLOCKING may block: always, but XREAD and XREADGROUP only with BLOCK.

    Errs on the side of True: a malformed XREAD with a BLOCK in it (no keys found) must not reach the lane as it is.
    """
    if not args or args[0].upper() not in (b"XREAD", b"XREADGROUP"):
        return True
    streams = _keyword(args, 1, b"STREAMS", READ_OPTIONS)
    block = _keyword(args[: streams if streams > 0 else None], 1, b"BLOCK", READ_OPTIONS)
    return block > 0


def sort_keys(args: list[bytes]) -> list[bytes]:
    """SORT key [BY ...] [LIMIT ...] [GET ...] [STORE destination]; keys that BY and GET read are not listed."""
    return args[1:2] + _last_stored(args, 2, (b"STORE",), SORT_OPTIONS)


def georadius_keys(args: list[bytes]) -> list[bytes]:
    """GEORADIUS key longitude latitude radius unit [options] [STORE|STOREDIST key]"""
    return args[1:2] + _last_stored(args, 6, (b"STORE", b"STOREDIST"), GEORADIUS_OPTIONS)


def georadiusbymember_keys(args: list[bytes]) -> list[bytes]:
    """GEORADIUSBYMEMBER key member radius unit [options] [STORE|STOREDIST key]"""
    return args[1:2] + _last_stored(args, 5, (b"STORE", b"STOREDIST"), GEORADIUS_OPTIONS)


def migrate_keys(args: list[bytes]) -> list[bytes]:
    """MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH ...] [KEYS key [key ...]]"""
    if len(args) < 6:
        return []
    at = _keyword(args, 6, b"KEYS", MIGRATE_OPTIONS)
    if at < 0:
        return args[3:4]
    return args[at + 1 :] if not args[3] else []


def stralgo_keys(args: list[bytes]) -> list[bytes]:
    """STRALGO LCS [options] KEYS key key | STRINGS string string (6.2 only)"""
    at = _keyword(args, 2, b"KEYS", {b"STRINGS": 2, b"MINMATCHLEN": 1})
    return args[at + 1 : at + 3] if at > 0 and at + 2 < len(args) else []


def _keyword(args: list[bytes], start: int, word: bytes, options: Mapping[bytes, int]) -> int:
    """The index of an option, skipping the arguments of other options; -1 when it is not there."""
    at = start
    while at < len(args):
        arg = args[at].upper()
        if arg == word:
            return at
        at += 1 + options.get(arg, 0)
    return -1


def _last_stored(args: list[bytes], start: int, words: tuple[bytes, ...], options: Mapping[bytes, int]) -> list[bytes]:
    """The destination behind the last of `words` (servers let a later STORE override an earlier one)."""
    found: list[bytes] = []
    at = start
    while at < len(args):
        arg = args[at].upper()
        if arg in words and at + 1 < len(args):
            found = [args[at + 1]]
            at += 2
        else:
            at += 1 + options.get(arg, 0)
    return found


# -- keys as a server describes them (modules, newer commands) -----------------------------------------------


def span(first: int, last: int, step: int) -> KeysOf:
    """The first/last/step triple of COMMAND; a negative `last` counts from the end."""
    if first <= 0 or step <= 0:
        return no_keys

    def keys(args: list[bytes]) -> list[bytes]:
        stop = last + 1 if last >= 0 else len(args) + last + 1
        return args[first : max(stop, first) : step]

    return keys


def described(specs: Sequence[Any]) -> KeysOf | None:
    """An extractor for the key specifications of COMMAND (>= 7.0); None when they do not name every key.

    Keys that a specification marks `not_key` (shard channels) are left out.
    """
    finders: list[KeysOf] = []
    for raw in specs:
        spec = as_dict(raw)
        flags = {_upper(flag) for flag in _sequence(spec.get(b"flags"))}
        if b"NOT_KEY" in flags:
            continue
        finder = None if b"INCOMPLETE" in flags else _finder(spec)
        if finder is None:
            return None
        finders.append(finder)
    if len(finders) <= 1:
        return finders[0] if finders else no_keys
    return lambda args: [key for finder in finders for key in finder(args)]


def as_dict(raw: Any) -> dict[Any, Any]:
    """A map of a server's reply: a dict in RESP3, a flat list in RESP2; anything else is an empty one."""
    if isinstance(raw, dict):
        return raw
    flat = _sequence(raw)
    return {name: value for name, value in zip(flat[::2], flat[1::2], strict=False) if isinstance(name, bytes)}


def _finder(spec: Mapping[Any, Any]) -> KeysOf | None:
    begin, find = as_dict(spec.get(b"begin_search")), as_dict(spec.get(b"find_keys"))
    begin_spec, find_spec = as_dict(begin.get(b"spec")), as_dict(find.get(b"spec"))
    start = _START.get(begin.get(b"type"), _nothing)(begin_spec)
    pick = _PICK.get(find.get(b"type"), _nothing)(find_spec)
    if start is None or pick is None:
        return None

    def keys(args: list[bytes]) -> list[bytes]:
        at = start(args)
        return pick(args, at) if 0 < at < len(args) else []

    return keys


def _nothing(spec: Mapping[Any, Any]) -> None:
    return None


def _start_index(spec: Mapping[Any, Any]) -> Callable[[list[bytes]], int] | None:
    index = spec.get(b"index")
    return (lambda args: index) if isinstance(index, int) else None


def _start_keyword(spec: Mapping[Any, Any]) -> Callable[[list[bytes]], int] | None:
    word, startfrom = _upper(spec.get(b"keyword")), spec.get(b"startfrom")
    if not word or not isinstance(startfrom, int) or startfrom == 0:
        return None

    def start(args: list[bytes]) -> int:
        places = range(startfrom, len(args)) if startfrom > 0 else range(len(args) + startfrom, 0, -1)
        return next((at + 1 for at in places if args[at].upper() == word), -1)

    return start


def _pick_range(spec: Mapping[Any, Any]) -> Callable[[list[bytes], int], list[bytes]] | None:
    last, step, limit = spec.get(b"lastkey"), spec.get(b"keystep"), spec.get(b"limit")
    if not isinstance(last, int) or not isinstance(step, int) or not isinstance(limit, int) or step <= 0:
        return None

    def pick(args: list[bytes], at: int) -> list[bytes]:
        if last >= 0:
            stop = at + last + 1
        elif limit <= 1:
            stop = len(args) + last + 1
        else:
            stop = at + (len(args) - at) // limit + last + 1
        return args[at : max(stop, at) : step] if stop <= len(args) else []

    return pick


def _pick_counted(spec: Mapping[Any, Any]) -> Callable[[list[bytes], int], list[bytes]] | None:
    index, first, step = spec.get(b"keynumidx"), spec.get(b"firstkey"), spec.get(b"keystep")
    if not isinstance(index, int) or not isinstance(first, int) or not isinstance(step, int) or step <= 0:
        return None

    def pick(args: list[bytes], at: int) -> list[bytes]:
        count = _count(args, at + index)
        begin = at + first
        end = begin + (count - 1) * step + 1
        return args[begin:end:step] if count > 0 and end <= len(args) else []

    return pick


_START: Mapping[Any, Callable[[Mapping[Any, Any]], Callable[[list[bytes]], int] | None]] = {
    b"index": _start_index,
    b"keyword": _start_keyword,
}
_PICK: Mapping[Any, Callable[[Mapping[Any, Any]], Callable[[list[bytes], int], list[bytes]] | None]] = {
    b"range": _pick_range,
    b"keynum": _pick_counted,
}


def _sequence(raw: Any) -> list[Any]:
    return list(raw) if isinstance(raw, (list, tuple, set, frozenset)) else []


def _upper(raw: Any) -> bytes:
    return raw.upper() if isinstance(raw, bytes) else b""
