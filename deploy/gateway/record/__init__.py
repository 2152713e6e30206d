"""What the gateway remembers: the database, its queues, and retention on disk."""
