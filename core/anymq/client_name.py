"""`client_name`: the readable, unique name of a connection, which brokers and operators see."""

from __future__ import annotations

import os
import re
import socket

DEFAULT_NAME = "anymq"
"""The name of a client that has none."""
MAX_PART = 63
"""The most characters of the application's and of the host's name: those of a DNS label."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._]+")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_RANDOM_CHARACTERS = 8


def client_name(name: str | None) -> str:
    """Return `NAME-HOST-PID-RANDOM`, in characters that every broker accepts in a name.

    Characters other than A-Z a-z 0-9 . _ become hyphens. The host is the first label of its name.
    The random part tells processes apart that have the same host and number, as the first process
    of a container has after each restart.
    """
    host = socket.gethostname().partition(".")[0]
    random = "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in os.urandom(_RANDOM_CHARACTERS))
    return f"{_safe(name, DEFAULT_NAME)}-{_safe(host, 'host')}-{os.getpid()}-{random}"


def _safe(text: str | None, otherwise: str) -> str:
    return _UNSAFE.sub("-", text or "").strip("-._")[:MAX_PART].rstrip("-._") or otherwise
