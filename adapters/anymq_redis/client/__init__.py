"""The parts of the adapter that depend on how redis-py works inside."""
