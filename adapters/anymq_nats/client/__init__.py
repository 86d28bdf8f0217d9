"""The clients: nats-py with its private parts, and without."""
