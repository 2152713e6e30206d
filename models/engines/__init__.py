"""Inference backends for the student network."""
