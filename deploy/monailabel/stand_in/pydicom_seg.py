"""Replacement for pydicom-seg, which cannot be imported with pydicom 3 and NumPy 2.

`monailabel.datastore.utils.convert` imports it when the server starts and uses it for DICOM
segmentations only. This app reads and writes none: its results are images.
"""


def __getattr__(name: str) -> None:
    """Raise an explanation if a segmentation is requested."""
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(
        f"pydicom_seg.{name}: this environment has no pydicom-seg (it needs pydicom 2); the "
        "Stillscan app reads and writes no DICOM segmentations"
    )
