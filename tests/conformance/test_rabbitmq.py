import pytest

from anymq.testing.conformance import Conformance, Faults

from .servers import ServerHarness

HARNESS = ServerHarness("rabbitmq", "amqp")


@pytest.mark.rabbitmq
class TestRabbitMQ(Conformance):
    harness = HARNESS


@pytest.mark.rabbitmq
@pytest.mark.xdist_group("rabbitmq-faults")
class TestRabbitMQFaults(Faults):
    harness = HARNESS
