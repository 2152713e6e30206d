"""The demos: `make demo`, `make demo-pacs`, and the pictures of the tutorial."""
