"""Back-fill: thousands of series of an archive, on as many cores or GPUs as there are."""
