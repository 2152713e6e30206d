"""The `Denoiser` protocol and what implements it."""
