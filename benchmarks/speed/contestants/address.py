"""Where a server is, for clients that do not know anymq's URLs."""

from __future__ import annotations

from anymq import URL


def hosts(url: str, port: int) -> list[str]:
    """Return `host:port` of each server in `url`; `port` is for those that name none."""
    return [f"{host}:{own or port}" for host, own in URL.parse(url).hosts]


def plain(url: str) -> str:
    """Return `url` without its query, which holds anymq's own options."""
    return url.partition("?")[0]
