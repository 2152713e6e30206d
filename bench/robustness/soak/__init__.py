"""`make soak`: tests the gateway under load, kills and faults."""
