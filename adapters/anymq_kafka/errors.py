"""What aiokafka's errors mean."""

from __future__ import annotations

import ssl

from anymq.driver import (
    AccessDenied,
    AnymqError,
    Closed,
    ConfigurationError,
    ConnectionLost,
    ErrorTable,
    MessageTooLarge,
    NotFound,
    PermanentError,
    Throttled,
    TransientError,
)

from .client.internals import kafka


def _other(error: BaseException) -> type[AnymqError]:
    """What has no line of its own: aiokafka knows which of the broker's answers are temporary."""
    return TransientError if getattr(error, "retriable", False) else PermanentError


ERRORS: ErrorTable = {
    # The broker cannot be reached, or not just now.
    kafka.KafkaConnectionError: ConnectionLost,
    kafka.KafkaUnavailableError: ConnectionLost,
    kafka.NoBrokersAvailable: ConnectionLost,
    kafka.NodeNotReadyError: ConnectionLost,
    kafka.BrokerNotAvailableError: ConnectionLost,
    kafka.CorrelationIdError: ConnectionLost,
    kafka.MetadataEmptyBrokerList: ConnectionLost,
    kafka.KafkaTimeoutError: TransientError,
    kafka.RequestTimedOutError: TransientError,
    kafka.ReplicaNotAvailableError: TransientError,
    kafka.StaleControllerEpochError: TransientError,
    kafka.StaleLeaderEpochCodeError: TransientError,
    kafka.CorruptRecordException: TransientError,
    kafka.FetchSessionIdNotFound: TransientError,
    kafka.InvalidFetchSessionEpoch: TransientError,
    kafka.ListenerNotFound: TransientError,
    kafka.LogDirNotFound: TransientError,
    kafka.ReassignmentInProgress: TransientError,
    # Also every code that a newer broker knows and aiokafka does not.
    kafka.UnknownError: TransientError,
    # The group has moved on; the member joins again.
    kafka.CommitFailedError: TransientError,
    kafka.IllegalGenerationError: TransientError,
    kafka.IllegalStateError: TransientError,
    kafka.UnknownMemberIdError: TransientError,
    kafka.RebalanceInProgressError: TransientError,
    kafka.MemberIdRequired: TransientError,
    kafka.NonEmptyGroup: TransientError,
    kafka.NoOffsetForPartitionError: TransientError,
    kafka.OffsetOutOfRangeError: TransientError,
    # The producer's session has ended; the driver opens another.
    kafka.ProducerClosed: TransientError,
    kafka.ProducerFenced: TransientError,
    kafka.InvalidProducerEpoch: TransientError,
    kafka.InvalidProducerIdMapping: TransientError,
    kafka.OutOfOrderSequenceNumber: TransientError,
    kafka.UnknownProducerId: TransientError,
    kafka.ConcurrentTransactions: TransientError,
    # Refused for now: quotas, disks, replicas.
    kafka.QuotaViolationError: Throttled,
    kafka.KafkaStorageError: Throttled,
    kafka.NotEnoughReplicasError: Throttled,
    kafka.NotEnoughReplicasAfterAppendError: Throttled,
    kafka.TooManyInFlightRequests: Throttled,
    # Who one is, and what one may.
    kafka.AuthenticationFailedError: AccessDenied,
    kafka.AuthenticationMethodNotSupported: AccessDenied,
    kafka.SaslAuthenticationFailed: AccessDenied,
    kafka.UnsupportedSaslMechanismError: AccessDenied,
    kafka.IllegalSaslStateError: AccessDenied,
    kafka.TopicAuthorizationFailedError: AccessDenied,
    kafka.GroupAuthorizationFailedError: AccessDenied,
    kafka.ClusterAuthorizationFailedError: AccessDenied,
    kafka.TransactionalIdAuthorizationFailed: AccessDenied,
    kafka.DelegationTokenAuthDisabled: AccessDenied,
    kafka.DelegationTokenAuthorizationFailed: AccessDenied,
    kafka.DelegationTokenExpired: AccessDenied,
    kafka.DelegationTokenNotFound: AccessDenied,
    kafka.DelegationTokenOwnerMismatch: AccessDenied,
    kafka.DelegationTokenRequestNotAllowed: AccessDenied,
    kafka.InvalidPrincipalType: AccessDenied,
    kafka.SecurityDisabled: AccessDenied,
    # What is missing, or too much.
    kafka.UnknownTopicOrPartitionError: NotFound,
    kafka.GroupIdNotFound: NotFound,
    kafka.MessageSizeTooLargeError: MessageTooLarge,
    kafka.RecordListTooLargeError: MessageTooLarge,
    kafka.RecordTooLargeError: MessageTooLarge,
    # What the program or its settings must change.
    kafka.IllegalArgumentError: ConfigurationError,
    kafka.KafkaConfigurationError: ConfigurationError,
    kafka.IllegalOperation: ConfigurationError,
    kafka.InvalidTopicError: ConfigurationError,
    kafka.InvalidGroupIdError: ConfigurationError,
    kafka.InvalidSessionTimeoutError: ConfigurationError,
    kafka.InconsistentGroupProtocolError: ConfigurationError,
    kafka.InvalidPartitionsError: ConfigurationError,
    kafka.InvalidReplicationFactorError: ConfigurationError,
    kafka.InvalidReplicationAssignmentError: ConfigurationError,
    kafka.InvalidConfigurationError: ConfigurationError,
    kafka.PolicyViolationError: ConfigurationError,
    kafka.UnsupportedCodecError: ConfigurationError,
    kafka.ConsumerStoppedError: Closed,
    # All others, told apart by `retriable`.
    kafka.KafkaError: _other,
    # The transport.
    ssl.SSLCertVerificationError: AccessDenied,
    ssl.SSLError: ConnectionLost,
    OSError: ConnectionLost,
    EOFError: ConnectionLost,
    TimeoutError: TransientError,
}
"""What each exception means; the most specific class wins."""
