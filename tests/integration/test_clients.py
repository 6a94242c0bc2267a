"""The programs that people use with a Redis, used with the proxy: none may tell the difference.

Every conversation is held twice, with the bare server and through the proxy: what was said must be the same.
"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import pytest
import redis
from redis.cache import CacheConfig

from tests.equality import assert_equal_servers
from tests.proxies import RunningProxy, until
from tests.servers import Server
from tests.traffic.connection import pack

StartProxy = Callable[..., RunningProxy]


class Place(Protocol):
    """The bare server, or the proxy."""

    @property
    def port(self) -> int: ...

    def client(self, db: int = 0, **options: Any) -> redis.Redis: ...


SERVERS = ["redis-6.2", "redis-7.0", "redis-8.2", "valkey-9.1"]


@pytest.fixture(params=SERVERS)
def both(request: pytest.FixtureRequest, start_server: Callable[..., Server], start_proxy: StartProxy) -> Iterator[Any]:
    """(the bare server, the proxy): the proxy's source is another server of the same kind, its target a newer one."""
    pool = request.getfixturevalue("server_pool")
    source, bare = pool.get(request.param), start_server(request.param)
    target = pool.get("redis-8.2" if request.param == "valkey-9.1" else "valkey-9.1")
    proxy = start_proxy(source, target)
    yield bare, proxy
    if not proxy.running:
        return
    proxy.wait_settled()
    assert not proxy.status()["unmirrored"], proxy.status()["unmirrored_commands"]
    assert_equal_servers(source, target)
    assert_equal_servers(bare, source)


@pytest.fixture
def one(server_70: Server, server_91: Server, start_proxy: StartProxy, start_server: Callable[..., Server]) -> Any:
    """(a bare 7.0, a proxy in front of another 7.0)."""
    return start_server("redis-7.0"), start_proxy(server_70, server_91)


# --- redis-cli ---


