"""Which bundle denoises a series, and the files, metadata and release check of a bundle."""
