"""`hide_logins`: aiokafka logs every request at DEBUG, and with it the password of a login."""

from __future__ import annotations

import logging

LOGGER = "aiokafka.conn"
LOGIN = "SaslAuthenticate"


class HideLogins(logging.Filter):
    """Replaces what is sent or received for a login, in every line of the logger that it is on."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_hidden(argument) for argument in record.args)
        return True


def _hidden(argument: object) -> object:
    name = type(argument).__name__
    return f"{name}(***)" if name.startswith(LOGIN) else argument


def hide_logins() -> None:
    """Let no line of aiokafka's show a login; harmless to repeat."""
    logger = logging.root.getChild(LOGGER)
    if not any(isinstance(found, HideLogins) for found in logger.filters):
        logger.addFilter(HideLogins())
