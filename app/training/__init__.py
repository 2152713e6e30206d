"""`stillscan train`: a folder of noisy series becomes a bundle; how the shipped ones were made."""
