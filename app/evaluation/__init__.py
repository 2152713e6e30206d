"""`stillscan evaluate`: methods, simulated noise, measures, and the tables of results."""
