"""One publisher/consumer interface over several message brokers."""
