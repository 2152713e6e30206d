"""Creates jobs for complete series, and runs them."""
