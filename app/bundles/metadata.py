"""`metadata.json` and README of a bundle: the MONAI Bundle schema and Stillscan's own section.

Used by `stillscan.app.training.shipped_bundles` and by `stillscan train`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch

import stillscan
from stillscan.models.one_tensor import CHANNELS, ESTIMATE

# not read here: `app/monai_bundle/metadata_schema.json` holds the same rules offline
SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
TESTED_MONAI = "1.6.1"  # MONAI reads and checks bundles; training does not need it
INTENDED_USE = (
    "Research and evaluation. Not a cleared medical device. The derived series is to be read with "
    "the original."
)
REFERENCES = (
    "Stage 2 and 3 follow DiffDenoise: arXiv 2504.00264 (2025)",
    "Recorrupted-to-recorrupted: Pang et al., CVPR 2021",
)
REQUIRED = ("safetensors", "jaxtyping")
FOR_NIFTI = {"nibabel": "5.3.0"}
NETWORK = (
    "`network_def` takes one tensor whose channels are the noisy image, the standard deviation of "
    "its noise and the noise's correlation, and returns the clean image and the standard deviation "
    "of its error. TorchScript is not supported."
)
USE = """Stillscan must be installed (`pip install '.[bundles]'` in its checkout).

```sh
python -m monai.bundle run --bundle_root . --config_file configs/inference.yaml \\
    --dataset_dir IN --output_dir OUT --modality MR
python -m monai.bundle run --bundle_root . --config_file configs/train.yaml \\
    --dataset_dir DATA --output_dir NEW --modality MR
```

IN holds NIfTI files, DATA DICOM, NIfTI, PNG or npz; `--modality` is for files that do not state
it. OUT gets NIfTI, float32 in the unit of the input, with the pixels of `stillscan denoise`: noise
and scaling are determined for each image, and the quality gate bounds what is changed."""
LIMITS = (
    "Noise beyond `noise_range` was not trained and is refused. Read the result with the original. "
    "Derived DICOM series are written by `stillscan denoise`."
)


@dataclass(frozen=True)
class BundleText:
    """The text of a bundle's metadata that differs between bundles.

    Attributes:
        name, data_source: for users.
        version, changelog: version of the bundle and its changes.
        modalities: DICOM Modality values that it is for.
        noise_range: lowest and highest sigma of its training, on the network's intensity scale.
        preliminary: whether it was trained on too little data; the application then warns.
        training: how it was trained.
        figures: measurements and the command that made them.
        authors, rights, licence: owner and terms.
        earlier: changelog of earlier versions.
        release: release decision and its table (`app/training/release.py`); None for a bundle that
            was not fine-tuned from another.
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
        default="One-step convolutional denoiser conditioned on level and correlation of the noise"
    )
    earlier: Mapping[str, str] = field(default_factory=dict)
    release: Mapping[str, Any] | None = None


def bundle_metadata(text: BundleText) -> dict[str, Any]:
    """Build the content of `metadata.json`, without the network's arguments (`save_bundle`)."""
    metadata: dict[str, Any] = {
        "schema": SCHEMA,
        "version": text.version,
        "changelog": {text.version: text.changelog, **text.earlier},
        "monai_version": _version("monai", TESTED_MONAI),
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {
            "stillscan": stillscan.__version__,  # has the modules that the configs name
            **{name: version(name) for name in REQUIRED},
            **FOR_NIFTI,
        },
        "supported_apps": {},
        "name": text.name,
        "task": "Noise reduction",
        "description": text.description,
        "authors": text.authors,
        "copyright": text.rights,
        "license": text.licence,
        "data_source": text.data_source,
        "data_type": text.data_type,
        "intended_use": INTENDED_USE,
        "references": list(REFERENCES),
        "network_data_format": {
            "inputs": {"image": _tensor(CHANNELS, text.modalities)},
            # two numbers for each pixel; of an "image" the SDK's operator would make 8 bits
            "outputs": {"pred": _tensor(ESTIMATE, text.modalities) | {"type": "tuples"}},
        },
        "stillscan": {
            "modalities": list(text.modalities),
            "noise_range": list(text.noise_range),
            "preliminary": text.preliminary,
            "training": dict(text.training),
            "figures": dict(text.figures),
        },
    }
    if text.release is not None:
        metadata["stillscan"]["release"] = dict(text.release)
    return metadata


def _tensor(channels: Sequence[str], modalities: Sequence[str]) -> dict[str, Any]:
    """Describe the channels of `OneTensorStudent` in the format of the MONAI specification."""
    return {
        "type": "image",
        "format": "magnitude",
        "modality": ", ".join(modalities),
        "num_channels": len(channels),
        "spatial_shape": ["8*n", "8*n"],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {str(number): name for number, name in enumerate(channels)},
    }


def page(metadata: Mapping[str, Any], data: str, *performance: str) -> str:
    """Build `docs/README.md` of a bundle, in the sections of the model zoo's template.

    Args:
        metadata: metadata of the bundle.
        data: description of the training images.
        performance: figures and how they were measured.
    """
    serves = ", ".join(metadata["stillscan"]["modalities"])
    sections = {
        "Model": f"{metadata['description']}. For {serves}. {NETWORK}",
        "Intended use": metadata["intended_use"],
        "Data": data,
        "Performance": "\n\n".join(performance) or "Not measured yet.",
        "Use with MONAI": USE,
        "Limits": LIMITS,
        "Licence": f"{metadata['copyright']}; {metadata['license']}: `LICENSE`. Training "
        "images: `docs/data_license.txt`.",
        "References": "\n".join(f"- {each}" for each in metadata["references"]),
    }
    parts = [f"# {metadata['name']}"]
    parts += [f"## {title}\n\n{text}" for title, text in sections.items()]
    return "\n\n".join(parts) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table in Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _version(package: str, tested: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return tested
