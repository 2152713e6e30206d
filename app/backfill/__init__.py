"""Back-fill: denoises a whole archive, on all cores or GPUs of a machine or a cluster."""
