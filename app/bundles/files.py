"""Files of a bundle beside weights, metadata and README: configs, licences, `models/model.pt`."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

import stillscan.app
from stillscan.models.bundle import WEIGHTS

CONFIG_FOLDER = Path(stillscan.app.__path__[0]) / "monai_bundle"
CONFIGS = ("inference.yaml", "train.yaml", "logging.conf")  # the same in every bundle
STATE = Path("models/model.pt")
LICENSE = Path("LICENSE")
DATA_LICENSE = Path("docs/data_license.txt")


def add_bundle_files(folder: Path, licence: str, data_licence: str) -> None:
    """Write these files into a folder that holds the weights.

    `models/model.pt` holds the same numbers as the safetensors file, as the MONAI Bundle
    Specification asks for; the application never reads it (a pickle can hold a program).

    Args:
        folder: folder of the bundle.
        licence: text of `LICENSE`.
        data_licence: owners and terms of the training images.
    """
    for name in CONFIGS:
        (folder / "configs").mkdir(exist_ok=True)
        shutil.copyfile(CONFIG_FOLDER / name, folder / "configs" / name)
    (folder / "docs").mkdir(exist_ok=True)
    (folder / LICENSE).write_text(licence, encoding="utf-8")
    (folder / DATA_LICENSE).write_text(data_licence, encoding="utf-8")
    torch.save(load_file(folder / WEIGHTS), folder / STATE)
