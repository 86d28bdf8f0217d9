"""The graph of events: services, their handlers, and the topics between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .system import Receive, Send, Service, name_of

Kind = Literal["publishes", "consumes", "dead letters"]


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """An arrow from a service, handler or topic to another, by their ids."""

    source: str
    target: str
    kind: Kind
    label: str = ""


@dataclass(frozen=True, slots=True)
class HandlerNode:
    """The handlers of one group of one service."""

    id: str
    name: str
    group: str | None


@dataclass(frozen=True, slots=True)
class ServiceNode:
    """A service and its handlers."""

    id: str
    name: str
    version: str | None
    handlers: tuple[HandlerNode, ...]


@dataclass(frozen=True, slots=True)
class TopicNode:
    """A topic; `dead_letters` says that messages end there."""

    id: str
    name: str
    types: tuple[str, ...]
    dead_letters: bool


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes and edges in an order that does not change from run to run."""

    services: tuple[ServiceNode, ...]
    topics: tuple[TopicNode, ...]
    edges: tuple[Edge, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the graph as JSON values."""
        return asdict(self)


def graph(services: Sequence[Service]) -> Graph:
    """Return the graph of `services`, which meet at topics of the same name."""
    nodes = tuple(_service(number, each) for number, each in enumerate(services, 1))
    topics = _topics(services)
    ids = {topic.name: topic.id for topic in topics}
    edges = {
        edge for node, each in zip(nodes, services, strict=True) for edge in _edges(node, each, ids)
    }
    return Graph(nodes, topics, tuple(sorted(edges)))


def _service(number: int, service: Service) -> ServiceNode:
    handlers = tuple(
        HandlerNode(f"s{number}h{place}", _names(receive), receive.group)
        for place, receive in enumerate(service.receives, 1)
    )
    return ServiceNode(f"s{number}", service.name, service.version, handlers)


def _names(receive: Receive) -> str:
    return ", ".join(name_of(each) for each in receive.handlers)


def _topics(services: Sequence[Service]) -> tuple[TopicNode, ...]:
    types: dict[str, dict[str, None]] = {}
    dead: set[str] = set()
    for service in services:
        ends: list[Receive | Send] = [*service.receives, *service.sends]
        for each in ends:
            names = [event.types[0] for event in each.types if event.name != each.topic.name]
            types.setdefault(each.topic.name, {}).update(dict.fromkeys(names))
        for receive in service.receives:
            if receive.dead_letters is not None:
                types.setdefault(receive.dead_letters, {})
                dead.add(receive.dead_letters)
    return tuple(
        TopicNode(f"t{number}", name, tuple(sorted(types[name])), name in dead)
        for number, name in enumerate(sorted(types), 1)
    )


def _edges(node: ServiceNode, service: Service, ids: dict[str, str]) -> Iterator[Edge]:
    by_handler: dict[int, str] = {}
    for handler, receive in zip(node.handlers, service.receives, strict=True):
        types = ", ".join(e.types[0] for e in receive.types if e.name != receive.topic.name)
        yield Edge(ids[receive.topic.name], handler.id, "consumes", types)
        if receive.dead_letters is not None:
            yield Edge(handler.id, ids[receive.dead_letters], "dead letters")
        by_handler |= {id(each): handler.id for each in receive.handlers}
    for send in service.sends:
        types = ", ".join(e.types[0] for e in send.types if e.name != send.topic.name)
        source = node.id if send.handler is None else by_handler[id(send.handler)]
        yield Edge(source, ids[send.topic.name], "publishes", types)
