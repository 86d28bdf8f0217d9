"""The idempotency stores a broker has open: each URL once."""

from __future__ import annotations

import asyncio

from .credentials import check_credentials
from .logs import logger
from .registry import load_store
from .store import Store
from .url import URL

log = logger("anymq.idempotency")


class Stores:
    """Opens stores when first asked for, and closes those it opened."""

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

    async def aclose(self) -> None:
        """Close what was opened here."""
        stores, self._open = list(self._open.values()), {}
        for store in stores:
            try:
                await store.aclose()
            except Exception as error:
                log.debug("closing a store: %s", error)
