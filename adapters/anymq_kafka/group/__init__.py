"""One member of a Kafka consumer group: its assignment, offsets, commits and watchdog."""
