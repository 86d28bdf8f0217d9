"""`GroupSource`: one member of a consumer group, as the core sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anymq.driver import (
    Listener,
    Nack,
    OrderedSource,
    Received,
    Source,
    SubscribeSpec,
    settle_stored,
)

from . import ordered, retry
from .client.internals import kafka
from .group.member import Reader, is_open, of_kafka
from .positions import place_group

if TYPE_CHECKING:
    from .connection import Clients
    from .publisher import Publisher
    from .topology import Topology


class GroupSource(Source):
    """One member of an unordered group: its partitions, and the group's retry topics.

    It settles by offset tracker, and by copies in the retry topics.
    """

    def __init__(
        self,
        spec: SubscribeSpec,
        listener: Listener,
        retry_topics: tuple[str, ...],
        clients: Clients,
        topology: Topology,
        publisher: Publisher,
    ) -> None:
        self._spec = spec
        self._options = clients.options
        self.silence = _silence(clients)
        self._retry_topics = retry_topics
        self._topology = topology
        self._publisher = publisher
        self._reader = Reader(
            spec.native_group,
            (spec.topic.native, *retry_topics),
            retry_topics,
            clients,
            topology,
            trim=spec.create,
            dropped=listener.dropped,
            unreadable=listener.unreadable,
        )

    @classmethod
    async def open(
        cls,
        spec: SubscribeSpec,
        listener: Listener,
        clients: Clients,
        topology: Topology,
        publisher: Publisher,
    ) -> GroupSource:
        """Make the group and its retry topics, and join it."""
        await ordered.check_mode(spec, clients, topology)
        topics = retry.retry_topics(spec.native_group)
        if spec.create:
            await topology.create(retry.plans(topics, clients.options))
        elif missing := await topology.missing(topics):
            raise kafka.UnknownTopicOrPartitionError(
                f"the group {spec.native_group} needs its retry topics, and may not create them: "
                + ", ".join(missing)
            )
        await place_group(clients, topology, spec.native_group, spec.topic.native, spec.start)
        source = cls(spec, listener, topics, clients, topology, publisher)
        await source._reader.join()
        return source

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        return await self._reader.receive(limit, wait)

    async def ack(self, records: Sequence[Received]) -> None:
        self._reader.ack(records)

    async def nack(self, nacks: Sequence[Nack]) -> None:
        failure = await self._put_back(nacks)
        if isinstance(failure, kafka.UnknownTopicOrPartitionError) and self._spec.create:
            await self._topology.create(retry.plans(self._retry_topics, self._options))
            self._reader.refresh()
            failure = await self._put_back(nacks)
        if failure is not None:
            raise failure

    async def release(self, nacks: Sequence[Nack]) -> None:
        # The log knows nothing of attempts that were made in place: a copy says them.
        tried = [item for item in nacks if item.attempt >= item.native_attempt]
        if tried:
            await self.nack(tried)
        rest = [item.received for item in nacks if item.attempt < item.native_attempt]
        self._reader.give_back(rest)

    async def aclose(self) -> None:
        await self._reader.aclose()

    async def _put_back(self, nacks: Sequence[Nack]) -> BaseException | None:
        """Copy into the retry topics, then settle the confirmed records; return the first failure."""
        live = [item for item in nacks if all(map(is_open, of_kafka((item.received,))))]
        if not live:
            return None
        copies = [(retry.bin_of(self._retry_topics, item.delay), retry.copy(item)) for item in live]
        outcomes = await self._publisher.publish(copies)

        async def settle(stored: Sequence[Received]) -> None:
            self._reader.done(stored)

        try:
            await settle_stored([item.received for item in live], outcomes, settle)
        except Exception as failure:
            return failure
        return None


class OrderedGroup(OrderedSource):
    """One member of an ordered group.

    It reads no retry topics: a failed record stays in its partition, and `keep` writes its attempt
    beside the committed offset.
    """

    def __init__(
        self, spec: SubscribeSpec, listener: Listener, clients: Clients, topology: Topology
    ) -> None:
        self.silence = _silence(clients)
        self._reader = Reader(
            spec.native_group,
            (spec.topic.native,),
            (),
            clients,
            topology,
            trim=spec.create,
            revoke=listener.revoke,
            dropped=listener.dropped,
            unreadable=listener.unreadable,
        )

    @classmethod
    async def open(
        cls, spec: SubscribeSpec, listener: Listener, clients: Clients, topology: Topology
    ) -> OrderedGroup:
        """Make the group, and join it."""
        await ordered.check_mode(spec, clients, topology)
        await place_group(clients, topology, spec.native_group, spec.topic.native, spec.start)
        source = cls(spec, listener, clients, topology)
        await source._reader.join()
        return source

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        return await self._reader.receive(limit, wait)

    async def ack(self, records: Sequence[Received]) -> None:
        self._reader.ack(records)

    async def keep(self, nacks: Sequence[Nack]) -> None:
        await self._reader.keep([(item.received, item.redeliveries, item.due) for item in nacks])

    async def aclose(self) -> None:
        await self._reader.aclose()


def _silence(clients: Clients) -> float:
    # The last heartbeat may have been sent one interval before the silence began.
    return clients.options.session_timeout - clients.options.heartbeat
