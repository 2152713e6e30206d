"""From a denoised volume to a derived DICOM series."""
