"""Messages of hostile or careless publishers, generated from a seed.

Every message has a header `fuzz` with its number, which identifies it in the outcomes. Most bodies
are orders that the handler accepts, see `Order`. The rest are invalid in one of many ways.
"""

from __future__ import annotations

import gzip
import json
import math
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any, Literal

from pydantic import BaseModel

from tests.foreign.raw import Foreign

NUMBER = "fuzz"
"""The header with the number of the message."""
MAX_BODY_BYTES = 900_000
"""Bytes of the largest bodies, except for a few that fit no letter."""
TOO_LARGE = {"kafka": 1_048_300, "rabbitmq": 3_000_000, "nats": 8_388_000, "redis": 3_000_000}
"""Bytes of a body that the broker accepts, although its copy with more headers is refused."""
FRAME = 120_000
"""The most bytes of headers that RabbitMQ accepts."""

DIGITS = ("0", "-1", "1", "99", "999999999", "9" * 13, "9" * 15, "9" * 5000, "²", "1e309", "0x1")
TIMES = (
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2026-02-30T00:00:00Z",
    "2026-01-02T03:04:05.123456789Z",
    "24:00",
    "yesterday",
    "NaN",
)
TEXTS = (
    *DIGITS,
    *TIMES,
    "",
    " ",
    " a ",
    "a\nb",
    "a\rb",
    "a\r\nb: c",
    "\x1b[31m",
    "\x00",
    "%0A",
    "%",
    "%FF%zz",
    "ünï✓𝄞",
    "\u2028",
    "a|b",
    "null",
    "[",
    "[1]",
    "[" * 5000,
    '{"a":' * 2000,
    "x" * 5000,
    "application/json",
    "..",
    "*",
    ">",
    "$JS.API.>",
    "(broadcast)",
)
BYTES = (b"\xff\xfe", b"\xed\xa0\x80", b"\x80", bytes(range(256)), b"\xc3")
CONTENT_TYPES = (
    "application/json",
    "application/cloudevents+json",
    "application/cloudevents+json; charset=utf-16",
    "application/cloudevents-batch+json",
    "APPLICATION/JSON;charset=latin1",
    "text/plain",
    "application/octet-stream",
    "\x00/\n",
    "",
    "a" * 3000,
)
CONTROL = (
    "anymq-attempt",
    "anymq-redriven",
    "anymq-redelivered",
    "anymq-redeliveries",
    "anymq-position",
    "anymq-time",
    "anymq-header-CC",
    "anymq-only-group",
    "anymq-marker",
    "anymq-due",
    "anymq-delay-to",
    "anymq-delay-at",
    "anymq-dlq-topic",
    "anymq-dlq-group",
    "anymq-dlq-reason",
    "anymq-dlq-attempts",
    "anymq-dlq-history",
    "anymq-dlq-first-seen",
    "anymq-dlq-failed-at",
    "anymq-dlq-error-type",
    "anymq-dlq-reduced",
    "anymq-dlq-body-size",
    "anymq-dlq-traceback",
    "anymq-unheard-of",
    "Anymq-Attempt",
    "ANYMQ-DLQ-HISTORY",
)
SERVER = (
    "x-death",
    "x-first-death-queue",
    "x-delivery-count",
    "x-acquired-count",
    "x-stream-offset",
    "Nats-Msg-Id",
    "Nats-Rollup",
    "Nats-Expected-Stream",
    "Nats-Expected-Last-Sequence",
    "nats-msg-id",
    "Status",
    "traceparent",
)
ATTRIBUTES = (
    "id",
    "source",
    "type",
    "specversion",
    "time",
    "subject",
    "partitionkey",
    "correlationid",
    "causationid",
    "datacontenttype",
    "dataschema",
    "replyto",
    "replyinbox",
    "",
)
PREFIXES = ("ce-", "ce_", "CE-", "Ce_", "cloudEvents:", "cloudEvents_", "cloudevents:")
BLOCKS = (
    b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
    b"NATS/1.0 503\r\nStatus: 503\r\n\r\n",
    b"garbage\r\n\r\n",
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0\r\nno colon\r\n: nameless\r\n:\r\n\r\n",
    b"NATS/1.0\nx: 1\n\n",
)


class Order(BaseModel):
    """The payload of the handler."""

    number: int
    fails: Literal["never", "once", "always"] = "never"


