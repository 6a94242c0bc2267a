"""Keys go into a file of every format and come back equal, on a server of another version; what is wrong is said with
its line; a killed command leaves nothing half done."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from backfill import cli_files
from backfill.client import Client, command_names
from backfill.files import big_keys, export_progress, json_read, reading, records
from backfill.files.formats import FORMATS
from backfill.scan import scan_page
from backfill.url import parse_url
from crossfade import main
from resp.slots import key_slot
from tests.equality import assert_equal_servers, compare_servers
from tests.proxies import CROSSFADE, ROOT, until
from tests.servers import NAMES, Pool, Server
from tests.traffic.preload import preload

FORMS = ("json", "jsonl", "csv", "xml", "lossless")
SUFFIXES = {name: format.suffixes[0] for name, format in FORMATS.items()}
QUICK_PAIRS = (("redis-6.2", "valkey-9.1"), ("redis-8.2", "redis-7.0"))
FIELD_TTLS = ("redis-8.2", "valkey-9.1")
BINARY = bytes(range(256))
HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def own_title(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_files, "setproctitle", str.encode)  # as the real one needs text


def crossfade(*args: str | Path, code: int = 0, stdin: bytes = b"") -> Result:
    """A command in this process; looks at its exit code."""
    result = CliRunner().invoke(main, list(map(str, args)), input=stdin)
    assert result.exit_code == code, f"{args} ended with {result.exit_code}: {result.output} {result.exception!r}"
    assert "Traceback" not in result.output
    return result


def complaint(*args: str | Path, code: int, stdin: bytes = b"") -> str:
    """The one line with which a command fails."""
    result = crossfade(*args, code=code, stdin=stdin)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and not result.stdout, result.output
    return lines[0]


def fill(server: Server, *, field_ttls: bool) -> None:
    """Every type, in every shape that has ever broken an exporter."""
    with server.client() as client:
        now = int(client.time()[0]) * 1000
        pipe = client.pipeline(transaction=False)
        pipe.set("empty", b"").set("text", "é€😀").set(BINARY, BINARY * 20).set(b"", "the empty key")
        pipe.set("until", "v", px=HOUR_MS).set("digits", 12345).set("crlf", "a\r\nb\rc\n\td")
        pipe.set("json", '{"a": "\\u00e9", "b": [1, null]}').set("csv", "a,\"b\",'c'").set("xml", "<a>&amp;</a>]]>")
        pipe.set("\\udcff", "looks like the escape").set("null", b"\0" * 10).set(b"\xed\xb2\x80", b"\xed\xa0\x80")
        pipe.pfadd("hyperloglog", *range(1000))
        pipe.rpush("list", "", "a", "a", BINARY, "é", "\r", " x ").pexpire("list", HOUR_MS)
        pipe.sadd("ints", *range(100)).sadd("set", "", BINARY, "m", "\n").pexpireat("set", now + 2 * HOUR_MS)
        pipe.zadd("zset", {"inf": float("inf"), "-inf": float("-inf"), "tenth": 0.1, "": 5e-324, BINARY: -1.5e300})
        pipe.zadd("zset", {"big": 2**53 + 2, "third": 1 / 3, "zero": 0}).expire("zset", 7200)
        fields = {
            "": "empty",
            "a b": "",
            "key": "k",
            "value": "v",
            "\x01": "\x02",
            BINARY: BINARY,
            "xml": "x",
            "1": "2",
        }
        pipe.hset("hash", mapping=fields).expire("hash", 9000)  # type: ignore[arg-type]
        _streams(pipe)
        for index in range(40):
            pipe.set(f"many:{index}", f"value {index}")
        if field_ttls:
            pipe.hset("fields", mapping={"a": "1", "b": "2", "": "3", BINARY: "4"})  # type: ignore[dict-item]
            pipe.execute_command("HPEXPIREAT", "fields", now + HOUR_MS, "FIELDS", 2, "a", BINARY)
            pipe.execute_command("HPEXPIREAT", "fields", now + 2 * HOUR_MS, "FIELDS", 1, "")
        pipe.execute()
    with server.client(3) as client:
        client.set("text", "in another db")
        client.rpush("list", "x")


def _streams(pipe: Any) -> None:
    for number in range(1, 8):
        pipe.xadd("stream", {"f": number, "": BINARY}, id=f"{number}-{number}")
    pipe.execute_command("XADD", "stream", "9-0", "f", "1", "f", "2", "other", "3")  # a field twice
    pipe.xgroup_create("stream", "group", "0").xgroup_create("stream", b"\xffnew", "$").xgroup_create(
        "stream", "", "3-3"
    )
    pipe.xreadgroup("group", "alice", {"stream": ">"}, count=3).xreadgroup("group", BINARY, {"stream": ">"}, count=2)
    pipe.execute_command("XGROUP", "CREATECONSUMER", "stream", "group", "idle")
    pipe.xdel("stream", "2-2", "9-0").xadd("stream", {"a": "b"}, id="10-0").xdel("stream", "10-0")
    pipe.xadd("emptied", {"a": "b"}, id="5-1").xdel("emptied", "5-1")
    pipe.execute_command("XGROUP", "CREATE", "never", "group", "$", "MKSTREAM")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def there_and_back(source: Server, target: Server, path: Path, form: str, **options: Any) -> None:
    crossfade("export", source.url, path, "--format", form)
    crossfade("import", path, target.url, "--format", form)
    assert_equal_servers(source, target, **options)


def pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every key were big."""
    monkeypatch.setattr(reading, "BIG_BYTES", 1)
    monkeypatch.setattr(reading, "PAGE_ELEMENTS", 2)
    monkeypatch.setattr(records, "PIECE_ITEMS", 2)
    monkeypatch.setattr(json_read, "PIECE_ITEMS", 2)
    monkeypatch.setattr(json_read, "WHOLE_CHARS", 1)
    monkeypatch.setattr("backfill.files.json_text.CHUNK_CHARS", 8)
    monkeypatch.setattr("backfill.files.opening.CHUNK_BYTES", 16)
    monkeypatch.setattr("backfill.files.xml_read.PIECE_ITEMS", 2)
    monkeypatch.setattr(big_keys, "COMMANDS_PER_SEND", 3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("big", [False, True], ids=["whole", "paged"])
@pytest.mark.parametrize(("source", "target"), QUICK_PAIRS)
def test_export_and_import_into_another_version(
    source: str,
    target: str,
    big: bool,
    form: str,
    server_pool: Pool,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = server_pool.get(source), server_pool.get(target)
    fill(here, field_ttls=False)
    if big:
        pages(monkeypatch)
    there_and_back(here, there, folder / "x.gz", form, empty_consumers=True, deleted_pending=source != "redis-6.2")


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("source", "target"), list(product(NAMES, NAMES)))
def test_every_pair_of_versions(
    source: str, target: str, form: str, server_pool: Pool, start_server: Callable[..., Server], folder: Path
) -> None:
    here = server_pool.get(source)
    there = start_server(target) if source == target else server_pool.get(target)
    fill(here, field_ttls=source in FIELD_TTLS and target in FIELD_TTLS)
    preload(here, 3000, short_ttls=False, dbs=(0, 2))
    there_and_back(here, there, folder / f"x{SUFFIXES[form]}", form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("big", [False, True], ids=["whole", "paged"])
def test_ttls_of_hash_fields(
    form: str, big: bool, server_82: Server, server_91: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server_82, field_ttls=True)
    if big:
        pages(monkeypatch)
    there_and_back(server_82, server_91, folder / "x", form)


@pytest.mark.parametrize("form", FORMS)
def test_types_that_ordinary_commands_do_not_rebuild(
    form: str, start_server: Callable[..., Server], folder: Path
) -> None:
    here, there, other = start_server("redis-8.2"), start_server("redis-8.2"), start_server("redis-7.0")
    here.call("VADD", "vectors", "VALUES", 3, 1, 2, 3, "element")
    here.call("PEXPIRE", "vectors", HOUR_MS)
    path = folder / "x"
    there_and_back(here, there, path, form)
    line = complaint("import", path, other.url, "--format", form, code=1)
    assert "the target refused the key 'vectors': " in line and "0 keys were imported" in line


def test_fields_that_lose_their_ttl_are_told(server_91: Server, server_62: Server, folder: Path) -> None:
    server_91.call("HSET", "h", "a", "1", "b", "2")
    server_91.call("HPEXPIRE", "h", HOUR_MS, "FIELDS", 1, "a")
    path = folder / "x.jsonl"
    crossfade("export", server_91.url, path)
    result = crossfade("import", path, server_62.url, code=1)
    assert "line 1: 1 hash fields lose their TTL: the target does not know HPEXPIREAT" in result.stdout
    assert server_62.call("HGETALL", "h") == [b"a", b"1", b"b", b"2"]


# --- ttls ---


@pytest.mark.parametrize("form", FORMS)
def test_ttls_are_exact(form: str, server_70: Server, server_82: Server, folder: Path) -> None:
    for number in range(20):
        server_70.call("SET", f"k{number}", "v", "PXAT", 4_000_000_000_000 + number * 997)
    there_and_back(server_70, server_82, folder / "x", form)
    for number in range(20):
        assert server_82.call("PEXPIRETIME", f"k{number}") == 4_000_000_000_000 + number * 997


@pytest.mark.parametrize("form", FORMS)
def test_relative_ttls(form: str, server_91: Server, server_82: Server, folder: Path) -> None:
    """Written as what remains, they begin anew with the import, for keys and for fields."""
    server_91.call("SET", "k", "v", "PX", HOUR_MS)
    server_91.call("HSET", "h", "a", "1", "b", "2")
    server_91.call("HPEXPIRE", "h", HOUR_MS, "FIELDS", 1, "a")
    path = folder / "x"
    crossfade("export", server_91.url, path, "--format", form, "--ttl", "relative")
    for mode in ("auto", "relative"):
        crossfade("import", path, server_82.url, "--format", form, "--ttl", mode, "--replace")
        assert_equal_servers(server_91, server_82, 30_000)
    result = crossfade("import", path, server_82.url, "--format", form, "--ttl", "absolute", "--replace", "--json")
    assert json.loads(result.stdout)["expired"] == 1  # an hour after 1970; of the hash only a field is gone
    assert server_82.call("KEYS", "*") == [b"h"]
    assert server_82.call("HGETALL", "h") == [b"b", b"2"]


@pytest.mark.parametrize("big", [False, True], ids=["whole", "paged"])
def test_what_has_expired_meanwhile_is_not_imported(
    big: bool, server_82: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if big:
        pages(monkeypatch)
    path = folder / "x.jsonl"
    past = 1_600_000_000_000
    path.write_text(
        f'{{"key":"gone","type":"string","ttl":{past},"value":"v"}}\n'
        f'{{"key":"fields","type":"hash","value":{{"a":"1","b":"2"}},"fieldTtl":{{"a":{past}}}}}\n'
        f'{{"key":"all","type":"hash","value":{{"a":"1"}},"fieldTtl":{{"a":{past}}}}}\n'
        '{"key":"never","type":"string","ttl":-1,"value":"v"}\n'
    )
    server_82.call("MSET", "gone", "old", "kept", "x")
    result = crossfade("import", path, server_82.url, "--replace", "--json")
    assert json.loads(result.stdout) | {"seconds": 0} == {
        "file": str(path),
        "records": 4,
        "imported": 2,
        "existing": 0,
        "expired": 2,
        "filtered": 0,
        "bad": 0,
        "problems": [],
        "lossy": 0,
        "losses": [],
        "stopped": "",
        "seconds": 0,
    }
    assert sorted(server_82.call("KEYS", "*")) == [b"fields", b"kept", b"never"]
    assert server_82.call("HGETALL", "fields") == [b"b", b"2"]


# --- which keys, and where to ---


def test_filters(server_62: Server, server_91: Server, folder: Path) -> None:
    fill(server_62, field_ttls=False)
    path = folder / "x.json"
    result = crossfade("export", server_62.url, path, "--match", "many:*", "--exclude", "*1*", "--json")
    names = {f"many:{number}".encode() for number in range(40) if "1" not in str(number)}
    assert json.loads(result.stdout)["types"] == {"string": len(names)}
    crossfade("export", server_62.url, path)
    crossfade("import", path, server_91.url, "--type", "list", "--type", "zset", "--match", "*t", "--db", "0")
    assert sorted(server_91.call("KEYS", "*")) == [b"list", b"zset"]
    crossfade("import", path, server_91.url, "--match", "many:*", "--exclude", "*1*", "--type", "string")
    assert {key for key in server_91.call("KEYS", "*") if key.startswith(b"many")} == names
    result = crossfade("export", server_62.url, path, "--slots", "0-8000", "--slots", "16383", "--db", "0")
    chosen = {key for key in server_62.call("KEYS", "*") if key_slot(key) <= 8000 or key_slot(key) == 16383}
    assert result.stdout.startswith(f"{len(chosen)} keys exported")


def test_a_url_with_a_db_takes_everything_there(server_62: Server, server_91: Server, folder: Path) -> None:
    fill(server_62, field_ttls=False)
    path = folder / "x.xml"
    crossfade("export", f"{server_62.url}/3", path)
    crossfade("import", path, f"{server_91.url}/7")
    assert server_91.call("DBSIZE", db=7) == 2 and server_91.call("DBSIZE") == 0
    assert server_91.call("GET", "text", db=7) == b"in another db"
    crossfade("export", server_62.url, path, "--db", "3")
    crossfade("import", path, server_91.url)
    assert server_91.call("DBSIZE", db=3) == 2 and server_91.call("DBSIZE") == 0


def test_the_format_may_be_called_type(server_62: Server, folder: Path) -> None:
    server_62.call("SET", "k", "v")
    crossfade("export", server_62.url, folder / "x", "--type", "jsonl")
    assert (folder / "x").read_text() == '{"key":"k","type":"string","ttl":-1,"value":"v"}\n'


def test_standard_streams(server_62: Server, server_91: Server) -> None:
    """As `crossfade export … - | gzip | crossfade import - …`: what is said goes to the other stream."""
    fill(server_62, field_ttls=False)
    export = crossfade("export", server_62.url, "-", "--format", "jsonl")
    assert "keys exported" in export.stderr and export.stdout_bytes.count(b"\n") > 60
    back = crossfade("import", "-", server_91.url, "--format", "jsonl", stdin=gzip.compress(export.stdout_bytes))
    assert "keys imported" in back.stdout
    assert_equal_servers(server_62, server_91)


def test_a_reader_that_goes_away(server_62: Server) -> None:
    preload(server_62, 3000)
    command = [*CROSSFADE, "export", server_62.url, "-", "--format", "json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait() == 2 and said == "crossfade: cannot write standard output: Broken pipe\n"


# --- keys that exist ---


@pytest.mark.parametrize("big", [False, True], ids=["whole", "paged"])
def test_existing_keys(big: bool, server_62: Server, server_91: Server, folder: Path, monkeypatch: Any) -> None:
    fill(server_62, field_ttls=False)
    if big:
        pages(monkeypatch)
    path = folder / "x.jsonl"
    crossfade("export", server_62.url, path, "--db", "0")
    lines = path.read_text().splitlines()
    number = next(index for index, line in enumerate(lines, 1) if '"key":"list"' in line)
    server_91.call("SET", "list", "mine")
    line = complaint("import", path, server_91.url, code=1)
    assert f"line {number}: the key 'list' exists on the target (--replace, or --skip-existing)" in line
    assert server_91.call("DBSIZE") == number, "all keys before that line, none behind it"
    crossfade("import", path, server_91.url, "--skip-existing")
    assert server_91.call("GET", "list") == b"mine"
    assert [found.key for found in compare_servers(server_62, server_91, dbs=[0])] == [b"list"]
    crossfade("import", path, server_91.url, "--replace")
    assert_equal_servers(server_62, server_91, dbs=[0])


def test_a_key_twice_in_one_file(server_91: Server, folder: Path) -> None:
    path = folder / "x.jsonl"
    path.write_text('{"key":"k","type":"string","value":"1"}\n\n{"key":"k","type":"list","value":["2"]}\n')
    assert "line 3: the key 'k' exists" in complaint("import", path, server_91.url, code=1)
    assert server_91.call("GET", "k") == b"1"
    crossfade("import", path, server_91.url, "--replace")
    assert server_91.call("LRANGE", "k", 0, -1) == [b"2"]


def test_replacing_a_big_key_replaces_all_of_it(server_91: Server, folder: Path, monkeypatch: Any) -> None:
    pages(monkeypatch)
    path = folder / "x.json"
    path.write_text('[{"key":"k{tag}","type":"hash","value":{"a":"1","b":"2","c":"3","d":"4","e":"5"}}]')
    server_91.call("HSET", "k{tag}", "old", "x")
    server_91.call("EXPIRE", "k{tag}", 1000)
    crossfade("import", path, server_91.url, "--replace")
    assert sorted(server_91.call("HKEYS", "k{tag}")) == [b"a", b"b", b"c", b"d", b"e"]
    assert server_91.call("TTL", "k{tag}") == -1
    assert server_91.call("DBSIZE") == 1


def test_a_key_that_appears_while_a_big_one_is_imported(server_91: Server, folder: Path, monkeypatch: Any) -> None:
    """Somebody else's is left alone."""
    pages(monkeypatch)
    path = folder / "x.json"
    path.write_text('[{"key":"k","type":"list","value":["a","b","c","d","e"]}]')
    finish = big_keys.BigKey.finish

    async def later(self: big_keys.BigKey) -> Any:
        server_91.call("SET", "k", "mine")
        return await finish(self)

    monkeypatch.setattr(big_keys.BigKey, "finish", later)
    assert "line 1: the key 'k' exists" in complaint("import", path, server_91.url, code=1)
    assert server_91.call("KEYS", "*") == [b"k"] and server_91.call("GET", "k") == b"mine"


def test_what_a_killed_import_left_is_not_taken_for_a_part(server_91: Server, folder: Path, monkeypatch: Any) -> None:
    pages(monkeypatch)
    server_91.call("RPUSH", big_keys.scratch_name(b"k"), "left", "over")
    server_91.call("PEXPIRE", big_keys.scratch_name(b"k"), HOUR_MS)
    path = folder / "x.json"
    path.write_text('[{"key":"k","type":"list","value":["a","b","c","d","e"]}]')
    crossfade("import", path, server_91.url)
    assert server_91.call("LRANGE", "k", 0, -1) == [b"a", b"b", b"c", b"d", b"e"]
    assert server_91.call("TTL", "k") == -1 and server_91.call("DBSIZE") == 1


# --- bad input ---


LIST = b'{"key":"k","type":"list","value":["a"]}'
STREAM = b'{"key":"k","type":"stream",%b"value":[%b]}'
ONE, TWO = b'{"id":"1-0","body":{"a":"b"}}', b'{"id":"2-0","body":{"a":"b"}}'
BAD_FILES = [
    ("x.json", b"[%b,\n{}]" % LIST, "line 2: there is no key"),
    ("x.json", b"", "line 1: the file is empty; 0 keys were imported"),
    ("x.jsonl", b'{"key":"k","type":"zset","value":[{"value":"m","score":"x"}]}', "line 1: the score is not a number"),
    ("x.jsonl", b'{"key":"k","type":"hash","value":{}}', "line 1: a hash without elements"),
    ("x.jsonl", b'{"key":"k","type":"ReJSON-RL","value":"{}"}', "line 1: type 'ReJSON-RL' needs a module"),
    ("x.jsonl", b"\xff\xfe", "line 1: not UTF-8"),
    ("x.jsonl", STREAM % (b"", TWO + b"," + ONE), "line 1: stream id '1-0' does not come after 2-0"),
    ("x.jsonl", STREAM % (b'"lastId":"1-0",', TWO), "line 1: the last id '1-0' is smaller than the last entry's, 2-0"),
    ("x.json.gz", b'[{"key"', "not gzip, though its name ends in .gz"),
    (
        "x.json.gz",
        gzip.compress(b"[\n%b,\n" % LIST + json.dumps(list(range(200))).encode())[:-70],
        "the gzip data are cut off",
    ),
    ("x.csv", b'key,type,value\nk,list,a\nk,list,"b\n', "line 3: not CSV"),
    ("x.xml", b"<root><record><key>k</key></root>", "line 1: not XML: mismatched tag"),
    ("x.crossfade", b"{}", "line 1: not a line of a lossless export"),
]


@pytest.mark.parametrize(("name", "content", "said"), BAD_FILES)
@pytest.mark.parametrize("big", [False, True], ids=["whole", "paged"])
def test_bad_files_are_told_with_their_line(
    name: str, content: bytes, said: str, big: bool, server_91: Server, folder: Path, monkeypatch: Any
) -> None:
    if big:
        pages(monkeypatch)
    path = folder / name
    path.write_bytes(content)
    line = complaint("import", path, server_91.url, code=1)
    assert line.startswith("crossfade: ") and said in line, line
    assert server_91.call("KEYS", "l") == [] and not server_91.call("KEYS", "crossfade*"), "nothing half done"


def test_bad_records_are_skipped_on_request(server_91: Server, folder: Path) -> None:
    path = folder / "x.jsonl"
    path.write_text(
        '{"key":"a","type":"string","value":"v"}\n{"key":"b","type":"zset","value":[{"value":"m","score":"x"}]}\n'
        'oops\n{"key":"a","type":"string","value":"again"}\n{"key":"c","type":"string","value":"v"}\n'
    )
    result = crossfade("import", path, server_91.url, "--skip-bad", code=1)
    assert result.stdout.splitlines()[1:] == [
        "  line 2: the score is not a number: 'x'",
        "  line 3: not JSON: expecting value",
        "  line 4: the key 'a' exists on the target (--replace, or --skip-existing)",
    ]
    assert sorted(server_91.call("KEYS", "*")) == [b"a", b"c"]


@pytest.mark.parametrize("big", [False, True], ids=["whole", "paged"])
def test_a_key_that_the_target_refuses(big: bool, server_91: Server, folder: Path, monkeypatch: Any) -> None:
    """Nothing of it stays; the cause is told, not that a transaction was refused."""
    server_91.call("ACL", "SETUSER", "limited", "on", ">pass", "~a", "~b", "~crossfade:*", "+@all")
    url = f"redis://limited:pass@127.0.0.1:{server_91.port}"
    if big:
        pages(monkeypatch)
    path = folder / "x.jsonl"
    path.write_text(
        "\n".join(f'{{"key":"{key}","type":"list","ttl":9999,"value":["1","2","3"]}}' for key in ("a", "k", "b"))
    )
    line = complaint("import", path, url, code=1)
    assert "line 2: the target refused the key 'k': NOPERM" in line
    assert server_91.call("KEYS", "*") in ([b"a"], [b"a", b"b"], [b"b", b"a"]), "b was on its way"
    result = crossfade("import", path, url, "--skip-bad", "--replace", code=1)
    assert result.stdout.startswith("2 keys imported, 1 bad") and "EXECABORT" not in result.stdout
    assert sorted(server_91.call("KEYS", "*")) == [b"a", b"b"]


@pytest.mark.parametrize("big", [False, True], ids=["whole", "paged"])
@pytest.mark.parametrize("flags", [(), ("--replace",)])
def test_a_key_of_which_the_last_command_is_refused(
    flags: tuple[str, ...], big: bool, server_82: Server, folder: Path, monkeypatch: Any
) -> None:
    """Its entries were written; it does not stay without its counters."""
    if big:
        pages(monkeypatch)
    path = folder / "x.jsonl"
    path.write_bytes(STREAM % (b'"lastId":"2-0","entriesAdded":0,"maxDeletedId":"0-0",', ONE + b"," + TWO))
    line = complaint("import", path, server_82.url, *flags, code=1)
    assert "line 1: the target refused the key 'k': ERR The entries_added" in line
    assert server_82.call("KEYS", "*") == []


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("export", "redis://127.0.0.1:1", "x.json"), 3, "connection refused by 127.0.0.1:1"),
        (("export", "redis://127.0.0.1:1", "x"), 2, "the name x tells no format"),
        (("export", "redis://127.0.0.1:1", "x.json", "--slots", "9-1"), 2, "slots go from 0 to 16383"),
        (("import", "no-such-file.json", "redis://127.0.0.1:1"), 2, "cannot read no-such-file.json: No such file"),
        (("import", "no text \udcff.json", "redis://127.0.0.1:1"), 2, r"cannot read no text \udcff.json: No such file"),
        (("export", "redis://127.0.0.1:1", "no text \udcff.json"), 3, "connection refused"),
        (("export", "SERVER", "no/such/folder.json"), 2, "cannot write no/such/folder.json: No such file"),
        (("import", __file__, "redis://127.0.0.1:1", "--format", "xml", "--key", "{a}"), 2, "--key is for tables"),
        (("import", __file__, "SERVER", "--format", "csv", "--key", "a"), 2, "a column in braces"),
        (("import", __file__, "SERVER", "--format", "csv", "--key", "{a}"), 1, "line 1: the header has no 'a'"),
        (("import", __file__, "redis://127.0.0.1:1", "--format", "json"), 3, "connection refused"),
    ],
)
def test_usage(args: tuple[str, ...], code: int, said: str, server_62: Server, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(folder)
    line = complaint(*(server_62.url if arg == "SERVER" else arg for arg in args), code=code)
    assert said in line, line
    assert list(folder.iterdir()) == []


def test_no_password_in_what_is_said_nor_in_the_title(
    start_server: Callable[..., Server], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(cli_files, "setproctitle", titles.append)
    server = start_server("redis-7.0", password="s3cret")
    path = folder / "x.json"
    for url in (f"redis://:wrong-s3cret@127.0.0.1:{server.port}", f"redis://127.0.0.1:{server.port}"):
        assert "s3cret" not in complaint("export", url, path, code=3)
    crossfade("export", server.url, path)
    crossfade("import", path, server.url)
    assert len(titles) == 4 and "s3cret" not in str(titles), titles


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(server_62: Server, folder: Path, monkeypatch: Any) -> None:
    preload(server_62, 200)
    line = complaint("export", server_62.url, "/dev/full", "--format", "json", code=2)
    assert line == "crossfade: cannot write /dev/full: No space left on device"
    pages(monkeypatch)
    full = partial(open, "/dev/full", "wb", buffering=0)
    monkeypatch.setattr("backfill.files.reading.tempfile.TemporaryFile", full)
    line = complaint("export", server_62.url, folder / "x.json", code=2)
    assert "no room for a big key in " in line and list(folder.iterdir()) == []


# --- interrupted ---


def test_a_killed_export_leaves_no_file(server_62: Server, folder: Path) -> None:
    preload(server_62, 10_000, short_ttls=False)
    path = folder / "x.json"
    path.write_text("what was there")
    with subprocess.Popen([*CROSSFADE, "export", server_62.url, str(path)], cwd=ROOT) as process:
        until(lambda: (folder / "x.json.part").exists())
        process.send_signal(signal.SIGKILL)
    assert path.read_text() == "what was there"
    crossfade("export", server_62.url, path)
    assert [one.name for one in folder.iterdir()] == ["x.json"]
    assert len(json.loads(path.read_text())) == server_62.call("DBSIZE") + server_62.call("DBSIZE", db=1)


@pytest.mark.parametrize("flag", ["--skip-existing", pytest.param("--replace", marks=pytest.mark.slow)])
def test_a_killed_import_goes_on(flag: str, server_62: Server, server_91: Server, folder: Path) -> None:
    """Killed in the middle of a big key, which is not there afterwards, and whole in the end."""
    preload(server_62, 500, short_ttls=False, dbs=(0, 0))
    with server_62.client() as client:
        pipe = client.pipeline(transaction=False)
        for start in range(0, 60_000, 1000):
            pipe.hset("big", mapping={f"field {number}": "v" * 40 for number in range(start, start + 1000)})
        pipe.execute()
    path = folder / "x.jsonl"
    crossfade("export", server_62.url, path)
    scratch = big_keys.scratch_name(b"big").decode()
    for _ in range(20):
        with subprocess.Popen([*CROSSFADE, "import", str(path), server_91.url, flag], cwd=ROOT) as process:
            until(lambda: server_91.call("EXISTS", scratch) or process.poll() is not None)
            killed = process.poll() is None
            process.send_signal(signal.SIGKILL)
        if killed and server_91.call("EXISTS", scratch):
            break
        server_91.call("FLUSHALL")
    assert server_91.call("EXISTS", scratch) and not server_91.call("EXISTS", "big")
    crossfade("import", path, server_91.url, flag)
    assert_equal_servers(server_62, server_91)


def test_a_target_that_goes_away(start_server: Callable[..., Server], server_62: Server, folder: Path) -> None:
    preload(server_62, 3000, short_ttls=False)
    path = folder / "x.jsonl"
    crossfade("export", server_62.url, path)
    target = start_server("redis-7.0")
    command = [*CROSSFADE, "import", "-", target.url, "--format", "jsonl"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        data = path.read_bytes()
        process.stdin.write(data[: len(data) // 2])
        process.stdin.flush()
        until(lambda: target.call("DBSIZE"))
        target.stop()
        with suppress(BrokenPipeError):  # it may have ended already
            process.stdin.write(data[len(data) // 2 :])
            process.stdin.flush()
        with suppress(BrokenPipeError):
            process.stdin.close()
        said = process.stderr.read().decode()
        assert process.wait() == 3 and "lost the connection" in said and "run the same command again" in said, said


# --- while others write ---


def test_a_key_that_scan_returns_twice_is_exported_once() -> None:
    """As when the server's table shrinks; for a while, as memory is bounded."""
    recent = export_progress.Recent()
    assert recent.fresh([b"a", b"b", b"a"]) == [b"a", b"b"]
    assert recent.fresh([b"c", b"b"]) == [b"c"]
    for number in range(export_progress.RECENT_KEYS):
        recent.fresh([b"%d" % number])
    assert recent.fresh([b"a", b"99999"]) == []
    for number in range(export_progress.RECENT_KEYS, 2 * export_progress.RECENT_KEYS):
        recent.fresh([b"%d" % number])
    assert recent.fresh([b"a"]) == [b"a"], "forgotten"


def test_a_shrinking_table(server_62: Server, folder: Path) -> None:
    """Most keys go while the export scans: what stays is exported once each."""
    with server_62.client() as client:
        client.mset({f"stays:{number}": "v" for number in range(300)})
        client.mset({f"goes:{number}": "v" for number in range(20_000)})
        count = 0

        async def shrinking(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == 5:
                client.delete(*(f"goes:{number}" for number in range(20_000)))
            return await scan_page(*args, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("backfill.files.exporting.scan_page", shrinking)
            crossfade("export", server_62.url, folder / "x.jsonl")
    keys = [json.loads(line)["key"] for line in (folder / "x.jsonl").read_text().splitlines()]
    assert len(keys) == len(set(keys))
    assert {key for key in keys if key.startswith("stays")} == {f"stays:{number}" for number in range(300)}


def test_a_big_key_that_changes_while_it_is_read(server_62: Server, monkeypatch: Any) -> None:
    """Its length is another at the end: told. It became another type: read as that. It is gone: left out."""
    monkeypatch.setattr(reading, "BIG_BYTES", 1000)
    with server_62.client() as client:
        for name in (b"longer", b"other", b"gone"):
            client.rpush(name, *(b"item %d" % number for number in range(500)))

        def meddle() -> None:
            client.rpush("longer", "one more")
            client.delete("other", "gone")
            client.sadd("other", *range(500))

        async def main() -> dict[bytes, Any]:
            found = {}
            async with Client.open(parse_url(server_62.url)) as own:
                keys = reading.Keys(own, command_names(await own.call(b"COMMAND")))
                call = own.call

                async def watched(*args: bytes) -> Any:
                    if args[0] == b"LRANGE" and args[2] != b"0":
                        meddle()
                    return await call(*args)

                monkeypatch.setattr(own, "call", watched)
                monkeypatch.setattr(reading, "PAGE_ELEMENTS", 200)
                async for one in keys.read([b"longer", b"other", b"gone"], frozenset()):
                    assert isinstance(one, reading.Found)
                    found[one.head.key] = (one.head.kind, one.changed, len(list(one.items)))
                    one.close()
            return found

        found = trio.run(main)
    assert found == {b"longer": (b"list", True, 500), b"other": (b"set", False, 500)}


@pytest.mark.parametrize("memory", [True, False], ids=["MEMORY", "no MEMORY"])
def test_without_memory_usage_lengths_decide(memory: bool, start_server: Callable[..., Server], folder: Path) -> None:
    """Services forbid MEMORY; then a key of many elements is paged all the same."""
    source, target = start_server("redis-7.0"), start_server("redis-7.0")
    source.call("RPUSH", "list", *range(20_000))
    source.call("SET", "s", "v" * 2_000_000)
    if not memory:
        source.call("ACL", "SETUSER", "default", "-memory")
    crossfade("export", source.url, folder / "x.crossfade")
    with source.client() as client:
        reads = client.info("commandstats")["cmdstat_lrange"]["calls"]
    assert (reads == 1) is memory, reads
    crossfade("import", folder / "x.crossfade", target.url)
    assert_equal_servers(source, target)


def test_keys_that_may_not_be_read_are_told(start_server: Callable[..., Server], folder: Path) -> None:
    source = start_server("redis-7.0")
    source.call("MSET", "public:1", "v", "public:2", "v", "secret", "v")
    source.call("ACL", "SETUSER", "reader", "on", ">pass", "~public:*", "+@all")
    result = crossfade("export", f"redis://reader:pass@127.0.0.1:{source.port}", folder / "x.jsonl", code=1)
    first, second, third = result.stdout.splitlines()
    assert first.startswith("2 keys exported (2 string), ") and second == "1 keys could not be read:"
    assert third.startswith("  'secret': NOPERM"), result.stdout


# --- tables, and files of others ---


def test_a_table(server_91: Server, folder: Path) -> None:
    path = folder / "beers.csv"
    path.write_text("row,abv,id,name\n1,0.079,321,Fireside Chat (2010)\n2,,173,Back in Black\n")
    crossfade("import", path, server_91.url, "--key", "beer:{id}")
    assert server_91.call("HGETALL", "beer:173") == [b"row", b"2", b"id", b"173", b"name", b"Back in Black"]
    assert server_91.call("HGET", "beer:321", "abv") == b"0.079"


def test_a_file_of_riot(server_91: Server, folder: Path) -> None:
    path = folder / "riot.json"
    later = int(time.time() * 1000) + HOUR_MS
    path.write_text(
        '[\n {"key":"gen:83","event":"scan","timestamp":1730880592559,"type":"zset","ttl":-1,"value":'
        '[{"value":"59","score":23.050024732539455},{"value":"66","score":40.63260344413271}]},\n'
        ' {"key":"gen:45","event":"scan","timestamp":1730880592559,"type":"set","ttl":-1,"value":["88","89"]},\n'
        f' {{"key":"gen:19","event":"scan","timestamp":1730880592559,"type":"string","ttl":{later},"value":"7CWo"}},\n'
        ' {"key":"list:1","ttl":60000,"value":["member:991","member:981"],"type":"LIST"},\n'
        ' {"key":"gen:7","time":"2024-11-06T08:23:12.559Z","type":"hash","value":{"field1":"a","field2":"b"}},\n'
        ' {"key":"stream:0","ttl":-1,"value":[{"stream":"stream:0","id":"1602190921109-0","body":{"field1":"value0"}}],'
        '"type":"STREAM"}\n]'
    )
    crossfade("import", path, server_91.url)
    with server_91.client() as client:
        assert client.zscore("gen:83", "59") == 23.050024732539455
        assert client.smembers("gen:45") == {b"88", b"89"}
        assert client.get("gen:19") == b"7CWo" and client.pexpiretime("gen:19") == later
        assert client.lrange("list:1", 0, -1) == [b"member:991", b"member:981"] and 0 < client.pttl("list:1") <= 60_000
        assert client.hgetall("gen:7") == {b"field1": b"a", b"field2": b"b"} and client.ttl("gen:7") == -1
        assert client.xrange("stream:0") == [(b"1602190921109-0", {b"field1": b"value0"})]


# --- size ---


# The most memory that the process ever had, and not, as ru_maxrss, its parent when it forked.
PEAK = """
import crossfade, re, sys
try:
    crossfade.main()
finally:
    sys.stderr.write(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def peak_kb(*args: str | Path) -> int:
    command = [sys.executable, "-c", PEAK, *map(str, args)]
    end = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert end.returncode == 0, end.stderr
    return int(end.stderr)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("form", FORMS)
def test_memory_does_not_grow_with_the_key(form: str, start_server: Callable[..., Server], folder: Path) -> None:
    """A hash and a sorted set of 200,000 elements: some 100 MB, if they were objects."""
    source, target = start_server("redis-7.0"), start_server("valkey-9.1")
    path = folder / f"x{SUFFIXES[form]}"
    little = peak_kb("export", source.url, path)
    with source.client() as client:
        for start in range(0, 200_000, 20_000):
            numbers = range(start, start + 20_000)
            client.hset("hash", mapping={f"field {number}": "v" * 50 for number in numbers})
            client.zadd("zset", {f"member {number}": number / 7 for number in numbers})
    assert peak_kb("export", source.url, path) < little + 25_000
    assert peak_kb("import", path, target.url) < little + 25_000
    assert_equal_servers(source, target)


TIMES_HELD = {"json": 13.0, "jsonl": 13.0, "csv": 9.5, "xml": 5.5, "lossless": 1.0}  # by an import


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("form", FORMS)
def test_memory_for_one_long_string(
    form: str, start_server: Callable[..., Server], folder: Path, record_property: Callable[[str, object], None]
) -> None:
    """As docs/files.md says it."""
    source, target = start_server("redis-7.0"), start_server("valkey-9.1")
    path, size = folder / f"x{SUFFIXES[form]}", 30_000_000
    little = peak_kb("export", source.url, path)
    source.call("SET", "long", Random(1).randbytes(size))
    peaks = [peak_kb(*args) - little for args in (("export", source.url, path), ("import", path, target.url))]
    times = [1000 * peak / size for peak in peaks]
    record_property(f"a string in {form}", "export {:.1f}, import {:.1f} times its size".format(*times))
    assert times[0] < 5.5 and times[1] < TIMES_HELD[form], times
    assert_equal_servers(source, target)
