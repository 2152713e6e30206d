"""The stages of the pipeline, and the holoscan operators that run them."""
