"""The container image: what goes into it, how it is built, how it starts."""
