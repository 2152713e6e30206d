"""Anomaly maps: how unusual a place is, beside a set of healthy images."""
