"""nats-py as the adapter uses it: the only place that knows its private parts."""
