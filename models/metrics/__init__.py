"""Image quality, detectability, noise power and confidence intervals."""
