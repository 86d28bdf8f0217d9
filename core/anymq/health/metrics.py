"""Metrics of an app, and their text in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..consuming.health import SubscriptionHealth
from .lag import Lag
from .report import Health

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SYSTEMS = {
    "amqp": "rabbitmq",
    "amqps": "rabbitmq",
    "kafka+ssl": "kafka",
    "tls": "nats",
    "rediss": "redis",
    "sqlite": "anymq_sqlite",
    "memory": "anymq_memory",
}
"""The value of `messaging_system` by scheme; other schemes are their own."""

Labels = Mapping[str, str]
Kind = Literal["counter", "gauge"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its samples are pairs of labels and value."""

    name: str
    kind: Kind
    help: str
    samples: Sequence[tuple[Labels, float]]


def metrics(health: Health, lags: Sequence[Lag] = ()) -> list[Metric]:
    """Return the metrics of `health` and of `lags`."""
    system = ""
    if health.broker is not None:
        system = SYSTEMS.get(health.broker.backend, health.broker.backend)
    made = [*_of_app(health), *_of_subscriptions(health.subscriptions, system)]
    for name, text, values in (
        (
            "anymq_consumer_lag",
            "Messages that the group has not settled.",
            [(lag, lag.messages) for lag in lags],
        ),
        (
            "anymq_consumer_lag_time_seconds",
            "Age of the oldest message that the group has not settled.",
            [(lag, lag.seconds) for lag in lags],
        ),
    ):
        known = [(lag, float(value)) for lag, value in values if value is not None]
        samples = [(_labels(system, lag.topic, lag.group), value) for lag, value in known]
        made.append(Metric(name, "gauge", text, samples))
    return [metric for metric in made if metric.samples]


def _of_app(health: Health) -> Iterable[Metric]:
    info = {"name": health.name or "", "version": health.version or ""}
    yield Metric("anymq_app_info", "gauge", "The application.", [(info, 1)])
    yield Metric("anymq_live", "gauge", "1 if no restart is needed.", [({}, health.live)])
    yield Metric("anymq_ready", "gauge", "1 if it receives messages.", [({}, health.ready)])
    if health.broker is not None:
        connected = health.broker.connected
        yield Metric("anymq_connected", "gauge", "1 if the broker answers.", [({}, connected)])


def _of_subscriptions(items: Sequence[SubscriptionHealth], system: str) -> Iterable[Metric]:
    def metric(name: str, kind: Kind, text: str, values: Iterable[float]) -> Metric:
        labels = [_labels(system, item.topic, item.group) for item in items]
        return Metric(name, kind, text, list(zip(labels, values, strict=True)))

    yield metric(
        "messaging_client_consumed_messages_total",
        "counter",
        "Deliveries that were dispatched to the application.",
        [item.consumed for item in items],
    )
    yield metric(
        "anymq_deliveries_settled_total",
        "counter",
        "Deliveries that are no longer held here.",
        [item.settled for item in items],
    )
    for name, text, values in (
        ("messages_in_flight", "Unsettled deliveries.", [item.in_flight for item in items]),
        ("messages_buffered", "Deliveries waiting for a handler.", [i.buffered for i in items]),
        ("handlers_running", "Handlers that run.", [item.handlers.count for item in items]),
        (
            "handlers_oldest_seconds",
            "Seconds for which the oldest handler has been running.",
            [item.handlers.oldest for item in items],
        ),
        (
            "handlers_overdue",
            "Handlers beyond their deadline.",
            [item.handlers.overdue for item in items],
        ),
        (
            "subscription_has_source",
            "Subscriptions that read from the broker.",
            [item.has_source for item in items],
        ),
        ("subscription_paused", "Subscriptions that are paused.", [item.paused for item in items]),
        ("stopped_keys", "Keys that are stopped.", [item.stopped_keys for item in items]),
    ):
        yield metric(f"anymq_{name}", "gauge", text, values)


def _labels(system: str, topic: str, group: str | None) -> Labels:
    labels = {"messaging_system": system, "messaging_destination_name": topic}
    return labels if group is None else labels | {"messaging_consumer_group_name": group}


def exposition(metrics: Iterable[Metric]) -> str:
    """Return the text of `metrics`. Samples of equal labels are added up."""
    lines: list[str] = []
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {metric.help}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        sums: dict[str, float] = {}
        for labels, value in metric.samples:
            text = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
            sums[text] = sums.get(text, 0.0) + value
        for text, value in sums.items():
            lines.append(f"{metric.name}{f'{{{text}}}' if text else ''} {_number(value)}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
