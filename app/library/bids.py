"""A BIDS data set: which images are denoised, and the derivative data set that they become.

Follows the Brain Imaging Data Structure 1.10: names of entities, inheritance of sidecars, files
of a derivative (https://bids-specification.readthedocs.io).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillscan import __version__
from stillscan.app.pipeline.inputs import BIDS_DESCRIPTION, is_nifti
from stillscan.operators.errors import DamagedFileError
from stillscan.operators.reading.file_names import shown

VERSION = "1.10.0"
MODALITIES = {"anat": "MR", "func": "MR", "dwi": "MR", "perf": "MR", "pet": "PT"}  # by data type
# Suffixes of images; those of maps, masks, field maps and synthetic contrasts are left out.
SUFFIXES = re.compile(
    "T1w|T2w|T2starw|PDw|PDT2|FLAIR|inplaneT1|inplaneT2|angio|MESE|MEGRE|VFA|IRT1|MPM|MTS|MTR|"
    "bold|cbv|sbref|dwi|asl|m0scan|pet"
)
COMPLEX = {"part-phase", "part-real", "part-imag"}


@dataclass(frozen=True)
class BidsImage:
    """An image of a data set; `modality` is "" where it is none to denoise."""

    path: Path
    entities: tuple[str, ...]
    suffix: str
    modality: str

    def derived_name(self, description: str, ending: str) -> str:
        """Return the name of a derived file, such as `sub-01_desc-denoised_T1w.nii.gz`."""
        return "_".join((*self.entities, f"desc-{description}", self.suffix)) + ending


def find_images(folder: Path) -> Iterator[BidsImage]:
    """Yield the NIfTI files of all subjects, in a fixed order."""
    for path in sorted(folder.glob("sub-*/**/*.nii*")):
        if is_nifti(path):
            yield image_of(path)


def image_of(path: Path) -> BidsImage:
    """Read what the name and the folder of a NIfTI file say."""
    *entities, suffix = ending_off(path).split("_")
    wanted = SUFFIXES.fullmatch(suffix) and not COMPLEX & set(entities)
    modality = MODALITIES.get(path.parent.name, "") if wanted else ""
    return BidsImage(path, tuple(entities), suffix, modality)


def ending_off(path: Path) -> str:
    """Return the name of a NIfTI file without its ending."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def sidecar_of(image: BidsImage, root: Path) -> dict[str, Any]:
    """Return the metadata of an image, the more specific files before the more general.

    Raises:
        DamagedFileError: if one of them is not JSON.
    """
    metadata: dict[str, Any] = {}
    for file in reversed(inherited(image, root, ".json")):
        metadata |= read_json(file)
    return metadata


def inherited(image: BidsImage, root: Path, ending: str) -> list[Path]:
    """Return the files beside or above an image that belong to it, the nearest first."""
    found = []
    for folder in image.path.parents:  # ends, also where the root is "." or "/"
        if not folder.is_relative_to(root):
            break
        for path in sorted(folder.iterdir(), key=lambda each: -len(each.name)):
            *entities, suffix = path.name.removesuffix(ending).split("_")
            belongs = suffix == image.suffix and set(entities) <= set(image.entities)
            if belongs and path.name.endswith(ending):
                found.append(path)
    return found


def read_json(file: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        DamagedFileError: if it does not.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{shown(file)} cannot be read as JSON") from error
    if not isinstance(document, dict):
        raise DamagedFileError(f"{shown(file)} holds no JSON object")
    return document


def description_of(source: Path, output: Path) -> Mapping[str, Any]:
    """Return the `dataset_description.json` of the derivatives of a data set."""
    raw = read_json(source / BIDS_DESCRIPTION)
    return {
        "Name": f"{raw.get('Name', 'unnamed')} (denoised)",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "Stillscan", "Version": __version__}],
        "DatasetLinks": {"raw": os.path.relpath(source.resolve(), output.resolve())},
        **({"License": raw["License"]} if "License" in raw else {}),
    }