class Hostile:
    """A generator of messages for one backend: equal ones for an equal seed."""

    def __init__(self, backend: str, seed: int) -> None:
        self.backend = backend
        self.random = Random(f"{backend} {seed}")
        self.micro = False
        self._latest = 0

    def messages(self, count: int) -> list[Foreign]:
        """Return the next messages, numbered from 0."""
        # Ids of a Redis stream only grow, so those beyond all dates come last.
        turn = self.random.randrange(count // 2, count) if self.backend == "redis" else count
        made: list[Foreign] = []
        for number in range(count):
            self.micro = number >= turn
            made.append(self.message(number))
        return made

    def message(self, number: int) -> Foreign:
        """Return message `number`."""
        random = self.random
        body, headers, properties = self._body(number)
        headers = [*headers, *self._headers(number)]
        if any(name == "anymq-redriven" for name, _ in headers):
            # A publisher that forges all of a redrive hides its message from the other groups.
            headers = [pair for pair in headers if pair[0] != "anymq-only-group"]
        random.shuffle(headers)
        # A letter without its refused headers keeps the first ones that fit.
        headers.insert(0, (NUMBER, str(number).encode()))
        more: dict[str, Any] = {}
        if self.backend == "kafka":
            more = {"time": self._time(), "key": self._key()}
        elif self.backend == "rabbitmq":
            headers = self._table(headers)
            properties |= self._properties()
            more = {"properties": properties, "key": (self._key() or b"").hex()[:200].encode()}
        elif self.backend == "redis":
            more = {"id": self._id()}
            headers = [(name, value) for name, value in headers if name != "data"]
        elif random.random() < 0.005:
            more = {"block": random.choice(BLOCKS)}
        return Foreign(body=body, headers=headers, **more)

    # Bodies.

    def _body(self, number: int) -> tuple[bytes | None, list[tuple[str, Any]], dict[str, Any]]:
        random = self.random
        kind = random.random()
        fails = random.choices(("never", "once", "always"), (90, 5, 5))[0]
        order = {"number": number, "fails": fails}
        if kind < 0.7:
            return json.dumps(order).encode(), [], {}
        if kind < 0.8:
            return self._structured(order)
        if kind < 0.9995:
            return random.choice(_BODIES)(random, order), [], {}
        return self._large(order), [], {}

    def _large(self, order: dict[str, Any]) -> bytes:
        limit = TOO_LARGE[self.backend] if self.random.random() < 0.3 else MAX_BODY_BYTES
        return json.dumps(order | {"more": "x" * (limit - 200)}).encode()

    def _structured(
        self, order: dict[str, Any]
    ) -> tuple[bytes, list[tuple[str, Any]], dict[str, Any]]:
        random = self.random
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": random.choice(("s1", "", "ü", 7, None, [1], "x" * 3000)),
            "source": random.choice(("/a", "/b", "", None, {"a": 1})),
            "type": random.choice(("Order", "", 5)),
            "data": random.choice((order, order, order, None, "text", [order])),
        }
        if random.random() < 0.3:
            event["time"] = random.choice((*TIMES, 5))
        if random.random() < 0.2:
            event["data_base64"] = random.choice(
                (b64encode(json.dumps(order).encode()).decode(), "?", 7)
            )
        if random.random() < 0.2:
            event[random.choice(TEXTS)] = random.choice((*TEXTS, 1, 1.5, True, None, {}, [[]]))
        body = json.dumps(event).encode()
        if random.random() < 0.1:
            body = body[: random.randrange(len(body))]
        content_type = "application/cloudevents+json"
        if self.backend == "rabbitmq":
            return body, [], {"content_type": content_type}
        return body, [("content-type", content_type.encode())], {}

    # Headers.

    def _headers(self, number: int) -> list[tuple[str, Any]]:
        random = self.random
        kind = random.random()
        if kind < 0.4:
            return []
        if kind < 0.995:
            count = random.choice((1, 2, 3, 5, 20))
            found = [(self._name(), self._value()) for _ in range(count)]
        elif kind < 0.998:
            many = {"redis": 5000, "rabbitmq": 3000}.get(self.backend, 2000)
            found = [(f"h{place}", b"v" * random.choice((0, 1, 20))) for place in range(many)]
        else:
            found = [("big", b"h" * random.choice((5000, 60_000, FRAME)))]
        if self.backend in ("kafka", "nats") and random.random() < 0.1:
            found += [(name, self._value()) for name, _ in found]
        return found

    def _name(self) -> str:
        random = self.random
        kind = random.random()
        if kind < 0.5:
            prefix = random.choice(PREFIXES) if random.random() < 0.4 else _PREFIX[self.backend]
            return prefix + random.choice(ATTRIBUTES)
        if kind < 0.7:
            return random.choice(CONTROL)
        if kind < 0.8:
            return random.choice(SERVER)
        if kind < 0.88:
            return random.choice(("content-type", "Content-Type", "CONTENT-TYPE", "contentType"))
        name = random.choice(("tenant", "a b", "ünï", "x" * 250, "", "a\nb", "a:b", "data", "\x00"))
        # In NATS a header is a line, so these characters would split the name.
        return name.replace("\n", "").replace(":", "") if self.backend == "nats" else name

    def _value(self) -> bytes:
        random = self.random
        kind = random.random()
        if kind < 0.15:
            return random.choice(BYTES)
        if kind < 0.3:
            return random.choice(CONTENT_TYPES).encode()
        if kind < 0.45:
            return f"id-{random.randrange(50)}".encode()
        if kind < 0.5:
            return random.randbytes(random.randrange(40))
        return random.choice(TEXTS).encode()

    def _table(self, headers: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Return headers for RabbitMQ: typed, with unique names, and small enough for a frame."""
        random = self.random
        found: dict[str, Any] = {}
        size = 0
        for name, value in headers:
            if len(name.encode()) > 255:
                continue
            size += len(name) + len(value) + 10
            if size > FRAME:
                break
            odd = name != NUMBER and random.random() < 0.2
            found[name] = random.choice(_ODD) if odd else value
        return list(found.items())

    def _properties(self) -> dict[str, Any]:
        random = self.random
        made: dict[str, Any] = {}
        for name, values in _PROPERTIES.items():
            if random.random() < 0.1:
                made[name] = random.choice(values)
        return made

    # Native properties of a broker.

    def _key(self) -> bytes | None:
        random = self.random
        kind = random.random()
        if kind < 0.3:
            return None
        if kind < 0.9:
            return f"k{random.randrange(30)}".encode()
        return random.choice((*BYTES, b"", b"k" * 5000, b"\n"))

    def _time(self) -> int | None:
        if self.random.random() < 0.9:
            return None
        return self.random.choice((0, 1, 1_764_000_000_000_000, 253_402_300_800_000, 2**62))

    def _id(self) -> str:
        if not self.micro:
            return "*"
        self._latest = max(self._latest + 1, int(datetime.now(UTC).timestamp() * 1e6))
        return f"{self._latest}-0"


_PREFIX = {"kafka": "ce_", "rabbitmq": "cloudEvents:", "nats": "ce-", "redis": "ce-"}

_BODIES: tuple[Callable[[Random, dict[str, Any]], bytes | None], ...] = (
    lambda random, order: b"",
    lambda random, order: None,
    lambda random, order: b"\xef\xbb\xbf" + json.dumps(order).encode(),
    lambda random, order: json.dumps(order).encode("utf-16"),
    lambda random, order: gzip.compress(json.dumps(order).encode()),
    lambda random, order: json.dumps(order).encode()[:-1],
    lambda random, order: json.dumps(order | {"number": math.nan}).encode(),
    lambda random, order: json.dumps(order | {"more": math.inf}).encode(),
    lambda random, order: b'{"number":' + b"9" * 20_000 + b"}",
    lambda random, order: b'{"number":1,"number":2}',
    lambda random, order: b'{"number":"\xff\xfe"}',
    lambda random, order: b'{"number":"\\ud800"}',
    lambda random, order: b"[" * 20_000 + b"]" * 20_000,
    lambda random, order: b'{"number":' * 5_000,
    lambda random, order: json.dumps([order]).encode(),
    lambda random, order: b"null",
    lambda random, order: b'"specversion"',
    lambda random, order: random.randbytes(random.randrange(200)),
)

_deep: dict[str, Any] = {}
for _ in range(100):
    _deep = {"d": _deep}

_ODD: tuple[Any, ...] = (
    7,
    -1,
    2**62,
    1.5,  # no NaN, no infinity, no Decimal: the server closes the connection on them
    True,
    None,
    [],
    [1, "a", [b"x".decode()]],
    {},
    {"a": {"b": 1}},
    _deep,
    datetime(2026, 1, 2, tzinfo=UTC),
    bytearray(b"\xff"),
)

_PROPERTIES: dict[str, tuple[Any, ...]] = {
    "content_type": ("application/json", "text/plain", "\x00", "", "a" * 255),
    "content_encoding": ("gzip", "utf-16", ""),
    "message_id": ("", "m", "same", "a\nb", "ü", "x" * 100),
    "correlation_id": ("", "c", "\x1b[31m"),
    "reply_to": ("", "amq.gen-x", "orders"),
    "message_type": ("", "Order", "\n"),
    "app_id": ("", "x"),
    "priority": (0, 9, 255),
    "delivery_mode": (1, 2),
    "timestamp": (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)),
}
