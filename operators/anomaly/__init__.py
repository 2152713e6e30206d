"""Anomaly maps of DICOM series: placing images on a bundle's grid, findings, objects, page."""
