from pathlib import Path

import pytest

from anymq import Broker
from anymq.testing.conformance import Conformance, Faults

from .servers import ServerHarness

HARNESS = ServerHarness("nats", "nats")


class PlainHarness(ServerHarness):
    def url(self, folder: Path) -> str:
        return f"{HARNESS.url(folder)}?client=plain"


@pytest.mark.nats
class TestNats(Conformance):
    harness = HARNESS


@pytest.mark.nats
@pytest.mark.xdist_group("nats-faults")
class TestNatsFaults(Faults):
    harness = HARNESS


@pytest.mark.long
@pytest.mark.nats
class TestNatsPlain(Conformance):
    """The client that uses only the public interface of nats-py."""

    harness = PlainHarness("nats-plain", "nats")

    @pytest.mark.xfail(strict=True, reason="nats-py trims header values when it reads them")
    async def test_headers_and_attributes_arrive_unchanged(
        self, broker: Broker, topic: str
    ) -> None:
        # tests/adapters/nats/test_plain.py has the part that holds.
        await super().test_headers_and_attributes_arrive_unchanged(broker, topic)
