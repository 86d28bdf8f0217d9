"""The Redis Streams backend of anymq."""
