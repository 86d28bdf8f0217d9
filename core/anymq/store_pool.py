"""`StorePool`: the open idempotency stores of a broker, each URL once."""

from __future__ import annotations

import asyncio

from .credentials import check_credentials
from .driver.registry import load_driver, load_store
from .driver.store import Store
from .errors import AnymqError, ConnectionLost, translate
from .ids import new_id
from .logs import logger
from .url import URL

log = logger("anymq.idempotency")

PROBE = 5.0
"""Seconds for which a store remembers a probe if the process dies meanwhile."""


class StorePool:
    """Open stores by URL. They are opened on first use, and closed with the broker."""

    def __init__(self) -> None:
        self._open: dict[str, Store] = {}
        self._lock = asyncio.Lock()

    async def get(self, store: str | Store) -> Store:
        """Return `store`, opened; raises what opening it raises."""
        if isinstance(store, Store):
            return store
        async with self._lock:
            if store not in self._open:
                url = URL.parse(store)
                kind = load_store(url.scheme)
                if url.query.get("allow_insecure_auth") != "true":
                    check_credentials(url, kind.tls_schemes)
                self._open[store] = await kind.open(url)
            return self._open[store]

    async def check(self, store: str | Store) -> None:
        """Open `store` and use it once; raises an `AnymqError` that names it if that fails."""
        if isinstance(store, Store):
            return
        try:
            opened = await self.get(store)
            probe = f"anymq-start-{new_id()}"
            await opened.begin(probe, probe, PROBE)
            await opened.abandon(probe, probe)
        except Exception as raw:
            error = _translated(raw, store)
            if not isinstance(error, AnymqError):
                raise
            said = f"the store {URL.parse(store)} cannot be used: {error}"
            raise type(error)(said) from raw

    async def aclose(self) -> None:
        """Close what was opened here."""
        stores, self._open = list(self._open.values()), {}
        for store in stores:
            try:
                await store.aclose()
            except Exception as error:
                log.debug("closing a store: %s", error)


def _translated(raw: Exception, store: str) -> BaseException:
    """Return what `raw` means; the driver of the same package knows its client's errors."""
    if isinstance(raw, TimeoutError):
        return ConnectionLost("it does not answer")
    url = URL.parse(store)
    try:
        errors = load_driver(url.scheme).errors
    except AnymqError:
        return raw
    return translate(raw, errors, doing="opening", where=str(url))
