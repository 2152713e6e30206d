"""STOW-RS, the status page, metrics and health over HTTP."""
