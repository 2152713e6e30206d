"""Choice of the bundle for a series, and the files, metadata and release check of bundles."""
