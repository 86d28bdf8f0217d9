"""TLS for all adapters: a context with certificates from files, and the error of a failed check."""

from __future__ import annotations

import ssl

from .errors import ConfigurationError

UNVERIFIED = (
    "the server's certificate was not accepted: name the authority that signed it with ca=, and "
    "connect to a host name that the certificate is for"
)


def client_context(ca: str | None, cert: str | None, key_file: str | None) -> ssl.SSLContext:
    """Return a context that verifies the server's certificate and host name.

    Raises `ConfigurationError` for an unusable file, and for an encrypted private key, since anymq
    does not prompt for its password.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
        if cert is not None:
            context.load_cert_chain(cert, key_file, password=lambda: _refuse(key_file))
    except ConfigurationError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the certificate files (ca, cert or key_file) cannot be used: {error}"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _refuse(key_file: str | None) -> bytes:
    option = "cert" if key_file is None else "key_file"
    raise ConfigurationError(
        f"the private key in {option} is encrypted, and there is no password for it: name a file "
        f"in {option} with the key decrypted (openssl pkey -in … -out …), that others cannot read"
    )


def is_unverified(error: BaseException) -> bool:
    """Whether `error`, or one of its causes, is a certificate that was not accepted."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return False
