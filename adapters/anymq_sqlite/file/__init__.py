"""The database file: its connection and thread, its tables, and functions on their rows."""
