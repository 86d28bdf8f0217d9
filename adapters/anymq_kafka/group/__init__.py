"""One member of a consumer group: assignment, offsets, commits, and its watchdog."""
