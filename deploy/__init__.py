"""Where the application runs: images, gateways, platforms."""
