"""Files of a bundle beside weights, metadata and README: configs, licences, `models/model.pt`.

`python -m stillscan.app.bundles.files BUNDLE ...` writes the configs of this version into bundles
of earlier versions; nothing else of them is changed.
"""

from __future__ import annotations

import json
import re
import sys
from functools import reduce
from pathlib import Path

import torch
from safetensors.torch import load_file

import stillscan.app
from stillscan.models.bundle import METADATA, WEIGHTS

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
    write_configs(folder)
    (folder / "docs").mkdir(exist_ok=True)
    (folder / LICENSE).write_text(licence, encoding="utf-8")
    (folder / DATA_LICENSE).write_text(data_licence, encoding="utf-8")
    torch.save(load_file(folder / WEIGHTS), folder / STATE)


def write_configs(folder: Path) -> None:
    """Write the configs, with the values of `metadata.json` in place of references to it.

    MONAI Label's bundle app, and the MONAI Deploy SDK, read the configs without the metadata.
    """
    metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))

    def value_of(reference: re.Match[str]) -> str:
        return json.dumps(reduce(lambda part, key: part[key], reference[1].split("#"), metadata))

    for name in CONFIGS:
        text = (CONFIG_FOLDER / name).read_text(encoding="utf-8")
        text = re.sub(r'"@_meta_#([\w#]+)"', value_of, text)
        (folder / "configs" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for bundle in sys.argv[1:]:
        write_configs(Path(bundle))
