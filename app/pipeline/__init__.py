"""The steps of a run: survey, stages, output folder, messages."""
