"""Check against sending a password in clear text over a network."""

from __future__ import annotations

from .errors import ConfigurationError
from .url import URL


def check_credentials(url: URL, tls_schemes: frozenset[str]) -> None:
    """Raise `ConfigurationError` if `url` would send credentials unencrypted off this machine."""
    if not (url.username or url.password) or url.is_loopback or url.scheme in tls_schemes:
        return
    secure = f" ({', '.join(sorted(tls_schemes))})" if tls_schemes else ""
    raise ConfigurationError(
        f"{url} would send credentials in clear text; use a TLS scheme{secure}, "
        "or add allow_insecure_auth=true if the network is trusted"
    )
