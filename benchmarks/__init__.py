"""Benchmarks and fault injection on real servers: `python -m benchmarks`. Not in the wheel."""
