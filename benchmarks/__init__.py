"""Measures anymq against real servers: `python -m benchmarks COMMAND`. Not in the wheel."""
