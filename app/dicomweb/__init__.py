"""DICOMweb client (PS3.18): search, retrieve and store over HTTP."""
