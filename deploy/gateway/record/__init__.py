"""The record of the gateway (database, queues), quarantine, and retention on disk."""
