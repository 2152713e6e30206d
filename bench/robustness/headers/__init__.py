"""Hostile headers: what no scanner writes, by kind."""
