import pytest

from anymq.testing.conformance import Conformance, Faults

from .servers import ServerHarness

HARNESS = ServerHarness("nats", "nats")


@pytest.mark.nats
class TestNats(Conformance):
    harness = HARNESS


@pytest.mark.nats
@pytest.mark.xdist_group("nats-faults")
class TestNatsFaults(Faults):
    harness = HARNESS
