"""Settings, the operator graph, the command line."""
