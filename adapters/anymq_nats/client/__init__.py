"""The clients over nats-py. Only this package uses its private parts."""
