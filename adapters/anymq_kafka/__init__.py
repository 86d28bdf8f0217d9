"""The Kafka backend of anymq."""
