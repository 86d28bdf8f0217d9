"""Connections over redis-py: the only code that touches its private parts."""
