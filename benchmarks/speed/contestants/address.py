"""Server addresses for clients that do not accept anymq's URLs."""

from __future__ import annotations

from anymq import URL


def hosts(url: str, port: int) -> list[str]:
    """Return `host:port` of each server in `url`, with `port` as the default."""
    return [f"{host}:{own or port}" for host, own in URL.parse(url).hosts]


def plain(url: str) -> str:
    """Return `url` without its query, which contains anymq's options."""
    return url.partition("?")[0]
