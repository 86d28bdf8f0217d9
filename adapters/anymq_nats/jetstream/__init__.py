"""The parts that only JetStream has: its names, pull requests, logs, presence and lease store."""
