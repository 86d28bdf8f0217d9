"""The graph of events in the languages of Mermaid and of Graphviz."""

from __future__ import annotations

from collections.abc import Iterator

from .graph import Edge, Graph, HandlerNode, ServiceNode


def mermaid(graph: Graph) -> str:
    """Return `graph` as a Mermaid flowchart."""
    return "\n".join(_mermaid(graph)) + "\n"


def dot(graph: Graph) -> str:
    """Return `graph` in DOT, the language of Graphviz."""
    return "\n".join(_dot(graph)) + "\n"


def _mermaid(graph: Graph) -> Iterator[str]:
    yield "flowchart LR"
    for service in graph.services:
        title = _mermaid_text(_title(service))
        if not service.handlers:
            yield f'    {service.id}["{title}"]'
            continue
        yield f'    subgraph {service.id}["{title}"]'
        for handler in service.handlers:
            yield f'        {handler.id}["{_mermaid_text(_about(handler))}"]'
        yield "    end"
    for topic in graph.topics:
        yield f'    {topic.id}[("{_mermaid_text(topic.name)}")]'
    for edge in graph.edges:
        arrow = "-.->" if edge.kind == "dead letters" else "-->"
        label = f'|"{_mermaid_text(edge.label)}"|' if edge.label else ""
        yield f"    {edge.source} {arrow}{label} {edge.target}"


def _mermaid_text(text: str) -> str:
    """Return `text` for a quoted label; what the language reads is written as an entity."""
    return "".join(
        char if char.isalnum() or char in " .,-_()" else f"#{ord(char)};" for char in text
    )


def _dot(graph: Graph) -> Iterator[str]:
    yield "digraph events {"
    yield "    rankdir=LR;"
    yield "    compound=true;"
    for service in graph.services:
        yield f"    subgraph cluster_{service.id} {{"
        yield f"        label={_dot_text(_title(service))};"
        yield f'        {service.id} [shape=point, style=invis, label=""];'
        for handler in service.handlers:
            yield f"        {handler.id} [shape=box, label={_dot_text(_about(handler))}];"
        yield "    }"
    for topic in graph.topics:
        yield f"    {topic.id} [shape=cylinder, label={_dot_text(topic.name)}];"
    services = {service.id for service in graph.services}
    for edge in graph.edges:
        yield f"    {edge.source} -> {edge.target}{_dot_attributes(edge, services)};"
    yield "}"


def _dot_attributes(edge: Edge, services: set[str]) -> str:
    attributes: list[str] = []
    if edge.label:
        attributes.append(f"label={_dot_text(edge.label)}")
    if edge.kind == "dead letters":
        attributes.append("style=dashed")
    if edge.source in services:
        attributes.append(f"ltail=cluster_{edge.source}")
    return f" [{', '.join(attributes)}]" if attributes else ""


def _dot_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else " " for char in escaped) + '"'


def _title(service: ServiceNode) -> str:
    return f"{service.name} {service.version}" if service.version else service.name


def _about(handler: HandlerNode) -> str:
    return f"{handler.name} ({handler.group or 'broadcast'})"
