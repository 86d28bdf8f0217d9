"""The NATS JetStream backend of anymq."""
