"""The container image: its contents, its build and its entry point."""
