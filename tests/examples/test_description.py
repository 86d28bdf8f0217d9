"""The order system's services as an AsyncAPI document and as a graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from anymq.description import asyncapi, graph, service
from examples.orders.run import Run
from examples.orders.serve import application
from examples.orders.services import SERVICES
from tests.description.test_asyncapi import problems


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_described(name: str, tmp_path: Path) -> None:
    run = Run("memory://", "r1", tmp_path)
    described = service(application(run, SERVICES[name]), name=name)
    document = asyncapi([described])
    assert problems(document) == []
    assert document["operations"]
    assert len(graph([described]).services[0].handlers) == len(described.receives) > 0
