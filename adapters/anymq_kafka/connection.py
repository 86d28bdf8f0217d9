"""`Clients`: makes, starts and stops aiokafka's clients for a URL.

aiokafka's `stop()` waits without end for a dead broker (#1101). So every stop here has a time
limit, after which the client is closed by force.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from anymq.driver import (
    URL,
    AccessDenied,
    ConfigurationError,
    Endpoint,
    InvalidURL,
    client_context,
    logger,
    translate,
)

from .client.codec import CODECS
from .client.compat import (
    AIOKafkaAdminClient,
    AIOKafkaConnection,
    AIOKafkaConsumer,
    AIOKafkaProducer,
    kafka,
)
from .client.internals import (
    abandon_admin,
    abandon_consumer,
    abandon_producer,
    renew_login,
    start_client,
)
from .errors import ERRORS
from .group.assignor import Assignor
from .options import KafkaOptions

log = logger("anymq.kafka")

DEFAULT_PORT = 9092
MAX_BATCH_BYTES = 1_000_000
"""Below the default `max.message.bytes`, which also topics that anymq did not create have."""
MAX_POLL_SECONDS = 24 * 3600.0
"""aiokafka's own timer must not run out: a member that has left by it may stay out (#1187)."""
FETCH_WAIT_SECONDS = 0.25
CLOSE_SECONDS = 1.0


class Clients:
    """Factory of aiokafka's clients, all with the same address, credentials and timeouts."""

    def __init__(self, url: URL, options: KafkaOptions) -> None:
        self.options = options
        self.hosts = _hosts(url)
        _check_codec(options.compression)
        self._url = url
        self._security = _security(url, options)
        self._common: dict[str, Any] = {
            **self._security,
            "client_id": options.client_id,
            "request_timeout_ms": _ms(options.request_timeout),
            "metadata_max_age_ms": _ms(options.metadata_max_age),
        }

    def producer(self) -> AIOKafkaProducer:
        """Return an idempotent producer that has not been started."""
        return AIOKafkaProducer(
            **self._address(),
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=MAX_BATCH_BYTES,
            max_request_size=max(MAX_BATCH_BYTES, self.options.max_body + MAX_BATCH_BYTES),
            compression_type=self.options.compression,
        )

    def consumer(self, group: str | None, assignor: Assignor | None = None) -> AIOKafkaConsumer:
        """Return a consumer that has not been started. It subscribes and commits nothing itself."""
        options = self.options
        return AIOKafkaConsumer(
            **self._address(),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=_ms(FETCH_WAIT_SECONDS),
            fetch_max_bytes=options.fetch_max_bytes,
            # One only, because aiokafka joins the group once for each.
            partition_assignment_strategy=(assignor or Assignor(),),
            session_timeout_ms=_ms(options.session_timeout),
            heartbeat_interval_ms=_ms(options.heartbeat),
            rebalance_timeout_ms=_ms(options.rebalance_timeout),
            max_poll_interval_ms=_ms(MAX_POLL_SECONDS),
        )

    def admin(self) -> AIOKafkaAdminClient:
        """Return an admin client that has not been started."""
        return AIOKafkaAdminClient(**self._address())

    async def probe(self, timeout: float) -> None:
        """Return once a host has answered and accepted the credentials.

        aiokafka's own `start` reports every failure as "Unable to bootstrap". This raises the
        reason, a refusal of the credentials before any other. Each host gets an equal share of
        `timeout` seconds. The clients connect to the host that answered first of all.
        """
        failures: list[BaseException] = []
        deadline = asyncio.get_running_loop().time() + timeout
        for index, (host, port) in enumerate(self.hosts):
            left = deadline - asyncio.get_running_loop().time()
            failure = await self._try_host(host, port, max(left, 0.1) / (len(self.hosts) - index))
            if failure is None:
                self._begin_with(index)
                return
            failures.append(failure)
        for failure in failures:
            if isinstance(translate(failure, ERRORS, doing="", where=""), AccessDenied):
                raise failure
        raise failures[-1]

    async def start(
        self, client: AIOKafkaProducer | AIOKafkaConsumer | AIOKafkaAdminClient
    ) -> None:
        """Start `client`. If that fails, the clients made next connect to another host.

        Each client gets one host. aiokafka would try several in its own order, and spend the whole
        timeout on one that does not answer.
        """
        if self._url.username is not None:
            renew_login(client, self._login)
        try:
            await start_client(client)
        except BaseException:
            self._begin_with(1)
            raise

    def _begin_with(self, index: int) -> None:
        hosts = self.hosts
        self.hosts = hosts[index:] + hosts[:index]

    def _address(self) -> dict[str, Any]:
        host, port = self.hosts[0]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return {**self._common, **self._sasl(), "bootstrap_servers": address}

    def _sasl(self) -> dict[str, str]:
        """Return the credentials of now, as aiokafka names them; empty if there are none."""
        if self._url.username is None:
            return {}
        user, password = self._login()
        return {"sasl_plain_username": user, "sasl_plain_password": password}

    def _login(self) -> tuple[str, str]:
        url = self._url.current()
        return url.username or "", url.password or ""

    async def _try_host(self, host: str, port: int, timeout: float) -> BaseException | None:
        connection = AIOKafkaConnection(
            host,
            port,
            **self._security,
            **self._sasl(),
            client_id=self.options.client_id,
            request_timeout_ms=_ms(self.options.request_timeout),
        )
        try:
            async with asyncio.timeout(timeout):
                await connection.connect()
        except TimeoutError:
            late: BaseException = kafka.KafkaConnectionError(f"no answer from {host}:{port}")
            return late
        except (kafka.KafkaError, OSError, EOFError) as error:
            failure: BaseException = error
            return failure
        finally:
            connection.close()
        return None


