"""The `Denoiser` protocol and its implementations."""
