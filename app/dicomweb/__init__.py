"""DICOMweb as a client (PS3.18): list, fetch and store over HTTP."""