@asynccontextmanager
async def lone_consumer(
    clients: Clients, group: str | None = None
) -> AsyncIterator[AIOKafkaConsumer]:
    """Yield a started consumer that joins no group, though it may read and commit for `group`."""
    consumer = clients.consumer(group)
    try:
        async with asyncio.timeout(clients.options.request_timeout):
            await clients.start(consumer)
        yield consumer
    finally:
        await stop_consumer(consumer, CLOSE_SECONDS)


async def stop_producer(producer: AIOKafkaProducer, grace: float) -> None:
    """Flush and stop `producer` within `grace` seconds, or else close it by force."""
    try:
        await _bounded(producer.stop(), grace)
    finally:
        abandon_producer(producer)


async def stop_consumer(consumer: AIOKafkaConsumer, grace: float) -> None:
    """Leave the group and stop `consumer` within `grace` seconds, or else close it by force."""
    try:
        await _bounded(consumer.stop(), grace)
    finally:
        abandon_consumer(consumer)


async def stop_admin(admin: AIOKafkaAdminClient, grace: float) -> None:
    """Close `admin` within `grace` seconds, or else by force."""
    try:
        await _bounded(admin.close(), grace)
    finally:
        abandon_admin(admin)


async def _bounded(stop: Coroutine[Any, Any, None], grace: float) -> None:
    """Run `stop` for at most `grace` seconds, in a task of its own.

    aiokafka's `stop` raises `CancelledError` in its caller when it meets a task that it has
    cancelled itself.
    """
    task = asyncio.create_task(stop)
    try:
        await asyncio.wait((task,), timeout=grace)
    finally:
        task.cancel()
        task.add_done_callback(_log_failure)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("stopping a client failed: %r; it is closed by force", error)


def endpoints(url: URL, options: KafkaOptions) -> list[Endpoint]:
    """Return the addresses of the brokers; raises as `Clients` does."""
    context = _security(url, options).get("ssl_context")
    return [Endpoint(host=host, port=port, context=context) for host, port in _hosts(url)]


def _hosts(url: URL) -> list[tuple[str, int]]:
    if url.path not in ("", "/"):
        raise InvalidURL(f"{url.scheme}://…: a path has no meaning in a Kafka URL")
    if not url.hosts:
        raise InvalidURL(f"{url.scheme}://…: no host is named")
    return [(host, port or DEFAULT_PORT) for host, port in url.hosts]


def _check_codec(compression: str | None) -> None:
    if compression is None:
        return
    try:
        CODECS[compression][1](b"x")
    except Exception as error:
        raise ConfigurationError(
            f"compression={compression} needs a package that is not installed: "
            f"pip install 'aiokafka[{compression}]'"
        ) from error


def _security(url: URL, options: KafkaOptions) -> dict[str, Any]:
    encrypted = url.scheme == "kafka+ssl"
    security: dict[str, Any] = {"security_protocol": "SSL" if encrypted else "PLAINTEXT"}
    if encrypted:
        security["ssl_context"] = client_context(options.ca, options.cert, options.key_file)
    elif options.ca or options.cert or options.key_file:
        raise InvalidURL(f"{url.scheme}://…: ca, cert and key_file need the scheme kafka+ssl")
    if url.username is not None:
        security["security_protocol"] = "SASL_SSL" if encrypted else "SASL_PLAINTEXT"
        security["sasl_mechanism"] = options.sasl_mechanism
    return security


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
