"""Noise schedule and samplers of the diffusion model."""
