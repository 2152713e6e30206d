"""`stillscan train`: trains a bundle on a folder of noisy series, and the shipped bundles."""
