"""The answers of the health endpoint, for the HTTP server and for ASGI."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Protocol

from .metrics import CONTENT_TYPE

LIVE, READY, METRICS = "/livez", "/readyz", "/metrics"
PATHS = (LIVE, READY, METRICS)
METHODS = ("GET", "HEAD")


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    content_type: str
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response."""
        headers = {
            "content-type": self.content_type,
            "content-length": str(len(self.body)),
            "cache-control": "no-store",
        }
        return headers | {"allow": ", ".join(METHODS)} if self.status == 405 else headers


class Report(Protocol):
    """A report: `Health`, or that of several workers."""

    @property
    def live(self) -> bool: ...
    @property
    def ready(self) -> bool: ...
    def as_dict(self) -> dict[str, Any]: ...


class Reporter(Protocol):
    """What reports its health and metrics: an app, or a supervisor of workers."""

    async def health(self) -> Report: ...
    async def metrics(self) -> str: ...


async def answer(reporter: Reporter, method: str, path: str) -> Answer:
    """Return the answer to a request.

    `/livez` and `/readyz` answer 200 or 503, with the report as JSON; `/metrics` answers in the
    text format of Prometheus.
    """
    if path not in PATHS:
        return refusal(404, f"no such path; there are {', '.join(PATHS)}")
    if method not in METHODS:
        return refusal(405, f"only {' and '.join(METHODS)}")
    if path == METRICS:
        return Answer(200, CONTENT_TYPE, (await reporter.metrics()).encode())
    report = await reporter.health()
    good = report.live if path == LIVE else report.ready
    text = json.dumps(report.as_dict(), ensure_ascii=False, indent=1) + "\n"
    return Answer(200 if good else 503, "application/json", text.encode())


def refusal(status: int, text: str) -> Answer:
    """Return the answer to a bad request."""
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())
