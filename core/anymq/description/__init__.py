"""What applications receive and send, as documents: AsyncAPI, graphs, and changes of payloads.

It stands on the public interface and connects to nothing.
"""

from .asyncapi import asyncapi
from .comparison import Change, compare
from .drawing import dot, mermaid
from .graph import Graph, graph
from .judge import Problem, problems
from .payload_schemas import schema_of
from .system import Service, service

__all__ = [
    "Change",
    "Graph",
    "Problem",
    "Service",
    "asyncapi",
    "compare",
    "dot",
    "graph",
    "mermaid",
    "problems",
    "schema_of",
    "service",
]
