"""Random write commands with many combinations of options on few hot keys, written as templates.

`[a|b|]` is one of the alternatives (which may be nested and empty), `$x` one of a kind's values. Nothing here is
checked for sense: an error is a case too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

CHOICE = re.compile(r"\[([^\[\]]*)\]")

TTL = "[EX 100|PX 100000|EXAT $future_s|PXAT $future|PXAT $past|EXAT $past_s]"

CLAIM = "[IDLE 5000|TIME $now|] [RETRYCOUNT 7|] [FORCE|] [JUSTID|] [LASTID $id|]"

FAMILIES: dict[str, Sequence[str]] = {
    "strings": (
        f"SET $s $v [|[NX|XX|] [GET|] [{TTL}|KEEPTTL|]|IFEQ $v [GET|] [{TTL}|KEEPTTL|]]",
        "set $s ex",
        f"SET $s $v {TTL} [NX|XX|]",
        "[SETEX $s $secs $v|PSETEX $s $ms $v]",
        "[DELIFEQ $s $v|SET $s $v]",
        "[GETSET $s $v|GETDEL $s|SETNX $s $v|MSET $s $v $s $v|MSETNX $s $v $s $v]",
        f"MSETEX [1 $s $v|2 $s $v $s $v] [NX|XX|] [{TTL}|KEEPTTL|]",
        f"GETEX $s [{TTL}|PERSIST|]",
        '[APPEND $s [$v|""]|SETRANGE $s [0|3|9] [$v|""]|SETBIT $s [0|7|40] [0|1]]',
        "[INCR $n|DECR $n|INCRBY $n $i|DECRBY $n $i|INCRBYFLOAT $n $f|INCR $s|SET $n $i [KEEPTTL|]]",
        "BITFIELD $s [GET u8 0|SET u8 [0|8] [0|255]|OVERFLOW FAIL INCRBY u8 0 200 SET i4 3 7|GET i8 4 INCRBY i8 0 9]",
        "BITOP [AND|OR|XOR|NOT] $s $s",
        "BITOP [AND|OR|XOR|DIFF|ONE] $s $s $s",
        "[PFADD $p [$v|$v $v $v|]|PFCOUNT $p|PFCOUNT $p $p|PFMERGE $p $p [$p|]]",
    ),
    "keys": (
        "[DEL|UNLINK] $any [$any|]",
        "EXPIRE $any $secs [NX|XX|GT|LT|]",
        "PEXPIRE $any $ms [NX|XX|GT|LT|]",
        "[EXPIREAT $any [$future_s|$past_s]|PEXPIREAT $any [$future|$past|0|-1]] [NX|XX|GT|LT|]",
        "PERSIST $any",
        "[RENAME|RENAMENX] [$s $s|$l $l|$x $x|$z $z|$h $h|$t $t|$any $any]",
        "COPY [$s $s|$l $l|$x $x|$z $z|$h $h|$t $t] [REPLACE|] [DB 1|DB 0|]",
        "MOVE $any [0|1]",
        "RESTORE $any [0|$ms] $dump [REPLACE|]",
        "RESTORE $any [$past|$future] $dump [REPLACE|] ABSTTL",
        "SORT [$l|$t|$z] [BY w*|BY nosort|] [LIMIT 0 2|] [ALPHA|] [DESC|] [STORE $l|]",
        "[EVAL $script 1 $any|EVAL $nowrites 1 $any|FLUSHDB [ASYNC|]|FLUSHALL|SWAPDB 0 1]",
    ),
    "lists": (
        "[LPUSH|RPUSH|LPUSHX|RPUSHX] $l $v [$v|$v $i|]",
        "[LPUSH|RPUSH] $l $v $v $v",
        "[LPOP|RPOP] $l [0|1|2|9|]",
        "[LINSERT $l [BEFORE|AFTER] $v $v|LSET $l [0|-1|7] $v|LREM $l [0|1|-1] $v|LTRIM $l [0|1] [-1|2|0]]",
        "[RPOPLPUSH $l $l|LMOVE $l $l [LEFT|RIGHT] [LEFT|RIGHT]]",
        "[LMPOP 2 $l $l [LEFT|RIGHT] [COUNT 2|]|BLMPOP 0.01 2 $l $l [left|RIGHT] [COUNT 2|]]",
        "[BLPOP $l $l 0.01|BRPOP $l 0.01|BRPOPLPUSH $l $l 0.01|BLMOVE $l $l [LEFT|RIGHT] [LEFT|RIGHT] 0.01]",
    ),
    "sets": (
        "[SADD|SADD|SADD|SREM] $t $v [$v|$i $i|]",
        "SPOP $t [1|2|0|9|]",
        "SMOVE $t $t $v",
        "[SUNIONSTORE|SINTERSTORE|SDIFFSTORE] $t $t [$t|]",
    ),
    "zsets": (
        "ZADD $z [NX|XX|] [GT|LT|] [CH|] $score $v [$score $v|]",
        "ZADD $z [NX|XX|] [GT|LT|] INCR $score $v",
        "[ZINCRBY $z $score $v|ZREM $z $v [$v|]]",
        "[ZPOPMIN|ZPOPMAX] $z [1|2|0|9|]",
        "[ZMPOP 2 $z $z [MIN|MAX] [COUNT 2|]|BZMPOP 0.01 1 $z [MIN|MAX] [COUNT 2|]]",
        "[BZPOPMIN $z $z 0.01|BZPOPMAX $z 0.01]",
        "[ZREMRANGEBYRANK $z 0 [0|1]|ZREMRANGEBYSCORE $z 0 (2|ZREMRANGEBYLEX $z [- (b|(a +]]",
        "[ZUNIONSTORE|ZINTERSTORE] $z 2 $z $z [WEIGHTS 2 3|] [AGGREGATE [MIN|MAX|SUM]|]",
        "[ZDIFFSTORE $z 2 $z $z|ZRANGESTORE $z $z 0 [-1|1] [REV|]]",
        "GEOADD $g [NX|XX|] [CH|] $lon 38.1 $v [$lon 10 $v|]",
        "[GEORADIUS $g $lon 38 500 km [STORE $g|STOREDIST $g|COUNT 2 ANY STORE $g|STORE $g STOREDIST $g|ASC]]",
        "GEORADIUSBYMEMBER $g $v 900 km [STORE $g|]",
        "GEOSEARCHSTORE $g $g FROMLONLAT $lon 38 BYRADIUS 500 km [STOREDIST|]",
    ),
    "hashes": (
        "[HSET|HMSET] $h $v $v [$v $i|]",
        "[HSETNX $h $v $v|HDEL $h $v [$v|]]",
        "[HINCRBY $h $c $i|HINCRBYFLOAT $h $c $f]",
        "HINCRBYFLOAT $h [$c|$v] $f",
    ),
    "field deadlines": (
        "[HEXPIRE $h $secs|HPEXPIRE $h $ms] [NX|XX|GT|LT|] FIELDS 2 $v $c",
        "[HEXPIREAT $h [$future_s|$past_s]|HPEXPIREAT $h [$future|$past]] [NX|XX|GT|LT|] FIELDS 2 $v $v",
        "HPERSIST $h FIELDS 2 $v $v",
        f"HGETEX $h [{TTL}|PERSIST|] FIELDS 2 $v $v",
        "HGETDEL $h FIELDS 2 $v $v",
        f"HSETEX $h [FNX|FXX|] [{TTL}|KEEPTTL|] FIELDS [1 $v $v|2 $v $v $v $i]",
    ),
    "streams": (
        "XADD $x [NOMKSTREAM|] [MAXLEN [=|~|] [0|3|9]|MAXLEN ~ 3 LIMIT 2|MINID [~|=|] $id|] [*|*|*|$id|0-*] f $v",
        "XADD $x [KEEPREF|DELREF|ACKED] MAXLEN 4 * f $v g $v",
        "XADD $x * f $v",
        "XTRIM $x [MAXLEN [=|~|] 4|MAXLEN ~ 1 LIMIT 5|MINID $id] [DELREF|ACKED|]",
        "[XDEL $x $id [$id|]|XSETID $x [$id|99999999999999-0] [ENTRIESADDED 50 MAXDELETEDID 0-1|]]",
        "[XDELEX $x [DELREF|ACKED|] IDS 1 $id|XACKDEL $x $cg [ACKED|] IDS 2 $id $id]",
        "XREADGROUP GROUP $cg $co STREAMS $x >",
    ),
    "groups": (
        "XADD $x * f $v",
        "XGROUP CREATE $x $cg [$|0|$id] [MKSTREAM|]",
        "XGROUP [CREATE $x $cg 0|SETID $x $cg [$|0|$id]] [|ENTRIESREAD 3]",
        "XGROUP [CREATECONSUMER $x $cg $co|CREATECONSUMER $x $cg $co|DELCONSUMER $x $cg $co|[DESTROY|HELP] $x $cg]",
        "XREADGROUP GROUP $cg $co [COUNT [1|3]|] [BLOCK 5|] [NOACK|] STREAMS [$x >|x0 x1 > >|x0 x1 0 >|x1 $id|$x 0]",
        "XREADGROUP GROUP $cg $co [COUNT 2|] STREAMS [$x >|$x >|$x 0|x0 x0 > 0]",
        "[XACK $x $cg $id [$id|]|XDEL $x $id|XTRIM $x MAXLEN 3]",
        f"XCLAIM $x $cg $co [0|0|100000] $id [$id|] {CLAIM}",
        f"XCLAIM $x $cg $co 0 $id $id $id {CLAIM}",
        "XAUTOCLAIM $x $cg $co [0|0|100000] [0|0|$id] [COUNT 2|] [JUSTID|]",
    ),
    "vectors": (
        'VADD $e [REDUCE 2|] VALUES 3 $i $f 1 $v [NOQUANT|] [SETATTR {"a":1}|]',
        '[VREM $e $v|VSETATTR $e $v [{"b":2}|""]]',
    ),
}

SCRIPT = b"redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], math.random(9)) return redis.call('NOSUCH')"
NO_WRITES = b"#!lua flags=no-writes\nreturn redis.call('EXISTS', KEYS[1])"


@dataclass
class Generator:
    """`ids(key)` and `dump()` ask the serving side for entry ids and for a payload: what matters are hits."""

    rng: random.Random
    families: Sequence[str]
    now_ms: Callable[[], int]
    ids: Callable[[bytes], Sequence[bytes]]
    dump: Callable[[], bytes]
    key: bytes = field(default=b"", init=False)

    def __call__(self) -> list[bytes]:
        template = self.rng.choice(FAMILIES[self.rng.choice(self.families)])
        while CHOICE.search(template):
            template = CHOICE.sub(lambda match: self.rng.choice(match[1].split("|")), template, count=1)
        return [self._word(word) for word in template.split()]

    def _word(self, word: str) -> bytes:
        if word == '""':
            return b""
        if word[0] != "$" or word == "$":
            return word.encode()
        return self._kind(word[1:])

    def _kind(self, kind: str) -> bytes:
        pick, now = self.rng.choice, self.now_ms()
        if len(kind) == 1 and kind in "snplztghxe":
            self.key = kind.encode() + pick((b"0", b"1"))
            return self.key
        if kind == "any":
            self.key = pick((b"s", b"n", b"p", b"l", b"z", b"t", b"g", b"h", b"x")) + pick((b"0", b"1"))
            return self.key
        if kind == "id":
            return pick((*self.ids(self.key), b"0-1", b"5", b"7-7"))
        if kind == "dump":
            return self.dump()
        far = now + pick((100_000, 500_000))
        values: dict[str, Sequence[bytes]] = {
            "v": (b"a", b"b", b"c", b"ex", b"\x00\r\n", b"1"),
            "c": (b"count", b"1"),
            "i": (b"0", b"1", b"-3", b"42"),
            "f": (b"0.1", b"-2.5", b"3e2"),
            "score": (b"1", b"0.1", b"0.2", b"-inf", b"3.3333333333333335", b"1e300"),
            "lon": (b"13.36", b"15.08", b"-100"),
            "secs": (b"100", b"500", b"0", b"-1"),
            "ms": (b"100000", b"500000", b"-1"),
            "future": (b"%d" % far,),
            "future_s": (b"%d" % (far // 1000),),
            "past": (b"%d" % (now - 5000), b"1"),
            "past_s": (b"%d" % (now // 1000 - 5), b"1"),
            "now": (b"%d" % now,),
            "cg": (b"g1", b"g2"),
            "co": (b"c1", b"c2", b"c3"),
            "script": (SCRIPT,),
            "nowrites": (NO_WRITES,),
        }
        return pick(values[kind])
