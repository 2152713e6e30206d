"""`python -m stillscan.app.monai_bundle.checks BUNDLE ...`: the model zoo's requirements.

The zoo's own checks (`ci/verify_bundle.py` and CONTRIBUTING.md of the MONAI model zoo) download the
schema; these make the same checks with MONAI's functions and without a network: files,
version and changelog, metadata against the schema beside this file, names of the configs' keys,
MONAI's properties of both workflows, sizes and types of the network's input and output, weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import jsonschema
import torch
import typer
from safetensors.torch import load_file

from stillscan.app.bundles.files import DATA_LICENSE, LICENSE, STATE
from stillscan.app.training.request import RUN
from stillscan.models.bundle import METADATA, WEIGHTS

SCHEMA = Path(__file__).with_name("metadata_schema.json")
INFERENCE, TRAIN = Path("configs/inference.yaml"), Path("configs/train.yaml")
PAGE = Path("docs/README.md")
FILES = (
    METADATA,
    LICENSE,
    STATE,
    INFERENCE,
    TRAIN,
    PAGE,
    DATA_LICENSE,
    Path("configs/logging.conf"),
)
LARGEST_FILE = 25 * 10**6  # bytes: the zoo's limit; checkpoints of a run do not count
SECTIONS = ("Model", "Intended use", "Data", "Performance", "Limits", "Licence")
SIZES = (1, 3)  # n of "8*n"
INFERENCE_KEYS = (
    *("bundle_root", "device", "network_def", "preprocessing", "inferer", "postprocessing"),
    *("output_dir", "dataset_dir"),
)
TRAIN_KEYS = ("bundle_root", "device", "dataset_dir", "output_dir", "train")


def faults_of(bundle: Path) -> Iterator[str]:
    """Yield the faults of a bundle; none if the model zoo would accept it.

    If files are missing or the metadata are wrong, nothing else is checked.
    """
    found = [*_files(bundle)]
    if not found:
        metadata = json.loads((bundle / METADATA).read_text(encoding="utf-8"))
        found += [*_metadata(metadata)]
    yield from found
    if found:
        return
    yield from _page(bundle)
    yield from _weights(bundle)
    yield from _configs(bundle)
    for n in SIZES:
        yield from _network(bundle, n)


def _files(bundle: Path) -> Iterator[str]:
    for file in FILES:
        path = bundle / file
        if not path.is_file() or not path.stat().st_size:
            yield f"{file} is missing or empty"
    for path in bundle.rglob("*"):
        name = path.relative_to(bundle)
        if name.parts[0] != RUN and path.is_file() and path.stat().st_size > LARGEST_FILE:
            yield f"{name} is larger than {LARGEST_FILE / 1e6:.0f} MB"


def _metadata(metadata: dict[str, Any]) -> Iterator[str]:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for error in jsonschema.Draft7Validator(schema).iter_errors(metadata):
        yield f"{METADATA}: {error.json_path}: {error.message}"
    if metadata.get("version") not in metadata.get("changelog", {}):
        yield f"{METADATA}: version {metadata.get('version')} has no entry in changelog"


def _page(bundle: Path) -> Iterator[str]:
    text = (bundle / PAGE).read_text(encoding="utf-8")
    for section in SECTIONS:
        if f"\n## {section}\n" not in text:
            yield f"{PAGE} has no section '{section}'"


def _weights(bundle: Path) -> Iterator[str]:
    """Check that the two files of weights hold the same numbers."""
    state = torch.load(bundle / STATE, weights_only=True)
    known = load_file(bundle / WEIGHTS)
    if state.keys() != known.keys():
        yield f"{STATE} and {WEIGHTS} hold different tensors"
    elif not all(torch.equal(state[name], known[name]) for name in known):
        yield f"{STATE} and {WEIGHTS} hold different numbers"


def _configs(bundle: Path) -> Iterator[str]:
    """Check the keys of the configs and MONAI's properties of a workflow, without running it."""
    from monai.bundle import ConfigParser, ConfigWorkflow
    from monai.bundle.properties import InferProperties, TrainProperties
    from monai.utils import BundleProperty, BundlePropertyConfig

    asked = ((INFERENCE, INFERENCE_KEYS, InferProperties), (TRAIN, TRAIN_KEYS, TrainProperties))
    for file, keys, properties in asked:
        parser = ConfigParser()
        parser.read_config(str(bundle / file))
        parser.read_meta(str(bundle / METADATA))
        required = [
            each[BundlePropertyConfig.ID]
            for each in properties.values()
            if each[BundleProperty.REQUIRED]
        ]
        for key in dict.fromkeys([*keys, *required]):
            if key not in parser:
                yield f"{file} has no key '{key}'"
        workflow = ConfigWorkflow(
            workflow_type="train" if file == TRAIN else "infer",
            config_file=str(bundle / file),
            meta_file=str(bundle / METADATA),
            logging_file=False,
        )
        for name, each in properties.items():
            if not each[BundleProperty.REQUIRED] and not workflow._check_optional_id(name, each):
                yield f"{file}: '{name}' does not have the name that MONAI requires"


def _network(bundle: Path, n: int) -> Iterator[str]:
    """Run MONAI's own check of channels and types, at one size."""
    from monai.bundle import verify_net_in_out

    try:
        verify_net_in_out(
            "network_def",
            meta_file=str(bundle / METADATA),
            config_file=str(bundle / INFERENCE),
            device="cpu",
            n=n,
            bundle_root=str(bundle),
        )
    except (ValueError, RuntimeError, KeyError) as error:
        yield f"verify_net_in_out with n = {n}: {error}"


def main(bundles: Annotated[list[Path], typer.Argument(help="Folders of bundles")]) -> None:
    """Print every fault of every bundle; exit code 1 if there is one."""
    say: Callable[[str], None] = typer.echo
    faulty = False
    for bundle in bundles:
        faults = list(faults_of(bundle))
        faulty |= bool(faults)
        for fault in faults or ["no faults"]:
            say(f"{bundle.name}: {fault}")
    raise typer.Exit(int(faulty))


if __name__ == "__main__":
    typer.run(main)
