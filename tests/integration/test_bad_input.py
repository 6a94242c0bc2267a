"""What goes wrong at an operator's desk or on a client's wire: one clear line that says what to do, the right exit
code, never a traceback, no secret anywhere, and nothing lost."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backfill.embedded import free_port
from tests.equality import assert_equal_servers
from tests.proxies import Result, RunningProxy, run_crossfade, until
from tests.servers import Server

USAGE, CONNECT, REFUSED = 2, 3, 4
MB = 1024 * 1024
SECRET = "s3cr:et/p@ss"
QUOTED = "s3cr%3Aet%2Fp%40ss"
_LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ (INFO|WARNING) ")


def complaint(result: Result, code: int) -> str:
    """The one line of a command that failed as it should. Log lines may stand before it."""
    assert result.code == code, str(result)
    assert "Traceback" not in result.err and not result.out, str(result)
    assert SECRET not in result.err and QUOTED not in result.err, str(result)
    lines = [line for line in result.err.splitlines() if line.strip() and not _LOG_LINE.match(line)]
    if code == USAGE and lines[0].startswith("Usage: "):  # click's own form: two lines of help before it
        lines = lines[2:]
        assert lines[0].startswith("Error: "), str(result)
    else:
        assert lines[0].startswith("crossfade: "), str(result)
    assert len(lines) == 1, str(result)
    return lines[0]


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def refuse(state_dir: Path) -> Callable[..., str]:
    """`refuse(code, source, target, *options)`: the line with which `crossfade proxy` ends."""

    def start(code: int, source: str, target: str, *options: str) -> str:
        given = {name for name in options if name.startswith("--")}
        defaults = [
            word
            for name, value in (("--listen", "127.0.0.1:0"), ("--state-dir", str(state_dir)))
            if name not in given
            for word in (name, value)
        ]
        urls = {"CROSSFADE_SOURCE": source, "CROSSFADE_TARGET": target}
        return complaint(run_crossfade("proxy", *defaults, *options, env=urls), code)

    return start


# --- the servers ---


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("127.0.0.1:6379", "redis://"),
        (f"http://user:{QUOTED}@127.0.0.1:6379", "redis://"),
        (f"redis://:{QUOTED}@127.0.0.1:99999", "port"),
        (f"redis://:{QUOTED}@127.0.0.1:6379/zero", "db"),
        (f"redis://:{QUOTED}@127.0.0.1:6379?ca=/some/file", "rediss://"),
        ("", "redis://"),
    ],
)
@pytest.mark.parametrize("which", ["source", "target"])
def test_a_wrong_url(refuse: Callable[..., str], which: str, url: str, says: str) -> None:
    good = "redis://127.0.0.1:1"
    urls = (url, good) if which == "source" else (good, url)
    line = refuse(USAGE, *urls)
    if url:
        assert says in line and f"--{which}" in line


def test_different_dbs(refuse: Callable[..., str]) -> None:
    assert "same db" in refuse(USAGE, "redis://127.0.0.1:1/0", "redis://127.0.0.1:2/1")


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:99999", "127.0.0.1:-1", "no-such-host.invalid:0"])
def test_a_wrong_address_to_listen_on(refuse: Callable[..., str], server_62: Server, listen: str) -> None:
    line = refuse(
        REFUSED if "invalid" in listen else USAGE,
        server_62.url,
        f"redis://127.0.0.1:{free_port()}",
        "--listen",
        listen,
        "--no-auth",
    )
    assert listen.removesuffix(":0") in line


def test_a_source_that_is_not_there(refuse: Callable[..., str], server_91: Server) -> None:
    port = free_port()
    line = refuse(CONNECT, f"redis://:{QUOTED}@127.0.0.1:{port}", server_91.url)
    assert f"127.0.0.1:{port}" in line and "refused" in line


def test_a_host_that_is_not_there(refuse: Callable[..., str], server_91: Server) -> None:
    assert "no-such-host.invalid" in refuse(CONNECT, "redis://no-such-host.invalid", server_91.url)


def test_a_source_that_does_not_answer(refuse: Callable[..., str], server_62: Server, server_91: Server) -> None:
    server_62.pause()
    line = refuse(CONNECT, server_62.url, server_91.url)
    assert f"127.0.0.1:{server_62.port}" in line and "within" in line


@pytest.mark.parametrize("which", ["source", "target"])
def test_a_wrong_password(
    refuse: Callable[..., str], start_server: Callable[..., Server], server_91: Server, which: str
) -> None:
    locked = start_server("redis-6.2", password=SECRET)
    for login in ("", f":{QUOTED}x@", f"nobody:{QUOTED}@"):
        url = f"redis://{login}127.0.0.1:{locked.port}"
        line = refuse(CONNECT, *((url, server_91.url) if which == "source" else (server_91.url, url)))
        assert "password" in line and f"127.0.0.1:{locked.port}" in line
    # And one that nobody asked for: the operator believes that the server is protected.
    url = f"redis://:{QUOTED}@127.0.0.1:{server_91.port}"
    line = refuse(CONNECT, *((url, locked.url) if which == "source" else (locked.url, url)))
    assert "no password set" in line


def test_a_target_that_is_not_empty(
    refuse: Callable[..., str],
    start_proxy: Callable[..., RunningProxy],
    server_62: Server,
    server_91: Server,
) -> None:
    server_62.call("SET", "kept", "source")
    server_91.client().mset({f"old:{number}": number for number in range(1234)})
    server_91.call("SET", "old", "x", db=3)
    line = refuse(REFUSED, server_62.url, server_91.url)
    assert "1,235 keys" in line and "--allow-non-empty" in line and f"127.0.0.1:{server_91.port}" in line
    assert server_91.call("DBSIZE") == 1234, "it is only asked for, nothing is deleted"
    proxy = start_proxy(server_62, server_91, "--allow-non-empty")
    assert proxy.backfill()["extra"] == 1235
    proxy.verify()
    assert_equal_servers(server_62, server_91)
    assert server_91.call("GET", "kept") == b"source"


def test_the_same_server_twice(refuse: Callable[..., str], server_62: Server) -> None:
    line = refuse(REFUSED, server_62.url, server_62.url.replace("127.0.0.1", "localhost"))
    assert "same server" in line
    server_62.call("SET", "k", "v")
    line = refuse(REFUSED, server_62.url, server_62.url)
    assert "same server" in line, "not: empty it"
    assert server_62.call("GET", "k") == b"v"


# --- the proxy's own places ---


def test_a_port_that_is_taken(refuse: Callable[..., str], server_62: Server, server_91: Server) -> None:
    line = refuse(REFUSED, server_62.url, server_91.url, "--listen", f"127.0.0.1:{server_62.port}")
    assert f"127.0.0.1:{server_62.port}" in line and "--listen" in line


def test_a_metrics_port_that_is_taken(refuse: Callable[..., str], server_62: Server, server_91: Server) -> None:
    line = refuse(REFUSED, server_62.url, server_91.url, "--http", f"127.0.0.1:{server_62.port}")
    assert f"127.0.0.1:{server_62.port}" in line and "--http" in line


def test_open_to_everybody(
    refuse: Callable[..., str], start_proxy: Callable[..., RunningProxy], server_62: Server, server_91: Server
) -> None:
    line = refuse(REFUSED, server_62.url, server_91.url, "--listen", "0.0.0.0:0")
    assert "0.0.0.0" in line and "password" in line and "--no-auth" in line
    proxy = start_proxy(server_62, server_91, "--no-auth", host="0.0.0.0")
    assert proxy.client(host="127.0.0.1").ping()


def test_a_state_directory_in_use(
    refuse: Callable[..., str], start_proxy: Callable[..., RunningProxy], server_62: Server, server_91: Server
) -> None:
    proxy = start_proxy(server_62, server_91)
    line = refuse(USAGE, server_62.url, server_91.url, "--state-dir", str(proxy.state_dir))
    assert str(proxy.state_dir) in line and "another proxy" in line and "--state-dir" in line
    assert proxy.client().set("k", "v"), "the first one goes on"
    assert proxy.status()["serving"] == "source", "and keeps its admin socket"


def test_a_state_directory_of_other_servers(
    refuse: Callable[..., str], server_62: Server, server_91: Server, server_82: Server
) -> None:
    with RunningProxy(server_62, server_91) as proxy:
        proxy.stop()
        line = refuse(USAGE, server_62.url, server_82.url, "--state-dir", str(proxy.state_dir))
        assert f"127.0.0.1:{server_82.port}" in line and f"127.0.0.1:{server_91.port}" in line
        assert "--state-dir" in line
        line = refuse(USAGE, server_91.url, server_62.url, "--state-dir", str(proxy.state_dir))
        assert "--state-dir" in line
        proxy.start()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe\x00",
        b'{"format": 99}',
        b'{"format": 1, "source": "redis://x", "target": "redis://y", "serving": "nobody"}',
        b'{"format": 1, "source": 5, "target": null, "epoch": "many"}',
        b'{"format": 1, "unheard-of": true}',
    ],
)
def test_a_damaged_state_file(
    refuse: Callable[..., str], server_62: Server, server_91: Server, state_dir: Path, content: bytes
) -> None:
    state_dir.mkdir()
    (state_dir / "state.json").write_bytes(content)
    line = refuse(USAGE, server_62.url, server_91.url)
    assert "state.json" in line or "state directory" in line
    assert (state_dir / "state.json").read_bytes() == content, "whoever wants to look into it still can"


def test_a_state_directory_that_cannot_be_used(
    refuse: Callable[..., str], server_62: Server, server_91: Server, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert "--state-dir" in refuse(USAGE, server_62.url, server_91.url, "--state-dir", str(tmp_path / "file"))
    line = refuse(USAGE, server_62.url, server_91.url, "--state-dir", str(tmp_path / "file" / "below"))
    assert str(tmp_path / "file" / "below") in line
    line = refuse(USAGE, server_62.url, server_91.url, "--state-dir", str(tmp_path / ("long" * 30)))
    assert "too long" in line and "--state-dir" in line


# --- the other commands ---


@pytest.mark.parametrize(
    "command",
    [["status"], ["status", "--json"], ["backfill"], ["verify"], ["flip"], ["flip", "--force", "--yes"], ["stop"]],
    ids=" ".join,
)
def test_no_proxy_is_running(state_dir: Path, command: list[str]) -> None:
    line = complaint(run_crossfade(*command, "--state-dir", str(state_dir)), CONNECT)
    assert "no proxy is running" in line and str(state_dir) in line and "--state-dir" in line
    assert not state_dir.exists()


def test_a_proxy_that_was_killed(
    start_proxy: Callable[..., RunningProxy], server_62: Server, server_91: Server
) -> None:
    proxy = start_proxy(server_62, server_91)
    proxy.kill()
    assert proxy.admin_socket.exists()
    line = complaint(proxy.cli("status"), CONNECT)
    assert "no proxy is running" in line, "and not: does not answer, try again"


@pytest.mark.parametrize(
    "command",
    [
        ["backfill", "--rate", "fast"],
        ["backfill", "--rate", "-1"],
        ["flip", "--max-pause", "0"],
        ["verify", "--tolerance", "-1"],
        ["verify", "--unheard-of"],
        ["unheard-of"],
    ],
    ids=" ".join,
)
def test_wrong_options(command: list[str], tmp_path: Path) -> None:
    complaint(run_crossfade(*command, env={"CROSSFADE_STATE_DIR": str(tmp_path)}), USAGE)


def test_the_admin_socket(start_proxy: Callable[..., RunningProxy], server_62: Server, server_91: Server) -> None:
    proxy = start_proxy(server_62, server_91)
    assert proxy.admin_socket.stat().st_mode & 0o777 == 0o600
    assert proxy.state_dir.stat().st_mode & 0o777 == 0o700

    def ask(data: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(os.fspath(proxy.admin_socket))
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    assert ask(b"NONSENSE\r\n").startswith(b"-ERR unknown admin command")
    assert ask(b"BACKFILL RATE\r\n").startswith(b"-ERR RATE wants a value")
    assert ask(b"FLIP MAX-PAUSE soon\r\n").startswith(b"-ERR MAX-PAUSE wants a number")
    assert ask(b"FLIP MAX-PAUSE nan\r\n").startswith(b"-ERR MAX-PAUSE wants a number")
    assert ask(b"VERIFY TOLERANCE inf\r\n").startswith(b"-ERR TOLERANCE wants a number")
    assert ask(b"*1\r\n:5\r\n").startswith(b"-ERR Protocol error")
    assert ask(b"*1\r\n$-5\r\n").startswith(b"-ERR Protocol error")
    assert ask(b"\xff\xfe\r\n").startswith(b"-ERR unknown admin command")
    assert ask(b"") == b""
    assert ask(b"PING\r\n") == b"+PONG\r\n"


# --- the clients ---

MALFORMED = {
    "not a bulk": b"*1\r\n:5\r\n",
    "a nested array": b"*1\r\n*1\r\n$4\r\nPING\r\n",
    "a negative bulk": b"*1\r\n$-2\r\n",
    "a huge bulk": b"*1\r\n$99999999999\r\n",
    "a huge count": b"*99999999999\r\n",
    "no number": b"*x\r\n",
    "no count of bytes": b"*1\r\n$x\r\n",
    "an inline command that never ends": b"GET " + b"x" * 70_000,
    "a count that never ends": b"*" + b"1" * 70_000,
    "quotes": b'SET k "unbalanced\r\n',
    "something after a good command": b"*1\r\n$4\r\nPING\r\n*1\r\nPING\r\n",
}


def conversation(port: int, data: bytes) -> bytes:
    """Everything that is said in answer, until the other side hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        received = b""
        try:
            while more := connection.recv(65536):
                received += more
        except ConnectionResetError:  # it hung up with bytes of ours unread
            pass
        return received


