"""A private RabbitMQ whose users have given rights."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from brokers.rabbitmq import RabbitMQ
from tests.adapters.private import private_server


@contextmanager
def private_rabbitmq(
    folder: Path,
    users: Mapping[str, Sequence[str]],
    *,
    password: str,
    vhosts: Sequence[str] = ("/",),
    ready: bool = True,
) -> Iterator[int]:
    """Run a server in `folder`, and yield its port.

    `users` are, by name, the rights to configure, write and read in each of `vhosts`. The password
    of all is `password`. Without `ready`, the server has no user that its own check may be.
    """
    definitions = folder / "definitions.json"
    definitions.write_text(json.dumps(_definitions(users, password, vhosts)))

    def with_users(text: str) -> str:
        return f"{text}load_definitions = {definitions}\n"

    with private_server(RabbitMQ(), folder, with_users, ready=ready) as port:
        yield port


def _definitions(
    users: Mapping[str, Sequence[str]], password: str, vhosts: Sequence[str]
) -> dict[str, object]:
    """Return users and rights as the server imports them at its start."""
    salt = b"salt"
    secret = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
    return {
        "vhosts": [{"name": name} for name in dict.fromkeys(("/", *vhosts))],
        "users": [
            {
                "name": name,
                "password_hash": secret,
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": "",
            }
            for name in users
        ],
        "permissions": [
            {"user": name, "vhost": vhost, "configure": configure, "write": write, "read": read}
            for name, (configure, write, read) in users.items()
            for vhost in vhosts
        ],
    }
