"""The file: its connection, its tables, and the functions that work on their rows."""
