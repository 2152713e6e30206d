"""`make soak`: the gateway under load, kills and faults."""
