"""Training: losses, noisy examples, and the stages that a student goes through."""
