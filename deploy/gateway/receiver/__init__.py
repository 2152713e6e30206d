"""C-STORE and C-ECHO: accepts associations and stores instances in the spool."""
