"""The wire format: headers of events and of dead letters."""
