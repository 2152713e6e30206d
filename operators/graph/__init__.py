"""The holoscan operators and the pipeline steps that they run."""
