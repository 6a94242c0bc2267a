"""Owns how a TLS connection to a server is set up, and what its failures are called. Part of the door `dial`."""

from __future__ import annotations

import socket
import ssl

from .errors import ConnectError
from .url import Url
from .wire import TlsWire

# What OpenSSL calls it (the `reason` of an SSLError, which has no stable number in Python) -> what to do about it.
REASONS = {
    "WRONG_VERSION_NUMBER": "the server does not speak TLS on this port (redis:// instead of rediss://?)",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the server wants a client certificate: give cert=FILE and key=FILE",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the server refused the handshake (no client certificate: cert=FILE, key=FILE?)",
    "TLSV1_ALERT_UNKNOWN_CA": "the server does not trust the client certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the server refused the client certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the server refused the client certificate",
    "UNSUPPORTED_PROTOCOL": "the server offers only TLS versions that are no longer safe",
}


def make_context(url: Url) -> ssl.SSLContext:
    """The TLS settings that the URL asks for. Errors: ConnectError when a file cannot be used."""
    context = ssl.create_default_context()
    if url.ca_file:
        _load(context.load_verify_locations, "CA file", url.ca_file)
    if url.cert_file:
        _load(context.load_cert_chain, "client certificate", url.cert_file, url.key_file or None)
    if url.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def start_tls(sock: socket.socket, url: Url) -> TlsWire:
    """TLS over a connected socket. Errors: ConnectError; the caller closes the socket."""
    wire = TlsWire(sock, make_context(url), url.server_name or url.host)
    try:
        await wire.handshake()
    except ConnectionResetError:
        raise ConnectError("tls", f"{url.address} hung up during the TLS handshake (is it a TLS port?)") from None
    except ssl.SSLError as error:
        raise tls_error(url, error) from None
    return wire


def tls_error(url: Url, error: ssl.SSLError) -> ConnectError:
    """The failure in one line that says what to do."""
    return ConnectError("tls", f"no TLS connection to {url.address}: {_explain(url, error)}")


def _explain(url: Url, error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        name = url.server_name or url.host
        if "mismatch" in error.verify_message.lower():
            return f"the certificate is for another name than {name}: give server_name=NAME"
        return f"the certificate is not trusted ({error.verify_message}): give the authority's certificate as ca=FILE"
    reason = error.reason or ""
    return REASONS.get(reason, reason.lower().replace("_", " ") or "the handshake failed")


def _load(load: object, what: str, path: str, *more: str | None) -> None:
    assert callable(load)
    try:
        load(path, *more)
    except ssl.SSLError:
        raise ConnectError("tls", f"the {what} {path} is not usable (PEM expected, and the key must fit)") from None
    except OSError as error:
        raise ConnectError("tls", f"cannot read the {what} {path} (or its key): {error.strerror}") from None
