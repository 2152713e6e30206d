"""Networks, noise, training: tensors in, tensors out, no DICOM."""
