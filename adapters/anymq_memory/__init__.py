"""The memory backend of anymq."""
