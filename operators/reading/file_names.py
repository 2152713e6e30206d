"""File names for messages, without names that may be those of patients.

A name that consists of numbers and technical words is shown as it is (`IM_0001.dcm`,
`02_copy.dcm`), any other as a digest, by which a person with the files can identify it:

    for file in *; do printf '%s  ' "$file"; printf '%s' "$file" | sha256sum | cut -c1-12; done
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

TRADE = """
acq already bad bits broken burned bytes charset constant copy corrupt cr ct damaged data dcm
deflate denoised derived dicom dicomdir differs dims dose duplicate dx ecg empty enhanced example
examples file first flag float folder fraction frame frames geometry header huge ids im ima image
images img index instance item junk last local localizer lost matrix meta mismatch missing mixed
mono mr mutant nested noise notes number odd orientation original padding path patient patients
pixel pixeldata pixels plan position preamble presentation pt random readme renamed report rescale
result rgb rt rtdose rtplan rtstruct scan se seg segmentation sequences ser series signed size
slice slices slope sop sr state stream strings study syntax text tiny transfer traversal truncated
txt uid unknown us volume waveform zero
"""
PLAIN = re.compile(
    rf"(?:(?<![a-z])(?:{'|'.join(TRADE.split())}|[a-z])(?![a-z])|[0-9._-])+", re.ASCII | re.I
)
LONGEST = 64


def shown(path: Path) -> str:
    """The name of a file for a message: printable, and without patient data."""
    name = path.name
    if len(name) <= LONGEST and PLAIN.fullmatch(name):
        return name
    return f"file-{sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def shown_below(path: Path, folder: Path) -> str:
    """The same, with the path relative to `folder`."""
    if path == folder:
        return shown(path)
    steps = path.relative_to(folder).parts
    return "/".join(shown(Path(step)) for step in steps)
