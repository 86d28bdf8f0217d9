import pytest

from anymq.testing.conformance import Conformance, Faults

from .servers import ServerHarness

HARNESS = ServerHarness("kafka", "kafka")


@pytest.mark.kafka
class TestKafka(Conformance):
    harness = HARNESS


@pytest.mark.kafka
@pytest.mark.xdist_group("kafka-faults")
class TestKafkaFaults(Faults):
    harness = HARNESS
