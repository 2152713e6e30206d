"""Training: losses, noisy examples, and the stages of distillation."""
