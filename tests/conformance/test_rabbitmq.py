import pytest

from anymq.testing.conformance import Conformance, Faults

from .servers import ServerHarness

HARNESS = ServerHarness("rabbitmq", "amqp")
HARNESS.says_what_was_skipped = False  # after a purge the log has a new identity


@pytest.mark.rabbitmq
class TestRabbitMQ(Conformance):
    harness = HARNESS


@pytest.mark.rabbitmq
@pytest.mark.xdist_group("rabbitmq-faults")
class TestRabbitMQFaults(Faults):
    harness = HARNESS
