"""aiokafka's errors, mapped to anymq's."""

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

from .client.compat import kafka


def _other(error: BaseException) -> type[AnymqError]:
    """Map an error that the table does not name, by aiokafka's `retriable`."""
    return TransientError if getattr(error, "retriable", False) else PermanentError


ERRORS: ErrorTable = {
    # The broker cannot be reached.
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
    # Also every error code of a newer broker that aiokafka does not know.
    kafka.UnknownError: TransientError,
    # The group is in another generation; the member joins again.
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
    # The broker lacks quota, disk space or replicas.
    kafka.QuotaViolationError: Throttled,
    kafka.KafkaStorageError: Throttled,
    kafka.NotEnoughReplicasError: Throttled,
    kafka.NotEnoughReplicasAfterAppendError: Throttled,
    kafka.TooManyInFlightRequests: Throttled,
    # Authentication and authorization.
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
    # Topics and groups that do not exist, and messages that are too large.
    kafka.UnknownTopicOrPartitionError: NotFound,
    kafka.GroupIdNotFound: NotFound,
    kafka.MessageSizeTooLargeError: MessageTooLarge,
    kafka.RecordListTooLargeError: MessageTooLarge,
    kafka.RecordTooLargeError: MessageTooLarge,
    # Errors of the program, or of its settings.
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
    # All others.
    kafka.KafkaError: _other,
    # The transport.
    ssl.SSLCertVerificationError: AccessDenied,
    ssl.SSLError: ConnectionLost,
    OSError: ConnectionLost,
    EOFError: ConnectionLost,
    TimeoutError: TransientError,
}
"""By exception class the class of `anymq.errors`; the most specific class wins."""
