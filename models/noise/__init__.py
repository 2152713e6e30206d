"""Noise models: measuring a profile, and making noise that follows one."""
