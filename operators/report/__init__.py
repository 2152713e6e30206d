"""Report of a run: outcomes, result.json, pages and pictures."""
