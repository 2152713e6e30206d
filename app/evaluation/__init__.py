"""`stillscan evaluate`: methods, noises and measures, and the tables that they make."""
