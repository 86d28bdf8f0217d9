"""How aiokafka's clients are made for a URL, and how they are got rid of.

The guards against a client that never ends (aiokafka #1101: `stop()` waits for a dead broker for
ever) live here: everything is bounded, and what does not end is torn down by force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from anymq.driver import (
    URL,
    AccessDenied,
    ConfigurationError,
    InvalidURL,
    client_context,
    logger,
    translate,
)

from .client.internals import (
    CODECS,
    AIOKafkaAdminClient,
    AIOKafkaConnection,
    AIOKafkaConsumer,
    AIOKafkaProducer,
    abandon_admin,
    abandon_consumer,
    abandon_producer,
    kafka,
    start_client,
)
from .errors import ERRORS
from .group.assignor import Balancer
from .options import KafkaOptions

log = logger("anymq.kafka")

DEFAULT_PORT = 9092
# A single batch must stay below the default message.max.bytes of a topic that is not ours.
MAX_BATCH = 1_000_000
# The core polls every 2 s at least; a member that once left by this timer may stay out (#1187).
MAX_POLL_INTERVAL = 24 * 3600.0
FETCH_WAIT = 0.25


class Clients:
    """Makes aiokafka's clients, all with the same address, credentials and timeouts."""

    def __init__(self, url: URL, options: KafkaOptions) -> None:
        if url.path not in ("", "/"):
            raise InvalidURL(f"{url.scheme}://…: a path has no meaning in a Kafka URL")
        self.options = options
        self.hosts = [(host, port or DEFAULT_PORT) for host, port in url.hosts]
        if not self.hosts:
            raise InvalidURL(f"{url.scheme}://…: no host is named")
        _check_codec(options.compression)
        self._security = _security(url, options)
        self._common: dict[str, Any] = {
            **self._security,
            "client_id": options.client_id,
            "request_timeout_ms": _ms(options.request_timeout),
            "metadata_max_age_ms": _ms(options.metadata_max_age),
        }

    def producer(self) -> AIOKafkaProducer:
        """An idempotent producer that has not been started."""
        return AIOKafkaProducer(
            **self._address(),
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=MAX_BATCH,
            max_request_size=max(MAX_BATCH, self.options.max_body + MAX_BATCH),
            compression_type=self.options.compression,
        )

    def consumer(self, group: str | None, balancer: Balancer | None = None) -> AIOKafkaConsumer:
        """A consumer without a subscription that has not been started; commits are made by hand."""
        options = self.options
        return AIOKafkaConsumer(
            **self._address(),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=_ms(FETCH_WAIT),
            fetch_max_bytes=options.fetch_max_bytes,
            # One only: with several, aiokafka joins once for each.
            partition_assignment_strategy=(balancer or Balancer(),),
            session_timeout_ms=_ms(options.session_timeout),
            heartbeat_interval_ms=_ms(options.heartbeat),
            rebalance_timeout_ms=_ms(options.rebalance_timeout),
            max_poll_interval_ms=_ms(MAX_POLL_INTERVAL),
        )

    def admin(self) -> AIOKafkaAdminClient:
        """An admin client that has not been started."""
        return AIOKafkaAdminClient(**self._address())

    async def probe(self, timeout: float) -> None:
        """Return once a host has answered and taken the credentials.

        aiokafka's own `start` tells every failure as "Unable to bootstrap"; this raises the reason,
        a refusal of the credentials before any other. Each host has its share of the time; the one
        that answered is the first that the clients ask.
        """
        failures: list[BaseException] = []
        deadline = asyncio.get_running_loop().time() + timeout
        for tried, (host, port) in enumerate(self.hosts):
            left = deadline - asyncio.get_running_loop().time()
            failure = await self._try(host, port, max(left, 0.1) / (len(self.hosts) - tried))
            if failure is None:
                self._begin_with(tried)
                return
            failures.append(failure)
        for failure in failures:
            if isinstance(translate(failure, ERRORS, doing="", where=""), AccessDenied):
                raise failure
        raise failures[-1]

    async def start(
        self, client: AIOKafkaProducer | AIOKafkaConsumer | AIOKafkaAdminClient
    ) -> None:
        """Start `client`. If that fails, the clients made next ask another host.

        aiokafka asks several in an order of its own, and a silent one for all of the timeout: so
        it is told one.
        """
        try:
            await start_client(client)
        except BaseException:
            self._begin_with(1)
            raise

    def _begin_with(self, number: int) -> None:
        hosts = self.hosts
        self.hosts = hosts[number:] + hosts[:number]

    def _address(self) -> dict[str, Any]:
        host, port = self.hosts[0]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return {**self._common, "bootstrap_servers": address}

    async def _try(self, host: str, port: int, timeout: float) -> BaseException | None:
        connection = AIOKafkaConnection(
            host,
            port,
            **self._security,
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


async def stop_producer(producer: AIOKafkaProducer, grace: float) -> None:
    """Stop `producer` within `grace` seconds, flushing it, or else by force."""
    try:
        await _bounded(producer.stop(), grace)
    finally:
        abandon_producer(producer)


async def stop_consumer(consumer: AIOKafkaConsumer, grace: float) -> None:
    """Stop `consumer` within `grace` seconds, leaving its group, or else by force."""
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
    """Give `stop` its time, in a task of its own: aiokafka's raise `CancelledError` at their caller
    when they meet a task that they have cancelled themselves."""
    task = asyncio.create_task(stop)
    try:
        await asyncio.wait((task,), timeout=grace)
    finally:
        task.cancel()
        task.add_done_callback(_log_failure)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.debug("stopping failed: %r", error)


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
        security["sasl_plain_username"] = url.username
        security["sasl_plain_password"] = url.password or ""
    return security


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
