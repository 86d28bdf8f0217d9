"""Consuming: a subscription, from its source to its handlers and back."""
