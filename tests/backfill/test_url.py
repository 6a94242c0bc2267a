"""URLs: what they mean, that they come back without secrets, and that a bad one says what to do."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill.url import Url, UrlError, parse_url

MEANINGS = {
    "redis://localhost": Url(host="localhost"),
    "valkey://h:1/2": Url(host="h", port=1, db=2),
    "REDIS://h/": Url(host="h"),
    "redis://h:7000?db=3": Url(host="h", port=7000, db=3),
    "redis://[::1]:7000/1": Url(host="::1", port=7000, db=1),
    "redis://[fe80::1]": Url(host="fe80::1"),
    "redis://:pw@h": Url(host="h", password="pw"),
    "redis://pw@h": Url(host="h", password="pw"),
    "redis://bob:pw@h": Url(host="h", user="bob", password="pw"),
    "redis://bob:@h": Url(host="h", user="bob"),
    "redis://b%40b:p%2Fw%3A%25@h": Url(host="h", user="b@b", password="p/w:%"),
    "redis://:a/b+c=@h:6380": Url(host="h", port=6380, password="a/b+c="),
    "redis://u:p@w@h": Url(host="h", user="u", password="p@w"),
    "rediss://h:6380": Url(host="h", port=6380, tls=True),
    "rediss://h?ca=%2Fa%20b&cert=c&key=k": Url(host="h", tls=True, ca_file="/a b", cert_file="c", key_file="k"),
    "rediss://h?server_name=n&insecure=true": Url(host="h", tls=True, server_name="n", insecure=True),
    "valkeys://h?insecure": Url(host="h", tls=True, insecure=True),
    "rediss://h?insecure=no": Url(host="h", tls=True),
    "rediss://h?ca=/home/me@work/ca.pem": Url(host="h", tls=True, ca_file="/home/me@work/ca.pem"),
    "unix:///run/redis.sock": Url(path="/run/redis.sock"),
    "unix://bob:pw@/run/redis.sock?db=4": Url(path="/run/redis.sock", user="bob", password="pw", db=4),
    " redis://h\n": Url(host="h"),
}


@pytest.mark.parametrize("text", MEANINGS)
def test_what_a_url_means(text: str) -> None:
    assert parse_url(text) == MEANINGS[text]


MISTAKES = {
    "": "not a server URL",
    "localhost:6379": "not a server URL",
    "http://h": "unknown scheme http://",
    "redis://": "no host",
    "redis://:6379": "no host",
    "redis://h:0": "port",
    "redis://h:70000": "port",
    "redis://h:²": "port",
    "redis://:s3cret\udcff@h": "UTF-8",
    "redis://:s3cret%FF@h": "UTF-8",
    "redis://h:6379x": "port",
    "redis://::1": "brackets",
    "redis://[::1": "brackets",
    "redis://[::1]6379": "brackets",
    "redis://h/x": "the db",
    "redis://h/-1": "the db",
    "redis://h/1?db=2": "given twice",
    "redis://h?timeout=5": "it may have db, ca, cert, key, server_name, insecure",
    "redis://h?ca=x": "need TLS",
    "redis://h?insecure=1": "need TLS",
    "rediss://h?key=x": "certificate",
    "rediss://h?insecure=perhaps": "true or false",
    "unix://redis.sock": "absolute path",
    "h.redis.cache.windows.net:6380,password=s3cret,ssl=True": "connection string",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_what_a_url_must_not_be(text: str) -> None:
    with pytest.raises(UrlError, match=MISTAKES[text]) as caught:
        parse_url(text)
    assert caught.value.text == str(caught.value)
    assert "\n" not in caught.value.text
    assert "s3cret" not in caught.value.text


def test_text_forms() -> None:
    assert str(Url(host="h")) == "redis://h:6379/0"
    assert str(Url(host="::1", tls=True, db=1, user="b@b", password="pw")) == "rediss://b%40b:***@[::1]:6379/1"
    assert str(Url(path="/a", password="pw", db=2)) == "unix://:***@/a?db=2"
    assert repr(Url(host="h", password="pw")) == "Url('redis://:***@h:6379/0')"
    assert Url(host="::1").address == "[::1]:6379"
    assert Url(path="/a").address == "/a"


def test_another_db() -> None:
    assert parse_url("rediss://h/1?ca=a").with_db(7) == parse_url("rediss://h/7?ca=a")


names = st.text(st.characters(min_codepoint=33, exclude_categories=["Cs"]), min_size=1)


@given(user=names, password=names, db=st.integers(0, 10**8), port=st.integers(1, 65535), quoted=st.booleans())
def test_any_credentials_survive_and_never_show(user: str, password: str, db: int, port: int, quoted: bool) -> None:
    password = "*secret*" + password
    url = parse_url(f"redis://{quote(user, safe='')}:{quote(password, safe='')}@some.host:{port}/{db}")
    assert url == Url(host="some.host", port=port, db=db, user=user, password=password)
    assert "secret" not in f"{url} {url!r} {url.address}"


@given(st.text())
def test_any_text_is_a_url_or_a_clear_error(text: str) -> None:
    for prefix in ("", "redis://", "rediss://", "unix://", "redis://s3cret@", "redis://u:s3cret@h:"):
        try:
            shown = repr(parse_url(prefix + text))
        except UrlError as error:
            shown = error.text
        if "s3cret" not in text:
            assert "s3cret" not in shown
