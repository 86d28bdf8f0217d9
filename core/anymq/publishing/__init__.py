"""Publishing: payloads become records, and records are confirmed."""
