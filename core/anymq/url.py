"""`URL`: an immutable connection URL, whose text never shows the password."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote

from .errors import InvalidURL

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SECRET_KEY = re.compile(r"pass|secret|token|key", re.IGNORECASE)
_EMPTY: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class URL:
    """A parsed connection URL.

    `hosts` are `(host, port)` pairs, with None for a missing port; `path` has its leading slash.
    `str()` and `repr()` mask the password and every option that looks like a secret, so a URL may
    be logged. Only `.password` returns the secret.
    """

    scheme: str
    hosts: tuple[tuple[str, int | None], ...] = ()
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    path: str = ""
    query: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    renew: Callable[[URL], URL] | None = field(default=None, repr=False, compare=False)
    """Returns the URL with the credentials of now; None if they do not change. See `current`."""

    def current(self) -> URL:
        """Return the URL with user and password as they are now; nothing else differs.

        An adapter asks before each connection that it opens, also when it reconnects, because the
        URL may be the content of a secret file whose password is rotated. Never raises. Callable
        from any thread.
        """
        return self if self.renew is None else self.renew(self)

    @classmethod
    def parse(cls, text: str) -> URL:
        """Parse `text`; raises `InvalidURL` with a message that never contains the password."""
        match = _SCHEME.fullmatch(text.strip())
        if match is None:
            raise InvalidURL(
                "a connection URL looks like scheme://host, for example sqlite:///app.db"
            )
        scheme = match[1].lower()
        if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
            raise InvalidURL(f"{scheme}://…: control characters are not allowed in a URL")
        # Heroku repeats the scheme before each further host.
        rest, _, fragment = match[2].replace(f",{scheme}://", ",").partition("#")
        if fragment:
            raise InvalidURL(
                f"{scheme}://…: a fragment (#) has no meaning; write %23 for a literal #"
            )
        rest, _, query = rest.partition("?")
        authority, slash, path = rest.partition("/")
        if authority and ("@" in path or "@" in query):
            # Not quoted: it may be the end of a password.
            raise InvalidURL(
                f"{scheme}://…: an @ after the host; percent-encode special characters in user "
                "and password (/ is %2F, ? is %3F), and an @ elsewhere as %40"
            )
        userinfo, _, hosts = authority.rpartition("@")
        username, colon, password = userinfo.partition(":")
        return cls(
            scheme=scheme,
            hosts=tuple(_host(part, scheme) for part in hosts.split(",")) if hosts else (),
            username=_userinfo(username, scheme) or None,
            password=_userinfo(password, scheme) if colon else None,
            path=unquote(slash + path),
            query=MappingProxyType(_query(query, scheme)),
        )

    def __str__(self) -> str:
        user = ""
        if self.password is not None:
            user = f"{self.username or ''}:***@"
        elif self.username is not None:
            user = "***@"  # a user without a password may be a token
        hosts = ",".join(
            (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
            for host, port in self.hosts
        )
        pairs = "&".join(
            f"{key}={'***' if is_secret(key) else value}" for key, value in self.query.items()
        )
        return f"{self.scheme}://{user}{hosts}{self.path}" + (f"?{pairs}" if pairs else "")

    def __repr__(self) -> str:
        return f"URL({str(self)!r})"

    @property
    def is_loopback(self) -> bool:
        """Whether every host is the local machine."""
        return all(
            host in ("localhost", "::1", "") or host.startswith("127.") for host, _ in self.hosts
        )


def is_secret(option: str) -> bool:
    """Whether the value of `option` is masked, because its name looks like that of a secret."""
    return _SECRET_KEY.search(option) is not None


def masked(text: str) -> str:
    """Return the URL `text` with its secrets masked."""
    try:
        return str(URL.parse(text))
    except InvalidURL:
        return text.partition("://")[0] + "://…"


def shown(item: Any) -> str:
    """Return the `repr` of a dataclass whose fields may hold URLs, with their secrets masked."""
    values = ((each.name, getattr(item, each.name)) for each in fields(item))
    text = ", ".join(
        f"{name}={masked(value) if isinstance(value, str) and '://' in value else value!r}"
        for name, value in values
    )
    return f"{type(item).__name__}({text})"


def _userinfo(text: str, scheme: str) -> str:
    """Return a user or password with its percent-encoding decoded.

    A % that is not followed by two hexadecimal digits stands for itself.
    """
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidURL(
            f"{scheme}://…: user or password is percent-encoded, but not in UTF-8; "
            "write %25 for a literal %"
        ) from None
    if any(ord(char) < 0x20 for char in decoded):
        raise InvalidURL(f"{scheme}://…: control characters are not allowed in user and password")
    return decoded


def _host(part: str, scheme: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]@]*))(?::(\d{1,5}))?", part)
    if match is None or (match[3] and not 0 < int(match[3]) < 65536) or not _is_ipv6(match[1]):
        # The part is not quoted: with a stray / in the password it would show the password.
        raise InvalidURL(
            f"{scheme}://…: expected host or host:port, comma-separated, an IPv6 address in "
            "brackets ([::1]:4222); percent-encode special characters in user and password "
            "(/ is %2F, ? is %3F, # is %23)"
        )
    host = match[1] or match[2] or ""
    if not host:
        raise InvalidURL(f"{scheme}://…: a host is empty")
    return host, int(match[3]) if match[3] else None


def _is_ipv6(bracketed: str | None) -> bool:
    """Whether the text between the brackets, if there are any, is an IPv6 address."""
    if bracketed is None:
        return True
    from ipaddress import AddressValueError, IPv6Address

    try:
        IPv6Address(bracketed)
    except AddressValueError:
        return False
    return True


def _query(query: str, scheme: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in options:
            raise InvalidURL(f"{scheme}://…: the option {key!r} is given twice")
        options[key] = value
    return options
