"""The child process that parses and decodes untrusted files; standard library alone."""
