"""Evaluation of anomaly maps: figures, tables, command."""
