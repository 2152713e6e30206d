"""`metadata.json` and the page of a bundle: what the MONAI Bundle schema asks for, and our section.

Both ways to a bundle share it: `app.training.shipped_bundles` and `stillscan train`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

TESTED_MONAI = "1.6.1"  # MONAI reads bundles and checks them; training needs none
INTENDED_USE = (
    "Research and evaluation. Not a cleared medical device. The derived series is to be read with "
    "the original."
)


@dataclass(frozen=True)
class BundleText:
    """What differs from bundle to bundle.

    Attributes:
        name, data_source: for a person.
        version, changelog: of the bundle.
        modalities: DICOM Modality values that it serves.
        noise_range: sigma on the network's scale that it was trained for.
        preliminary: it has learned from too little to be relied on; the application says so.
        training: how it was made.
        figures: what was measured, and by which command.
        authors, rights, licence: whose it is.
    """

    name: str
    data_source: str
    version: str
    changelog: str
    modalities: Sequence[str]
    noise_range: tuple[float, float]
    preliminary: bool
    training: Mapping[str, Any]
    figures: Mapping[str, Any]
    data_type: str = "dicom"
    authors: str = "Stillscan"
    rights: str = "Copyright (c) Stillscan"
    licence: str = "Apache-2.0"
    description: str = field(
        default="One-step convolutional denoiser, told level and correlation of the noise"
    )


def bundle_metadata(text: BundleText) -> dict[str, Any]:
    """The content of `metadata.json`, but for the arguments of the network (`save_bundle`)."""
    plane = {"type": "image", "format": "magnitude", "num_channels": 1, "dtype": "float32"}
    noisy = plane | {"spatial_shape": ["8*n", "8*n"], "value_range": []}
    return {
        "version": text.version,
        "changelog": {text.version: text.changelog},
        "monai_version": _monai_version(),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"safetensors": version("safetensors")},
        "name": text.name,
        "task": "Noise reduction",
        "description": text.description,
        "authors": text.authors,
        "copyright": text.rights,
        "license": text.licence,
        "data_source": text.data_source,
        "data_type": text.data_type,
        "intended_use": INTENDED_USE,
        "network_data_format": {
            "inputs": {"image": noisy, "sigma": noisy},
            "outputs": {"pred": noisy | {"channel_def": {"0": "noise in units of sigma"}}},
        },
        "stillscan": {
            "modalities": list(text.modalities),
            "noise_range": list(text.noise_range),
            "preliminary": text.preliminary,
            "training": dict(text.training),
            "figures": dict(text.figures),
        },
    }


def page(metadata: Mapping[str, Any], *paragraphs: str) -> str:
    """`docs/README.md` of a bundle: what it is and what it is for, then the paragraphs."""
    title = f"# {metadata['name']}"
    return "\n\n".join([title, f"{metadata['description']}. {INTENDED_USE}", *paragraphs]) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _monai_version() -> str:
    try:
        return version("monai")
    except PackageNotFoundError:
        return TESTED_MONAI
