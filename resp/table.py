"""Every command of Redis 6.2, 7.0, 8.2 and Valkey 8.1, 9.1: what the proxy may do with it.

Owns: the literal tables (route, whether it writes, where its keys are, why it is refused). Refuses to know: how a
command is looked up (resp.catalog), what its effect is, anything about connections.

Invariants: 10 (READ and WRITE are an allow-list: free of connection state, not blocking, not administrative) and 12
(what is not in these tables counts as a write). A few commands newer than the listed servers are included from their
documentation.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from resp import keys as k


class Route(IntEnum):
    """Where a command goes."""

    READ = 0  # the lane; changes nothing
    WRITE = 1  # the lane; may change data, or is mirrored for another reason (SCRIPT LOAD)
    BLOCKING = 2  # run as its non-blocking form on the lane; XREAD and XREADGROUP only with BLOCK (resp.keys.blocks)
    TRANSACTION = 3  # MULTI and its family
    PUBSUB = 4  # subscriptions
    LOCAL = 5  # answered by the proxy: it is about the client's own connection
    PINNED = 6  # a connection of its own: connection state, administration, unknown commands
    REFUSED = 7  # answered with an error that says why
    CURSOR = 8  # the lane; its reply has a cursor, which means something on the server that gave it only
    SCRIPT = 9  # the lane; may write keys that it does not declare
    INFO = 10  # the lane; the proxy adds a section of its own
    PUBLISH = 11  # the lane, behind every subscription that was asked for before


class Row(NamedTuple):
    """Commands of one kind; `names` are separated by blanks."""

    route: Route
    writes: bool
    keys: k.KeysOf
    names: str


class Container(NamedTuple):
    """A command whose first argument names what it does.

    `other` is the route of a subcommand that is not listed; `bare` that of the name alone (most answer an error).
    """

    name: str
    other: Route
    keys: k.KeysOf
    rows: tuple[Row, ...]
    bare: Route = Route.PINNED


READ, WRITE, BLOCKING, TRANSACTION, PUBSUB, LOCAL, PINNED, REFUSED, CURSOR, SCRIPT, INFO, PUBLISH = Route

# fmt: off  (rows stay rows)
COMMANDS: tuple[Row, ...] = (
    # -- reads -----------------------------------------------------------------------------------------------
    Row(
        READ,
        False,
        k.first_key,
        """
        BITCOUNT BITFIELD_RO BITPOS DIGEST DUMP EXPIRETIME GET GETBIT GETRANGE PEXPIRETIME PTTL STRLEN SUBSTR TTL TYPE
        GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH
        HEXISTS HEXPIRETIME HGET HGETALL HKEYS HLEN HMGET HPEXPIRETIME HPTTL HRANDFIELD HSTRLEN HTTL HVALS
        LINDEX LLEN LPOS LRANGE
        SCARD SISMEMBER SMEMBERS SMISMEMBER SRANDMEMBER
        VCARD VDIM VEMB VGETATTR VINFO VISMEMBER VLINKS VRANDMEMBER VRANGE VSIM
        XLEN XPENDING XRANGE XREVRANGE
        ZCARD ZCOUNT ZLEXCOUNT ZMSCORE ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX
        ZREVRANGEBYSCORE ZREVRANK ZSCORE""",
    ),
    Row(BLOCKING, False, k.no_keys, "WAIT WAITAOF"),
    Row(CURSOR, False, k.first_key, "HSCAN SSCAN ZSCAN"),
    Row(CURSOR, False, k.no_keys, "SCAN"),
    Row(INFO, False, k.no_keys, "INFO"),
    Row(READ, False, k.all_keys, "EXISTS MGET SDIFF SINTER SUNION TOUCH"),
    Row(READ, False, k.numkeys_at_1, "SINTERCARD ZDIFF ZINTER ZINTERCARD ZUNION"),
    # They change nothing, yet which scripts are in use has to be known before a flip: so the proxy looks at the reply.
    Row(WRITE, False, k.numkeys_at_2, "EVALSHA_RO EVAL_RO FCALL_RO"),
    Row(READ, False, k.two_keys, "LCS"),
    Row(READ, False, k.sort_keys, "SORT_RO"),
    Row(READ, False, k.stralgo_keys, "STRALGO"),
    Row(READ, False, k.no_keys, "CLUSTERSCAN DBSIZE ECHO KEYS LASTSAVE LOLWUT PING RANDOMKEY ROLE TIME"),
    # -- writes ----------------------------------------------------------------------------------------------
    Row(
        WRITE,
        True,
        k.first_key,
        """
        APPEND BITFIELD DECR DECRBY DELEX DELIFEQ EXPIRE EXPIREAT GETDEL GETEX GETSET INCR INCRBY INCRBYFLOAT
        MOVE PERSIST PEXPIRE PEXPIREAT PSETEX RESTORE RESTORE-ASKING SET SETBIT SETEX SETNX SETRANGE
        GEOADD PFADD
        HDEL HEXPIRE HEXPIREAT HGETDEL HGETEX HINCRBY HINCRBYFLOAT HMSET HPERSIST HPEXPIRE HPEXPIREAT HSET HSETEX
        HSETNX
        LINSERT LPOP LPUSH LPUSHX LREM LSET LTRIM RPOP RPUSH RPUSHX
        SADD SPOP SREM
        VADD VREM VSETATTR
        XACK XACKDEL XADD XAUTOCLAIM XCFGSET XCLAIM XDEL XDELEX XSETID XTRIM
        ZADD ZINCRBY ZPOPMAX ZPOPMIN ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE""",
    ),
    Row(WRITE, True, k.two_keys, "COPY GEOSEARCHSTORE LMOVE RENAME RENAMENX RPOPLPUSH SMOVE ZRANGESTORE"),
    # PFCOUNT is a read to its callers but stores the cached cardinality in the key's bytes
    Row(WRITE, True, k.all_keys, "DEL PFCOUNT PFMERGE SDIFFSTORE SINTERSTORE SUNIONSTORE UNLINK"),
    Row(WRITE, True, k.every_other, "MSET MSETNX"),
    Row(WRITE, True, k.bitop_keys, "BITOP"),
    Row(WRITE, True, k.numkeys_at_1, "LMPOP ZMPOP"),
    Row(SCRIPT, True, k.numkeys_at_2, "EVAL EVALSHA FCALL"),
    Row(WRITE, True, k.numkeys_of_pairs, "MSETEX"),
    Row(WRITE, True, k.store_numkeys, "ZDIFFSTORE ZINTERSTORE ZUNIONSTORE"),
    Row(WRITE, True, k.sort_keys, "SORT"),
    Row(WRITE, True, k.georadius_keys, "GEORADIUS"),
    Row(WRITE, True, k.georadiusbymember_keys, "GEORADIUSBYMEMBER"),
    Row(WRITE, True, k.no_keys, "FLUSHALL FLUSHDB SWAPDB"),
    Row(PUBLISH, True, k.no_keys, "PUBLISH SPUBLISH"),
    # -- blocking --------------------------------------------------------------------------------------------
    Row(BLOCKING, True, k.all_but_last, "BLPOP BRPOP BZPOPMAX BZPOPMIN"),
    Row(BLOCKING, True, k.two_keys, "BLMOVE BRPOPLPUSH"),
    Row(BLOCKING, True, k.numkeys_at_2, "BLMPOP BZMPOP"),
    Row(BLOCKING, True, k.stream_keys, "XREADGROUP"),
    Row(BLOCKING, False, k.stream_keys, "XREAD"),
    # -- sessions --------------------------------------------------------------------------------------------
    Row(TRANSACTION, False, k.no_keys, "DISCARD EXEC MULTI UNWATCH"),
    Row(TRANSACTION, False, k.all_keys, "WATCH"),
    Row(PUBSUB, False, k.no_keys, "PSUBSCRIBE PUNSUBSCRIBE SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE UNSUBSCRIBE"),
    Row(LOCAL, False, k.no_keys, "AUTH HELLO QUIT RESET SELECT"),
    # POST and Host: are what a browser sends: the server hangs up on them, and so ends the pinned session
    Row(
        PINNED,
        False,
        k.no_keys,
        """
        ASKING BGREWRITEAOF BGSAVE HOST: MONITOR PFSELFTEST POST READONLY READWRITE SAVE""",
    ),
    Row(PINNED, True, k.second_key, "PFDEBUG"),
    # -- refused ---------------------------------------------------------------------------------------------
    Row(REFUSED, False, k.no_keys, "FAILOVER PSYNC REPLCONF REPLICAOF SHUTDOWN SLAVEOF SYNC"),
    Row(REFUSED, True, k.migrate_keys, "MIGRATE"),
    Row(REFUSED, True, k.first_key, "XIDMPRECORD"),
)

CONTAINERS: tuple[Container, ...] = (
    Container(
        "ACL",
        PINNED,
        k.no_keys,
        (
            Row(
                PINNED,
                False,
                k.no_keys,
                """
            CAT DELUSER DRYRUN GENPASS GETUSER HELP LIST LOAD LOG SAVE SETUSER USERS WHOAMI""",
            ),
        ),
    ),
    Container(
        "CLIENT",
        PINNED,
        k.no_keys,
        (
            # REPLY too: a server told to be silent would leave the proxy without the outcome of writes
            Row(
                LOCAL,
                False,
                k.no_keys,
                """
            CAPA GETNAME HELP ID INFO KILL LIST NO-EVICT NO-TOUCH PAUSE REPLY SETINFO SETNAME UNBLOCK UNPAUSE""",
            ),
            Row(PINNED, False, k.no_keys, "CACHING GETREDIR IMPORT-SOURCE TRACKING TRACKINGINFO"),
            Row(REFUSED, False, k.no_keys, "MAINT_NOTIFICATIONS"),
        ),
    ),
    Container(
        "CLUSTER",
        REFUSED,
        k.no_keys,
        (
            Row(
                READ,
                False,
                k.no_keys,
                """
            COUNTKEYSINSLOT GETKEYSINSLOT HELP INFO KEYSLOT LINKS MYID MYSHARDID NODES SHARDS SLOT-STATS SLOTS""",
            ),
            Row(PINNED, False, k.no_keys, "COUNT-FAILURE-REPORTS GETSLOTMIGRATIONS REPLICAS SLAVES"),
            Row(
                REFUSED,
                False,
                k.no_keys,
                """
            ADDSLOTS ADDSLOTSRANGE BUMPEPOCH CANCELSLOTMIGRATIONS DELSLOTS DELSLOTSRANGE FAILOVER FLUSHSLOTS FORGET
            MEET MIGRATESLOTS MIGRATION REPLICATE RESET SAVECONFIG SET-CONFIG-EPOCH SETSLOT SYNCSLOTS""",
            ),
            Row(REFUSED, True, k.no_keys, "FLUSHSLOT"),
        ),
    ),
    Container(
        "COMMAND",
        PINNED,
        k.no_keys,
        (Row(READ, False, k.no_keys, "COUNT DOCS GETKEYS GETKEYSANDFLAGS HELP INFO LIST"),),
        bare=READ,
    ),
    Container(
        "COMMANDLOG",
        PINNED,
        k.no_keys,
        (
            Row(READ, False, k.no_keys, "GET HELP LEN"),
            Row(PINNED, False, k.no_keys, "RESET"),
        ),
    ),
    Container("CONFIG", PINNED, k.no_keys, (Row(PINNED, False, k.no_keys, "GET HELP RESETSTAT REWRITE SET"),)),
    # DEBUG's subcommands can crash the server, rewrite or invent data: only those that look are let through
    Container(
        "DEBUG",
        REFUSED,
        k.no_keys,
        (
            Row(
                PINNED,
                False,
                k.no_keys,
                """
            DIGEST DIGEST-VALUE ERROR HELP HTSTATS HTSTATS-KEY LISTPACK LOG OBJECT PROTOCOL
            QUICKLIST-PACKED-THRESHOLD SDSLEN SET-ACTIVE-EXPIRE SLEEP STRINGMATCH-LEN STRUCTSIZE ZIPLIST""",
            ),
        ),
    ),
    Container(
        "FUNCTION",
        PINNED,
        k.no_keys,
        (
            Row(READ, False, k.no_keys, "DUMP HELP LIST"),
            Row(WRITE, True, k.no_keys, "DELETE FLUSH LOAD RESTORE"),
            Row(PINNED, False, k.no_keys, "KILL STATS"),  # for use while a function runs; the lane is behind it
        ),
    ),
    Container("HOTKEYS", PINNED, k.no_keys, (Row(PINNED, False, k.no_keys, "GET HELP RESET START STOP"),)),
    Container(
        "LATENCY",
        PINNED,
        k.no_keys,
        (
            Row(READ, False, k.no_keys, "DOCTOR GRAPH HELP HISTOGRAM HISTORY LATEST"),
            Row(PINNED, False, k.no_keys, "RESET"),
        ),
    ),
    Container(
        "MEMORY",
        PINNED,
        k.second_key,
        (
            Row(READ, False, k.second_key, "USAGE"),
            Row(READ, False, k.no_keys, "DOCTOR HELP MALLOC-STATS STATS"),
            Row(PINNED, False, k.no_keys, "PURGE"),
        ),
    ),
    Container(
        "MODULE",
        REFUSED,
        k.no_keys,
        (
            Row(PINNED, False, k.no_keys, "HELP LIST"),
            Row(REFUSED, False, k.no_keys, "LOAD LOADEX UNLOAD"),
        ),
    ),
    Container(
        "OBJECT",
        PINNED,
        k.second_key,
        (
            Row(READ, False, k.second_key, "ENCODING FREQ IDLETIME REFCOUNT"),
            Row(READ, False, k.no_keys, "HELP"),
        ),
    ),
    Container(
        "PUBSUB",
        PINNED,
        k.no_keys,
        (Row(READ, False, k.no_keys, "CHANNELS HELP NUMPAT NUMSUB SHARDCHANNELS SHARDNUMSUB"),),
    ),
    Container(
        "SCRIPT",
        PINNED,
        k.no_keys,
        (
            Row(READ, False, k.no_keys, "EXISTS HELP SHOW"),
            Row(WRITE, True, k.no_keys, "FLUSH LOAD"),
            Row(PINNED, False, k.no_keys, "KILL"),
            Row(REFUSED, False, k.no_keys, "DEBUG"),
        ),
    ),
    Container(
        "SLOWLOG",
        PINNED,
        k.no_keys,
        (
            Row(READ, False, k.no_keys, "GET HELP LEN"),
            Row(PINNED, False, k.no_keys, "RESET"),
        ),
    ),
    Container(
        "XGROUP",
        PINNED,
        k.second_key,
        (
            Row(WRITE, True, k.second_key, "CREATE CREATECONSUMER DELCONSUMER DESTROY SETID"),
            Row(READ, False, k.no_keys, "HELP"),
        ),
    ),
    Container(
        "XINFO",
        PINNED,
        k.second_key,
        (
            Row(READ, False, k.second_key, "CONSUMERS GROUPS STREAM"),
            Row(READ, False, k.no_keys, "HELP"),
        ),
    ),
)
# fmt: on

REPLICATION = "{} is not possible through the proxy: it decides which server serves; use its flip command"
REFUSALS: dict[str, str] = {  # by name, or by container for its subcommands; {} is the full name
    "CLIENT MAINT_NOTIFICATIONS": "{} is not supported by the proxy: clients stay connected when a server moves",
    "CLUSTER": "{} is not possible through the proxy: it changes the cluster, or is not known",
    "CLUSTER FLUSHSLOT": "{} is not possible through the proxy: it deletes keys that cannot be named",
    "DEBUG": "{} is not possible through the proxy: it can crash the server or change data unseen",
    "FAILOVER": REPLICATION,
    "MIGRATE": "{} is not supported by the proxy: it moves keys to a server that the proxy does not see",
    "MODULE": "{} is not possible through the proxy: load modules on both servers directly",
    "PSYNC": "{} is not supported by the proxy: replicas must connect to a server directly",
    "REPLCONF": "{} is not supported by the proxy: replicas must connect to a server directly",
    "REPLICAOF": REPLICATION,
    "SCRIPT DEBUG": "{} is not supported by the proxy: debug scripts on a server directly",
    "SHUTDOWN": "{} is not possible through the proxy: shut the server down directly",
    "SLAVEOF": REPLICATION,
    "SYNC": "{} is not supported by the proxy: replicas must connect to a server directly",
    "XIDMPRECORD": "{} is internal to a server's append-only file and replication",
}
