"""Readiness checks: one real request to each server over a raw socket."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from .ports import HOST


class NotReady(Exception):
    """The server did not answer a request correctly."""


class _Wire:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise NotReady("it closed the connection")
        return data

    def line(self) -> bytes:
        data = self._file.readline(65_536)
        if not data.endswith(b"\n"):
            raise NotReady("it closed the connection")
        return data.rstrip(b"\r\n")

    def close(self) -> None:
        self._file.close()


@contextmanager
def _connected(port: int, timeout: float) -> Iterator[_Wire]:
    try:
        with socket.create_connection((HOST, port), timeout) as sock:
            sock.settimeout(timeout)
            wire = _Wire(sock)
            try:
                yield wire
            finally:
                wire.close()
    except OSError as error:
        raise NotReady(str(error) or type(error).__name__) from error
    except (struct.error, ValueError, IndexError) as error:
        raise NotReady(f"unexpected answer: {error}") from error


def redis(port: int, timeout: float) -> None:
    """Check that PING is answered with PONG, which it is not while data are loading."""
    with _connected(port, timeout) as wire:
        wire.send(b"PING\r\n")
        if (answer := wire.line()) != b"+PONG":
            raise NotReady(answer.decode(errors="replace"))


def redis_config(port: int, name: str, value: str) -> None:
    """Set a configuration value with CONFIG SET."""
    with _connected(port, 5.0) as wire:
        wire.send(f"CONFIG SET {name} {value}\r\n".encode())
        if (answer := wire.line()) != b"+OK":
            raise NotReady(answer.decode(errors="replace"))


def nats(port: int, timeout: float) -> None:
    """Check that a client can connect and that JetStream reports the state of its account."""
    with _connected(port, timeout) as wire:
        if not wire.line().startswith(b"INFO "):
            raise NotReady("no INFO")
        wire.send(b'CONNECT {"verbose":false}\r\nPING\r\n')
        if (answer := wire.line()) != b"PONG":
            raise NotReady(answer.decode(errors="replace"))
        wire.send(b"SUB _INBOX.ready 1\r\nPUB $JS.API.INFO _INBOX.ready 0\r\n\r\n")
        head = wire.line().split()
        if not head or head[0] != b"MSG":
            raise NotReady("JetStream does not answer")
        if "error" in json.loads(wire.read(int(head[-1]))):
            raise NotReady("JetStream answers with an error")


def rabbitmq(port: int, timeout: float) -> None:
    """Check that the AMQP 0-9-1 handshake as guest reaches connection.open-ok."""
    with _connected(port, timeout) as wire:
        wire.send(b"AMQP\x00\x00\x09\x01")
        _method(wire, 10)
        _call(
            wire,
            11,
            struct.pack(">I", 0) + _short(b"PLAIN") + _long(b"\0guest\0guest") + _short(b"en_US"),
        )
        channels, frame, _ = struct.unpack(">HIH", _method(wire, 30))
        _call(wire, 31, struct.pack(">HIH", channels, frame, 0))
        _call(wire, 40, _short(b"/") + b"\0\0")
        _method(wire, 41)
        _call(wire, 50, struct.pack(">H", 200) + _short(b"") + struct.pack(">HH", 0, 0))
        _method(wire, 51)


def kafka(port: int, timeout: float) -> None:
    """Check that ApiVersions is answered and that Metadata names at least one broker."""
    with _connected(port, timeout) as wire:
        error, count = struct.unpack_from(">hi", _request(wire, 18, 0, b""))
        if error or count < 1:
            raise NotReady(f"ApiVersions: error {error}")
        no_topics, no_creation = struct.pack(">i", 0), b"\0"
        _throttle, brokers = struct.unpack_from(
            ">ii", _request(wire, 3, 4, no_topics + no_creation)
        )
        if brokers < 1:
            raise NotReady("no broker is registered yet")


def _short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _long(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def _call(wire: _Wire, method: int, arguments: bytes) -> None:
    payload = struct.pack(">HH", 10, method) + arguments
    wire.send(struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce")


def _method(wire: _Wire, method: int) -> bytes:
    kind, _channel, size = struct.unpack(">BHI", wire.read(7))
    payload = wire.read(size + 1)[:-1]
    found = struct.unpack_from(">HH", payload)
    if kind != 1 or found != (10, method):
        raise NotReady(f"AMQP method {found} instead of (10, {method})")
    return payload[4:]


def _request(wire: _Wire, api: int, version: int, body: bytes) -> bytes:
    client = b"anymq-brokers"
    message = struct.pack(">hhih", api, version, 1, len(client)) + client + body
    wire.send(struct.pack(">i", len(message)) + message)
    (size,) = struct.unpack(">i", wire.read(4))
    answer = wire.read(size)
    (correlation,) = struct.unpack_from(">i", answer)
    if correlation != 1:
        raise NotReady("answers another request")
    return answer[4:]
