"""The tests. `make test` runs them with the real servers; `pytest tests/core` needs none."""
