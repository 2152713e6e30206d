"""Reading and writing single DICOM attributes."""
