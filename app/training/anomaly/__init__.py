"""Training of anomaly bundles: stages, release check, command."""
