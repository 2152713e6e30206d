"""From files to a volume: selection, consistency, slice order, decoding in a child process."""
