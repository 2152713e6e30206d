"""The way of a series through the application: survey, run, output folder, messages."""
