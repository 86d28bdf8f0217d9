"""aiokafka: the only place that touches its private parts."""
