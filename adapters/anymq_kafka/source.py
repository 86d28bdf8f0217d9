"""`GroupSource`: one member of a consumer group, as the core sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from anymq.driver import Nack, Received, Source, SubscribeSpec

from . import ordered, retry
from .aio import kafka
from .places import place_group
from .reader import Reader, is_open, of_kafka

if TYPE_CHECKING:
    from .clients import Clients
    from .publisher import Publisher
    from .topology import Topology


class GroupSource(Source):
    """Reads its partitions and the group's retry topics; settles by offset tracker and copies.

    An ordered one reads no retry topics: what fails stays where it is, and `keep` notes the attempt
    beside the committed offset.
    """

    def __init__(
        self,
        spec: SubscribeSpec,
        retry_topics: tuple[str, ...],
        clients: Clients,
        topology: Topology,
        publisher: Publisher,
    ) -> None:
        self._spec = spec
        self._options = clients.options
        # The last heartbeat may have been sent one interval before the silence began.
        self.silence = self._options.session_timeout - self._options.heartbeat
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
            revoke=spec.revoke if spec.ordered else None,
            dropped=spec.dropped,
            unreadable=spec.unreadable,
        )

    @classmethod
    async def open(
        cls, spec: SubscribeSpec, clients: Clients, topology: Topology, publisher: Publisher
    ) -> GroupSource:
        """Place the group, make its retry topics, and join it."""
        topic = spec.topic.native
        await ordered.check_mode(spec, clients, topology)
        retry_topics = () if spec.ordered else retry.retry_topics(spec.native_group)
        if spec.create:
            await topology.create(retry.plans(retry_topics, clients.options))
        elif missing := await topology.missing(retry_topics):
            raise kafka.UnknownTopicOrPartitionError(
                f"the group {spec.native_group} needs its retry topics, and may not create them: "
                + ", ".join(missing)
            )
        await place_group(clients, topology, spec.native_group, topic, spec.start)
        source = cls(spec, retry_topics, clients, topology, publisher)
        await source._reader.join()
        return source

    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        return await self._reader.receive(limit, wait)

    async def ack(self, records: Sequence[Received]) -> None:
        self._reader.done(records)
        # What cannot be committed at all must be seen; what cannot just now is repeated by itself.
        committer = self._reader.committer
        if (error := committer.error) is not None:
            committer.error = None
            raise error

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

    async def keep(self, nacks: Sequence[Nack]) -> None:
        await self._reader.keep(
            [
                # What the next delivery has to add to the attempt that the record itself says.
                (item.received, _redeliveries(item), item.due)
                for item in nacks
            ]
        )

    async def aclose(self) -> None:
        await self._reader.aclose()

    async def _put_back(self, nacks: Sequence[Nack]) -> BaseException | None:
        """Copy into the retry topics, then settle what was confirmed; return the last failure."""
        live = [item for item in nacks if all(map(is_open, of_kafka((item.received,))))]
        if not live:
            return None
        copies = [(retry.bin_of(self._retry_topics, item.delay), retry.copy(item)) for item in live]
        failure: BaseException | None = None
        stored: list[Received] = []
        for item, outcome in zip(live, await self._publisher.publish(copies), strict=True):
            if isinstance(outcome, BaseException):
                failure = outcome
            else:
                stored.append(item.received)
        self._reader.done(stored)
        return failure


def _redeliveries(item: Nack) -> int:
    """What the broker's count must be for the next delivery to show `item.attempt`."""
    said = item.native_attempt - 1 - item.received.redeliveries
    return max(0, item.attempt - said)