def test_malformed_bytes(start_proxy: Callable[..., RunningProxy], server_70: Server, server_91: Server) -> None:
    """The same words as the server's, and only this client is disconnected."""
    proxy = start_proxy(server_70, server_91)
    other = proxy.client()
    other.set("k", "v")
    blocked = proxy.client(single_connection_client=True)
    for what, data in MALFORMED.items():
        wanted = conversation(server_70.port, data)
        assert wanted.split(b"\r\n")[-2].startswith(b"-ERR Protocol error"), what
        assert conversation(proxy.port, data) == wanted, what
        assert other.incr("count") and blocked.ping()
    until(lambda: proxy.status()["clients"] == 2, "the malformed ones are gone")
    proxy.wait_settled()
    assert server_91.call("GET", "count") == b"%d" % len(MALFORMED)


def test_http_and_tls_on_the_clients_port(
    start_proxy: Callable[..., RunningProxy], server_62: Server, server_91: Server
) -> None:
    """A browser is hung up on, as Redis does: a page could make it send commands. TLS is merely not understood."""
    proxy = start_proxy(server_62, server_91)
    post = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\nSET hacked 1\r\n"
    conversation(proxy.port, post)
    conversation(proxy.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nSET hacked 1\r\n")
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\nSET hacked 1\r\n")
    until(lambda: proxy.status()["clients"] == 0, "they are gone")
    assert proxy.client().get("hacked") is None


def test_a_client_that_leaves_in_the_middle(
    start_proxy: Callable[..., RunningProxy], server_62: Server, server_91: Server
) -> None:
    proxy = start_proxy(server_62, server_91)
    for data in (
        b"*2\r\n$3\r\nGET\r\n$100",
        b"*1\r\n$5\r\nMULTI\r\n",
        b"SUBSCRIBE c\r\n",
        b"BLPOP list 0\r\n",
        b"\r\n",
    ):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
            connection.sendall(data)
    # In the middle of a bulk that is complete but for its last byte, a write never happened.
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as connection:
        connection.sendall(b"SET whole 1\r\n*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$1\r\n1")
        assert connection.recv(100) == b"+OK\r\n"
    until(lambda: (now := proxy.status())["clients"] == now["waiting"] == now["pinned"] == 0, "nobody is left")
    client = proxy.client()
    assert (client.get("whole"), client.get("half")) == (b"1", None)
    client.rpush("list", "not taken by the dead")
    assert client.llen("list") == 1


def test_a_client_that_never_reads(
    start_proxy: Callable[..., RunningProxy], server_62: Server, server_91: Server
) -> None:
    """It gets back-pressure: what nobody reads is neither fetched for ever, before the others' turn, nor kept."""
    proxy = start_proxy(server_62, server_91)
    client = proxy.client(socket_timeout=30)
    client.set("big", b"x" * 1_000_000)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as deaf:
        deaf.sendall(b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n" * 2000)
        for number in range(100):
            assert client.incr("count") == number + 1
        fetched = server_62.client().info("stats")["total_net_output_bytes"]
        rss = int(Path(f"/proc/{proxy.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert rss < 600 * MB, "2 GB are owed to the one who does not read"
    assert fetched < 600 * MB, "the others waited until 2 GB were fetched for the one who does not read"


# --- secrets ---


def test_secrets_are_nowhere(
    start_server: Callable[..., Server], start_proxy: Callable[..., RunningProxy], tmp_path: Path
) -> None:
    a, b = start_server("redis-6.2", password=SECRET), start_server("valkey-9.1", password=SECRET + "2")
    proxy = start_proxy(a, b)
    with proxy.client(password=SECRET) as client:
        client.set("k", "v")
    for name in ("status", "status --json", "backfill", "verify", "flip"):
        result = proxy.cli(*name.split()).done()
        for word in (SECRET, QUOTED):
            assert word not in result.out + result.err, name
    with pytest.raises(AssertionError):
        proxy.cli("flip", "--unheard-of").done()
    b.kill()
    until(lambda: not proxy.status()["source" if proxy.status()["serving"] == "source" else "target"]["connected"])
    seen = [proxy.log, str(proxy.status()), *process_table(), *(read(path) for path in proxy.state_dir.iterdir())]
    for word in (SECRET, QUOTED):
        assert not [text for text in seen if word in text]


def test_secrets_on_the_command_line_do_not_stay_there(
    server_91: Server, start_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Whoever gives them there all the same shows them for as long as it takes to start, not for weeks."""
    seen = "seen-while-it-starts"  # not the others' password: theirs must not be seen at any time
    a = start_server("redis-6.2", password=seen)
    with RunningProxy("", "", "--source", a.url, "--target", server_91.url) as proxy:
        assert proxy.client(password=seen).ping()
        assert not [text for text in process_table() if seen in text]
        assert any(f"127.0.0.1:{a.port}" in text for text in process_table()), "still to be told from another one"


def process_table() -> Iterator[str]:
    yield from subprocess.run(
        ["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()


def read(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
