"""From a volume to a denoised volume: plan, estimate, quality gate."""
