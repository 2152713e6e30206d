"""Which tests run where: those that need MONAI Label have an environment of its own.

`make test` runs what needs no monailabel, `make label-test` runs everything in this folder.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from tests.app.training.tiny_training import noisy_stack

NEED_MONAI_LABEL = [
    "test_app.py",
    "test_infer_task.py",
    "test_monaibundle.py",
    "test_server.py",
    "test_train_task.py",
]
collect_ignore = [] if find_spec("monailabel") else NEED_MONAI_LABEL

# oblique, left-handed, with three different spacings
OBLIQUE = np.array(
    [[0.8, 0.12, 0.3, -61.0], [-0.1, 1.1, -0.6, -77.5], [0.05, 0.2, 2.9, 14.25], [0, 0, 0, 1]]
)


@pytest.fixture
def noisy_image():
    """Discs with white noise, as viewers hold them: [i, j, k]."""
    return np.ascontiguousarray(noisy_stack(5, 64)[:, :48].transpose(2, 1, 0))


@pytest.fixture
def save(tmp_path: Path):
    """`save(image, "a.nii.gz")` writes a NIfTI file with an oblique affine."""
    import nibabel

    def write(image: np.ndarray, name: str, folder: Path = tmp_path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        nifti = nibabel.Nifti1Image(image, OBLIQUE)
        nifti.header.set_xyzt_units("mm", "sec")
        nifti.header["descrip"] = b"kept"
        nibabel.save(nifti, folder / name)
        return folder / name

    return write
