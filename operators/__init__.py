"""DICOM to volumes and back, the quality gate, the report, the holoscan operators."""
