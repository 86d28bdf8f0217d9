"""The query options of a Kafka URL."""

from __future__ import annotations

from dataclasses import dataclass

from anymq.driver import ConfigurationError

from .client.codec import MAX_DECOMPRESSED

_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_COMPRESSIONS = (None, "gzip", "snappy", "lz4", "zstd")


@dataclass(frozen=True)
class KafkaOptions:
    """Times are in seconds, sizes in bytes.

    Topics: `partitions` and `retention` apply where the `Topic` sets none (`retention` None: the
    broker's default). `replication` -1 is the broker's default. Bodies of `max_body` fit into a
    message, headers included.

    A compressed batch that decompresses to more than `max_decompressed` is not read. One dead
    letter replaces it, and names its offsets.

    Groups: a member that does not answer for `session_timeout` loses its partitions. It learns of
    joining and leaving members with its next `heartbeat`. A partition that is assigned to another
    member moves when none of its messages is in flight, or after `handover`. Commits are at least
    `commit_interval` apart. A partition pauses when reading is `max_uncommitted` offsets ahead of
    its oldest unsettled message. A consumer that delivers nothing for `stall_timeout` is checked,
    and replaced if messages wait for it.

    Retries: `retry_window` messages and `retry_window_bytes` of a retry topic are held in memory
    until they are due. Messages beyond that wait until there is room.
    """

    client_id: str = "anymq"
    publish_timeout: float = 10.0
    request_timeout: float = 10.0
    max_body: int = 1024 * 1024
    compression: str | None = None
    max_decompressed: int = MAX_DECOMPRESSED

    partitions: int = 6
    replication: int = -1
    retention: float | None = None
    metadata_max_age: float = 30.0

    session_timeout: float = 10.0
    heartbeat: float = 0.5
    rebalance_timeout: float = 60.0
    handover: float = 30.0
    commit_interval: float = 0.05
    max_uncommitted: int = 10_000
    fetch_max_bytes: int = 16 * 1024 * 1024
    stall_timeout: float = 20.0

    retry_partitions: int = 1
    retry_window: int = 1000
    retry_window_bytes: int = 16 * 1024 * 1024

    sasl_mechanism: str = "PLAIN"
    ca: str | None = None
    cert: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        if self.sasl_mechanism not in _MECHANISMS:
            raise ConfigurationError(f"sasl_mechanism must be one of {', '.join(_MECHANISMS)}")
        if self.compression not in _COMPRESSIONS:
            raise ConfigurationError("compression must be one of gzip, snappy, lz4, zstd")
        positive = (
            "publish_timeout",
            "request_timeout",
            "max_body",
            "max_decompressed",
            "partitions",
            "metadata_max_age",
            "session_timeout",
            "heartbeat",
            "rebalance_timeout",
            "max_uncommitted",
            "fetch_max_bytes",
            "stall_timeout",
            "retry_partitions",
            "retry_window",
            "retry_window_bytes",
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} must be greater than 0")
        if self.commit_interval < 0 or self.handover < 0:
            raise ConfigurationError("commit_interval and handover must not be negative")
        if self.heartbeat > self.session_timeout / 3:
            raise ConfigurationError("heartbeat must be at most a third of session_timeout")
