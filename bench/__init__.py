"""Speed and quality against peers, the demo, and the generated head series both look at."""
