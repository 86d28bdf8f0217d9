"""The parts that JetStream alone has: names, pull requests, streams as logs, members."""
