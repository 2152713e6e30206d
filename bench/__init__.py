"""Benchmarks, demos, robustness tests and the generated head series that they use."""
