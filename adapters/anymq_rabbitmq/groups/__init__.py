"""Groups of consumers: their queues, how a new one gets the past of its topic, and its attempts."""
