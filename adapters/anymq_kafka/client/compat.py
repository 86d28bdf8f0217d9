"""The names that the adapter imports from aiokafka, and the private attributes that it relies on.

A release of aiokafka that lacks one of them is refused at connect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

from aiokafka import (  # type: ignore[import-untyped]
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    ConsumerRecord,
    OffsetAndMetadata,
    TopicPartition,
)
from aiokafka import errors as kafka
from aiokafka.admin import (  # type: ignore[import-untyped]
    AIOKafkaAdminClient,
    NewTopic,
    RecordsToDelete,
)
from aiokafka.admin.config_resource import (  # type: ignore[import-untyped]
    ConfigResource,
    ConfigResourceType,
)
from aiokafka.client import AIOKafkaClient  # type: ignore[import-untyped]
from aiokafka.codec import (  # type: ignore[import-untyped]
    cramjam,
    gzip_encode,
    has_lz4,
    has_snappy,
    has_zstd,
    lz4_encode,
    snappy_encode,
    zstd_encode,
)
from aiokafka.conn import AIOKafkaConnection  # type: ignore[import-untyped]
from aiokafka.consumer.fetcher import (  # type: ignore[import-untyped]
    Fetcher,
    FetchResult,
    PartitionRecords,
)
from aiokafka.consumer.group_coordinator import GroupCoordinator  # type: ignore[import-untyped]
from aiokafka.consumer.subscription_state import (  # type: ignore[import-untyped]
    Assignment,
    SubscriptionState,
    TopicPartitionState,
)
from aiokafka.coordinator.protocol import (  # type: ignore[import-untyped]
    ConsumerProtocolMemberAssignment as MemberAssignment,
)
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata as MemberMetadata
from aiokafka.protocol.admin import (  # type: ignore[import-untyped]
    ApiVersionRequest,
    DeleteGroupsRequest,
    DescribeGroupsRequest,
    ListGroupsRequest,
)
from aiokafka.protocol.api import (  # type: ignore[import-untyped]
    Request,
    RequestStruct,
    Response,
)
from aiokafka.protocol.commit import (  # type: ignore[import-untyped]
    OffsetCommitRequest,
    OffsetFetchRequest,
)
from aiokafka.protocol.fetch import FetchRequest  # type: ignore[import-untyped]
from aiokafka.protocol.types import (  # type: ignore[import-untyped]
    Array,
    Boolean,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
)
from aiokafka.record.util import calc_crc32c  # type: ignore[import-untyped]

__all__ = [
    "CLIENT_PARTS",
    "AIOKafkaAdminClient",
    "AIOKafkaClient",
    "AIOKafkaConnection",
    "AIOKafkaConsumer",
    "AIOKafkaProducer",
    "ApiVersionRequest",
    "Array",
    "Boolean",
    "ConfigResource",
    "ConfigResourceType",
    "Consumed",
    "ConsumerRebalanceListener",
    "DeleteGroupsRequest",
    "DescribeGroupsRequest",
    "FetchRequest",
    "Int16",
    "Int32",
    "Int64",
    "ListGroupsRequest",
    "MemberAssignment",
    "MemberMetadata",
    "NewTopic",
    "OffsetAndMetadata",
    "OffsetCommitRequest",
    "OffsetFetchRequest",
    "RecordsToDelete",
    "Request",
    "RequestStruct",
    "Response",
    "Schema",
    "String",
    "TopicPartition",
    "cramjam",
    "crc32c",
    "gzip_encode",
    "has_lz4",
    "has_snappy",
    "has_zstd",
    "kafka",
    "lz4_encode",
    "snappy_encode",
    "zstd_encode",
]

CLIENT_PARTS: dict[type, tuple[str, ...]] = {
    AIOKafkaClient: (
        "_conns",
        "_sasl_plain_password",
        "_sasl_plain_username",
        "_topics",
        "force_metadata_update",
        "send",
    ),
    AIOKafkaConnection: ("_on_close_cb", "close"),
    AIOKafkaProducer: ("_closed", "_message_accumulator", "_sender", "client", "send_batch"),
    AIOKafkaAdminClient: ("_client", "_closed", "_send_request_to_node"),
    AIOKafkaConsumer: ("_client", "_closed", "_coordinator", "_fetcher", "_subscription"),
    GroupCoordinator: (
        "_coordination_task",
        "_do_commit_offsets",
        "_send_req",
        "check_errors",
        "coordinator_dead",
        "ensure_coordinator_known",
        "generation",
        "group_id",
        "member_id",
        "request_rejoin",
    ),
    Fetcher: (
        "_client",
        "_create_fetch_waiter",
        "_fetch_max_wait_ms",
        "_fetch_task",
        "_notify",
        "_records",
        "_wait_consume_future",
        "seek_to",
    ),
    FetchResult: (
        "_assignment",
        "_partition_records",
        "check_assignment",
        "getall",
        "has_more",
    ),
    PartitionRecords: ("next_fetch_offset",),
    SubscriptionState: ("fetch_context", "reassignment_in_progress", "wait_for_assignment"),
    Assignment: ("active", "state_value"),
    TopicPartitionState: ("consumed_to", "paused", "position"),
}
"""The private attributes that this package uses, by class. The core checks them at connect."""

Consumed: TypeAlias = ConsumerRecord[Any, Any]
"""A record as aiokafka returns it."""

crc32c: Callable[[bytes | memoryview], int] = cast("Any", calc_crc32c)
