"""The ports of an instance: fixed for `main`, for others free ports that are then kept."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Mapping
from pathlib import Path

from . import state
from .errors import BrokersError

HOST = "127.0.0.1"
# Below the kernel's range for outgoing connections, so that no client connection occupies the
# port of a stopped server.
_RANGE = range(20_000, 30_000)


def resolve(name: str, instance: str, defaults: Mapping[str, int]) -> dict[str, int]:
    """Return the ports of a server by role; free ones are picked once and stored."""
    if instance == state.MAIN:
        return {role: _override(name, role, port) for role, port in defaults.items()}
    file = state.states() / instance / name / "ports.json"
    known = _read(file)
    if known.keys() == defaults.keys():
        return known
    with state.locked(state.states() / "ports.lock", f"{name}: ports"):
        known = _read(file)
        if known.keys() != defaults.keys():
            taken = {
                port
                for other in state.states().glob("*/*/ports.json")
                for port in _read(other).values()
            }
            known = {}
            for role in defaults:
                known[role] = _pick(taken)
                taken.add(known[role])
            state.write(file, json.dumps(known))
    return known


def free(port: int) -> bool:
    """Return whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def variable(name: str, role: str) -> str:
    """Return the environment variable that overrides a port of the instance `main`."""
    middle = "" if role == "client" else f"{role.upper()}_"
    return f"ANYMQ_BROKERS_{name.upper()}_{middle}PORT"


def _override(name: str, role: str, default: int) -> int:
    text = os.environ.get(variable(name, role), "")
    if not text:
        return default
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise BrokersError(f"{variable(name, role)}={text} is no port number")
    return int(text)


def _read(file: Path) -> dict[str, int]:
    try:
        return {str(role): int(port) for role, port in json.loads(file.read_text()).items()}
    except (FileNotFoundError, ValueError):
        return {}


def _pick(taken: set[int]) -> int:
    for port in random.sample(_RANGE, len(_RANGE)):
        if port not in taken and free(port):
            return port
    raise BrokersError(f"no free port between {_RANGE.start} and {_RANGE.stop}")
