"""Decides which series are complete and denoised, and runs the jobs."""
