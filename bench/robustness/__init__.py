"""Fuzzing, mutated files and hostile network peers."""
