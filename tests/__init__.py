"""The tests. `make test` runs them all, with the real servers; `pytest tests/core` needs none."""
