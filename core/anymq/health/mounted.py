"""`asgi`: the health endpoint as an ASGI application, to mount in a web framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .endpoint import Reporter, answer

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
ASGI = Callable[[Event, Receive, Send], Awaitable[None]]


def asgi(app: Reporter) -> ASGI:
    """Return an ASGI application that serves `/livez`, `/readyz` and `/metrics` of `app`.

    ::

        web.mount("/health", anymq.health.asgi(app))     # Starlette, FastAPI

    It reports; the framework starts and stops `app`.
    """

    async def serve(scope: Event, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"anymq.health serves http, not {scope['type']}")
        path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
        if root and path.startswith(f"{root}/"):
            path = path[len(root) :]
        found = await answer(app, scope["method"], path)
        headers = [(name.encode(), value.encode()) for name, value in found.headers.items()]
        await send({"type": "http.response.start", "status": found.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else found.body
        await send({"type": "http.response.body", "body": body})

    return serve


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