def cli(place: Place, *args: str, stdin: bytes | None = None, timeout: float = 20) -> tuple[int, str, str]:
    end = subprocess.run(
        ["redis-cli", "-h", "127.0.0.1", "-p", str(place.port), *args],
        input=stdin if stdin is not None else b"",
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return end.returncode, end.stdout.decode(errors="replace"), end.stderr.decode(errors="replace")


CONVERSATION = b"""\
PING
SET greeting "hello\\x00 \\"world\\""
GET greeting
set counter 41
INCR counter
INCR greeting
SELECT 3
SET k v
SELECT 0
GET k
SELECT 99
SELECT x
LPUSH list a b c
LRANGE list 0 -1
TYPE list
LPUSH
NOSUCHCOMMAND a b
HSET hash f1 v1 f2 v2
HGETALL hash
ZADD z 1.5 a 2 b inf c
ZRANGE z 0 -1 WITHSCORES
MULTI
SET in-multi 1
INCR greeting
GET in-multi
EXEC
MULTI
NOSUCHCOMMAND
EXEC
MULTI
SET never 1
DISCARD
EXEC
DISCARD
MULTI
MULTI
WATCH k
EXEC
WATCH counter
INCR counter
MULTI
SET counter 1
EXEC
WATCH counter
UNWATCH
MULTI
EXEC
EVAL "return {KEYS[1], ARGV[1], redis.call('INCR', KEYS[1])}" 1 counter x
EVAL "return redis.error_reply('MINE no')" 0
EVAL "syntax error" 0
EVALSHA 0000000000000000000000000000000000000000 0
SCRIPT LOAD "return 7"
EVALSHA 7f923f79fe76194c868d7e1d0820de36700eb649 0
SCRIPT EXISTS 7f923f79fe76194c868d7e1d0820de36700eb649 0000000000000000000000000000000000000000
OBJECT ENCODING list
OBJECT HELP
EXPIRE k
TTL counter
EXPIRE counter 1000
TTL counter
PERSIST counter
SETBIT bits 7 1
BITCOUNT bits
GEOADD geo 13.361389 38.115556 Palermo
GEOPOS geo Palermo
PFADD hll a b c
PFCOUNT hll
XADD stream 1-1 f v
XADD stream 1-1 f v
XADD stream 5-* f v
XRANGE stream - +
XGROUP CREATE stream g 0
XREADGROUP GROUP g c COUNT 1 STREAMS stream >
XPENDING stream g
XACK stream g 1-1
RENAME nokey other
RENAME counter counter2
COPY list list2
SORT list ALPHA
RANDOMKEY x
BLPOP list 1
BLPOP list 0 0
BLPOP nolist 0.01
BLPOP list -1
BLPOP list x
BLPOP greeting 1
BLMOVE list list2 LEFT RIGHT 1
BZPOPMIN z 1
XREAD BLOCK 10 STREAMS stream $
XREAD COUNT 1 STREAMS stream 0
SUBSCRIBE
PUBLISH nobody x
CLIENT GETNAME
CLIENT SETNAME me
CLIENT GETNAME
CLIENT SETNAME "not good"
CLIENT NOSUCH
CLIENT SETNAME
CLIENT REPLY maybe
DBSIZE
FLUSHDB maybe
SWAPDB 0 x
MOVE list 5
EXISTS list
COMMAND COUNT
COMMAND INFO get
CONFIG GET maxmemory-policy
LATENCY HELP
ECHO "good bye"
HELLO 3
HGETALL hash
ZRANGE z 0 -1 WITHSCORES
GET nokey
SMEMBERS nokey
EXPIRETIME
HELLO 2
"""


def test_a_session_of_redis_cli(both: Any) -> None:
    """Typed in, as by a pipe: the same lines come out."""
    wanted, got = (cli(place, stdin=CONVERSATION) for place in both)
    assert_same_lines(wanted[1], got[1])
    assert (wanted[0], wanted[2]) == (got[0], got[2])


_OWN_ID = re.compile(r".*id ?\d+$")  # of HELLO, in one line or two: every connection has its own


def assert_same_lines(wanted: str, got: str) -> None:
    a, b = wanted.splitlines(), got.splitlines()
    for i in range(min(len(a), len(b))):
        own_id = _OWN_ID.match(a[i - 1] + a[i]) and _OWN_ID.match(b[i - 1] + b[i])
        if a[i] != b[i] and not own_id:
            raise AssertionError(f"line {i} after {a[max(0, i - 4) : i]}:\n  server {a[i]!r}\n  proxy  {b[i]!r}")
    assert len(a) == len(b), (a[len(b) :], b[len(a) :])


@pytest.mark.parametrize("resp", ["-2", "-3"])
def test_redis_cli_in_both_protocols(one: Any, resp: str) -> None:
    lines = b"HSET h f v\nHGETALL h\nZADD z 1 a\nZSCORE z a\nGET nil\nSADD s 1\nSMEMBERS s\nLPOP nil 1\n"
    lines += b"MULTI\nHGETALL h\nGET nil\nZRANGE z 0 0 WITHSCORES\nEXEC\n"
    lines += b"EVAL \"redis.setresp(3); return redis.call('HGETALL', 'h')\" 0\nZRANGE z 0 0 WITHSCORES\n"
    wanted, got = (cli(place, resp, "--no-raw", stdin=lines) for place in one)
    assert wanted == got and "(error)" not in got[1]


def test_mass_insert(both: Any) -> None:
    """redis-cli --pipe: as many commands as the socket takes, and the end is known by an ECHO."""
    commands: list[list[Any]] = [["SET", f"key {n}", f"value {n}" * (n % 50)] for n in range(20_000)]
    commands += [["HSET", f"hash {n % 100}", f"f{n}", n] for n in range(10_000)]
    commands += [["LPUSH", "key 0", "not a list"]]
    wanted, got = (cli(place, "--pipe", stdin=pack(commands)) for place in both)
    assert wanted == got
    assert "errors: 1, replies: 30001" in got[1]


def test_other_modes_of_redis_cli(one: Any) -> None:
    bare, proxy = one
    for place in one:
        place.client().mset({f"key:{number}": "x" * number for number in range(200)})
        place.client().rpush("list", *range(50))
    for args in (
        ["--scan", "--pattern", "key:1*"],
        ["--raw", "GET", "key:7"],
        ["-r", "3", "INCR", "n"],
        ["-x", "SET", "x"],
    ):
        a, b = (cli(place, *args, stdin=b"from stdin") for place in one)
        assert (a[0], sorted(a[1].splitlines()), a[2]) == (b[0], sorted(b[1].splitlines()), b[2]), args
    assert cli(proxy, "--bigkeys")[0] == 0
    assert cli(proxy, "-n", "2", "SET", "k", "v")[1] == "OK\n"
    assert bare.client().get("n") == proxy.client().get("n") == b"3"


class Watching:
    """A redis-cli that goes on printing; its lines so far."""

    def __init__(self, place: Place, *args: str) -> None:
        self._process = subprocess.Popen(
            ["redis-cli", "-h", "127.0.0.1", "-p", str(place.port), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._out = self._process.stdout

    def lines(self, count: int) -> list[str]:
        return [self._out.readline().decode().rstrip("\n") for _ in range(count)]

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()


def test_subscribe_with_redis_cli(one: Any) -> None:
    heard = []
    for place in one:
        with Watching(place, "PSUBSCRIBE", "news.*", "other") as subscriber:
            first = subscriber.lines(6)
            with place.client() as client:
                assert client.publish("news.a", "one") == 1
                client.publish("unheard", "x")
                client.publish("other", "two")
            heard.append(first + subscriber.lines(8))
    assert heard[0] == heard[1] and "two" in heard[1]


def test_monitor_with_redis_cli(one: Any) -> None:
    """What it shows of the proxy are the proxy's connections; the commands are the clients'."""
    for place in one:
        with Watching(place, "MONITOR") as monitor:
            assert monitor.lines(1) == ["OK"]
            with place.client() as client:
                client.set("seen", "by monitor")
            while '"SET" "seen" "by monitor"' not in (line := monitor.lines(1)[0]):
                assert line, "redis-cli ended"


INLINE = [
    b"PING\r\n",
    b"PING\n",
    b"  SET   k   v  \r\n",
    b"GET k\r\n",
    b'SET quoted "a b\\n\\x41\\""\r\n',
    b"GET quoted\r\n",
    b"SET single 'it\\'s'\r\n",
    b"GET single\r\n",
    b"\r\n\r\nPING\r\n",
    b"PING\r\n*1\r\n$4\r\nPING\r\nPING\r\n",
    b"nosuch thing\r\n",
    b"get\r\n",
    b"MULTI\r\nSET k 2\r\nGET k\r\nEXEC\r\n",
    b"\tECHO\ttab\r\n",
    b"ECHO ''\r\n",
    b"*0\r\nPING\r\n",
    b"*-1\r\nPING\r\n",
    b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
    b"EXEC\r\nDISCARD\r\nUNWATCH\r\nPING\r\n",
    b"QUIT\r\n",
]


@pytest.mark.parametrize("pieces", ["whole", "bytes"])
def test_inline_commands_by_hand(one: Any, pieces: str) -> None:
    """As with telnet, and also one byte at a time."""
    data = b"".join(INLINE)
    answers = []
    for place in one:
        with socket.create_connection(("127.0.0.1", place.port), timeout=10) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(data), len(data) if pieces == "whole" else 1):
                connection.sendall(data[start : start + (len(data) if pieces == "whole" else 1)])
            answers.append(rest(connection))
    assert answers[0].split(b"\r\n") == answers[1].split(b"\r\n")


def rest(connection: socket.socket) -> bytes:
    """What still comes, until the other side hangs up."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


# --- redis-benchmark ---


@pytest.mark.parametrize("protocol", [[], ["-3"]], ids=["resp2", "resp3"])
def test_redis_benchmark(both: Any, protocol: list[str]) -> None:
    """50 clients, pipelines of 16: no error, and both sides end equal."""
    proxy = both[1]
    tests = "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,mset"
    args = ["-t", tests, "-P", "16", "-n", "3000", "-r", "500", "-q", *protocol]
    for place in both:
        end = subprocess.run(
            ["redis-benchmark", "-p", str(place.port), *args], capture_output=True, text=True, timeout=50, check=False
        )
        assert end.returncode == 0, end.stdout + end.stderr
        assert not re.search(r"(?im)^(error|-\w)", end.stdout + end.stderr), end.stdout + end.stderr
        assert end.stdout.count("requests per second") == len(tests.split(",")) + 1  # PING twice
    proxy.wait_settled()
    assert_equal_servers(proxy.source, proxy.target)
    # Random keys: what the fixture compares in the end, with the bare server, cannot be equal.
    for place in both:
        place.client().flushall()
    assert proxy.client().dbsize() == 0


# --- redis-py ---


def failure(call: Callable[..., Any], *args: Any) -> str:
    """The text of the error that it must raise."""
    with pytest.raises(redis.RedisError) as told:
        call(*args)
    return str(told.value)


def talk(place: Place, resp: int) -> list[Any]:
    """A long conversation of one application; what it was told."""
    heard: list[Any] = []
    with place.client(protocol=resp, decode_responses=False) as client:
        say = heard.append
        say(client.mset({"a": 1, "b": 2}))
        say(client.mget("a", "b", "nil"))
        say(client.incrbyfloat("f", 1.1))
        say(client.hset("h", mapping={"x": 1, "y": "é"}))
        say(client.hgetall("h"))
        say(client.zadd("z", {"a": 1, "b": 2.5, "c": float("inf")}))
        say(client.zrange("z", 0, -1, withscores=True))
        say(client.zscore("z", "c"))
        say(client.sadd("s", "one", "two"))
        say(client.smembers("s"))
        say(client.rpush("l", *range(10)))
        say(client.lrange("l", 0, -1))
        say(client.blpop(["nil", "l"], 1))
        say(client.blmove("l", "l2", 1))
        say(client.brpop("nil", 0.01))
        say(client.bzpopmin("z", 1))
        say(client.xadd("x", {"f": "v"}, id="1-1"))
        say(client.xgroup_create("x", "g", "0"))
        say(client.xreadgroup("g", "c", {"x": ">"}, count=1))
        say(client.xread({"x": "0"}, block=10))
        say(client.xpending("x", "g"))
        say(client.xinfo_stream("x")["last-generated-id"])
        say(client.geoadd("geo", (13.361389, 38.115556, "Palermo")))
        say(client.geopos("geo", "Palermo"))
        say(client.object("ENCODING", "h"))
        say(client.set("e", "v", ex=100))
        say(90 < client.ttl("e") <= 100)
        say(sorted(client.scan_iter(count=5)))
        say(client.type("z"))
        say(client.config_get("maxmemory-policy"))
        say(client.client_getname())
        say(client.client_setname("me"))
        say(client.publish("nobody", "x"))
        say(client.get("nil"))
        say(client.set("once", 1, nx=True))
        say(client.set("once", 1, nx=True))
        say(client.getdel("once"))
        # Pipelines
        with client.pipeline(transaction=False) as pipeline:
            for number in range(300):
                pipeline.set(f"p:{number}", number).get(f"p:{number}").lpush("once", number)
            pipeline.lpush("a", "wrong type").blpop("once", 1).xread({"x": "0"})
            say([str(reply) for reply in pipeline.execute(raise_on_error=False)])
        # Transactions
        with client.pipeline() as pipeline:
            pipeline.incr("t").lpush("a", "wrong type").hgetall("h").get("nil").blpop("nil", 5)
            say([str(reply) for reply in pipeline.execute(raise_on_error=False)])
        with client.pipeline() as pipeline:
            pipeline.incr("t").execute_command("NOSUCHCOMMAND")
            say(failure(pipeline.execute))
        # WATCH: once undisturbed, once with another client in between
        for disturbed in (False, True):
            with client.pipeline() as pipeline:
                pipeline.watch("t")
                value = int(pipeline.get("t") or 0)
                if disturbed:
                    client.incr("t")
                pipeline.multi()
                pipeline.set("t", value + 100)
                try:
                    say(pipeline.execute())
                except redis.WatchError as problem:
                    say(str(problem))
        say(client.get("t"))
        # Scripts
        script = client.register_script("redis.call('SET', KEYS[1], ARGV[1]) return {1, 'two', false, {3.9}}")
        say(script(keys=["script"], args=["v"]))
        say(script(keys=["script"], args=["w"]))
        say(client.get("script"))
        say(client.eval("return redis.call('GET', KEYS[1])", 1, "script"))
        say(failure(client.eval, "return redis.call('LPUSH', KEYS[1], 1)", 1, "a"))
        say(client.script_exists(script.sha, "0" * 40))
        # Errors
        for command in (["GET"], ["NOSUCHCOMMAND"], ["LPUSH", "a", "x"], ["EVALSHA", "0" * 40, "0"], ["SELECT", "77"]):
            say(failure(client.execute_command, *command))
    return heard


@pytest.mark.parametrize("resp", [2, 3])
def test_redis_py(both: Any, resp: int) -> None:
    wanted, got = (talk(place, resp) for place in both)
    for index, (a, b) in enumerate(zip(wanted, got, strict=True)):
        assert without_script_line(a) == without_script_line(b), f"answer {index}"


def without_script_line(value: Any) -> Any:
    """An error's text without the connection's own words that redis-py adds."""
    return re.sub(r"command # \d+ .* of pipeline", "command of pipeline", value) if isinstance(value, str) else value


@pytest.mark.parametrize("resp", [2, 3])
def test_pubsub(one: Any, resp: int) -> None:
    def converse(place: Place) -> list[Any]:
        heard: list[Any] = []
        with place.client(protocol=resp) as client, client.pubsub() as subscriber:

            def listen(count: int) -> None:
                for _ in range(count):
                    message = until(lambda: subscriber.get_message(timeout=1), "a message")
                    heard.append({name: message[name] for name in ("type", "pattern", "channel", "data")})

            subscriber.subscribe("a", "b")
            subscriber.psubscribe("p.*")
            listen(3)
            heard.append(client.publish("a", "1"))
            heard.append(client.publish("p.x", b"\xff\x00\r\n"))
            listen(2)
            heard.append(
                [client.pubsub_numsub("a", "b", "c"), sorted(client.pubsub_channels("*")), client.pubsub_numpat()]
            )
            subscriber.ping("are you there")
            listen(1)
            subscriber.unsubscribe("a")
            listen(1)
            heard.append(client.publish("a", "2"))
            if hasattr(client, "spublish"):
                subscriber.ssubscribe("shard")
                listen(1)
                heard.append(client.spublish("shard", "3"))
                message = until(lambda: subscriber.get_sharded_message(timeout=1), "a sharded message")
                heard.append(message["data"])
            subscriber.unsubscribe()
            subscriber.punsubscribe()
            listen(2)
        return heard

    wanted, got = (converse(place) for place in one)
    assert wanted == got


def test_a_subscriber_in_resp3_goes_on_with_other_commands(one: Any) -> None:
    answers = []
    for place in one:
        with socket.create_connection(("127.0.0.1", place.port), timeout=10) as connection:
            connection.sendall(pack([["HELLO", "3"]]))
            assert connection.recv(65536)
            commands = [["SUBSCRIBE", "c"], ["SET", "k", "v"], ["PUBLISH", "c", "to myself"], ["GET", "k"]]
            connection.sendall(pack([*commands, ["BLPOP", "nil", "0.01"], ["UNSUBSCRIBE"], ["GET", "k"], ["QUIT"]]))
            answers.append(rest(connection))
    assert sorted(answers[0].split(b"\r\n")) == sorted(answers[1].split(b"\r\n"))


def test_blocking_pops_are_served_in_order(one: Any) -> None:
    """First come, first served, and each element once; a timeout is a timeout."""
    order = []
    for place in one:
        connections = []
        for number in range(5):
            connection = socket.create_connection(("127.0.0.1", place.port), timeout=10)
            connection.sendall(pack([["CLIENT", "SETNAME", f"waiter-{number}"], ["BLPOP", "queue", "other", "0"]]))
            assert connection.recv(5) == b"+OK\r\n"
            connections.append(connection)
            until(partial(waits, place, len(connections)), "one more waits")
        with place.client() as client:
            client.rpush("queue", "a", "b")
            client.rpush("other", "c")
            with client.pipeline() as transaction:
                transaction.rpush("queue", "d").rpush("queue", "e").llen("queue").execute()
            assert client.llen("queue") == 0
        order.append([connection.recv(1000) for connection in connections])
        for connection in connections:
            connection.close()
    assert order[0] == order[1]


def waits(place: Place, number: int) -> bool:
    """Whether so many clients are blocked, or at least have sent what will block them."""
    with place.client() as client:
        return sum(line["cmd"] == "blpop" for line in client.client_list()) == number


def reads(client: redis.Redis, value: bytes | None) -> bool:
    return bool(client.get("k") == value)


def test_client_side_caching(start_proxy: StartProxy, server_82: Server, server_91: Server) -> None:
    """What another client changes must not be answered from the cache. redis-py has this with Redis 7.4 and later."""
    for place in (server_82, start_proxy(server_82, server_91)):
        cached = place.client(protocol=3, cache_config=CacheConfig(), single_connection_client=True)
        with cached, place.client() as other:
            cached.set("k", "1")
            assert cached.get("k") == cached.get("k") == b"1"
            cache = cached.get_cache()
            assert cache is not None and cache.size == 1
            other.set("k", "2")
            until(partial(reads, cached, b"2"), "the invalidation")
            other.delete("k")
            until(partial(reads, cached, None), "the invalidation of a deletion")


def test_tracking_by_hand(one: Any) -> None:
    answers = []
    for place in one:
        with socket.create_connection(("127.0.0.1", place.port), timeout=10) as connection, place.client() as other:
            connection.sendall(pack([["HELLO", "3"]]))
            assert connection.recv(65536)
            connection.sendall(pack([["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "user:"], ["PING"]]))
            received = b""
            while b"PONG" not in received:
                received += connection.recv(65536)
            other.set("user:1", "x")
            other.set("unwatched", "x")
            while b"user:1" not in received:
                received += connection.recv(65536)
            connection.sendall(pack([["CLIENT", "TRACKING", "OFF"], ["QUIT"]]))
            answers.append(received + rest(connection))
    assert answers[0] == answers[1]


SILENCE = {
    "off and on": "CLIENT REPLY OFF|SET a 1|INCR a|NOSUCH|BLPOP nil 0.01|MULTI|SET a 2|EXEC|CLIENT REPLY ON|GET a|QUIT",
    "skip": "CLIENT REPLY SKIP|INCR a|GET a|CLIENT REPLY SKIP|CLIENT REPLY SKIP|PING|PING|QUIT",
    "skip a wait": "CLIENT REPLY SKIP|BLPOP nil 0.01|PING|QUIT",
}


@pytest.mark.parametrize("lines", SILENCE.values(), ids=SILENCE)
def test_client_reply_off_and_skip(one: Any, lines: str) -> None:
    answers = []
    for place in one:
        with socket.create_connection(("127.0.0.1", place.port), timeout=5) as connection:
            connection.sendall(lines.replace("|", "\r\n").encode() + b"\r\n")
            answers.append(rest(connection))
    assert answers[0] == answers[1]


def test_silence_in_a_transaction_is_refused(one: Any) -> None:
    """How many replies are still to come could not be told any more. The transaction is aborted, nobody hangs."""
    with socket.create_connection(("127.0.0.1", one[1].port), timeout=5) as connection:
        connection.sendall(b"MULTI\r\nCLIENT REPLY OFF\r\nSET b 2\r\nEXEC\r\nGET b\r\nQUIT\r\n")
        answers = rest(connection).split(b"\r\n")
    assert answers[0] == b"+OK" and answers[1].startswith(b"-ERR ") and b"REPLY" in answers[1]
    assert answers[2] == b"+QUEUED" and answers[3].startswith(b"-EXECABORT")
    assert answers[4:] == [b"$-1", b"+OK", b""]


def test_commands_that_would_break_the_migration_are_refused(one: Any) -> None:
    proxy = one[1]
    with proxy.client() as client:
        client.set("k", "v")
        for command in (
            ["REPLICAOF", "127.0.0.1", "1"],
            ["SLAVEOF", "127.0.0.1", "1"],
            ["SHUTDOWN", "NOSAVE"],
            ["DEBUG", "RELOAD"],
            ["DEBUG", "SEGFAULT"],
            ["MIGRATE", "127.0.0.1", "1", "k", "0", "10"],
            ["PSYNC", "?", "-1"],
            ["FAILOVER"],
        ):
            with pytest.raises(redis.ResponseError) as told:
                client.execute_command(*command)
            assert len(str(told.value)) > 20, "says why"
        assert client.get("k") == b"v"
        with client.pipeline() as transaction, pytest.raises(redis.RedisError):
            transaction.set("k", "w").execute_command("SHUTDOWN", "NOSAVE").execute()
        assert client.get("k") == b"v"
    assert proxy.running
