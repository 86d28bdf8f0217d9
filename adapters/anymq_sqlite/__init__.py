"""The SQLite backend of anymq."""
