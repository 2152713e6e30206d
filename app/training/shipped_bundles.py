"""Make the bundles `mr`, `xray` and `ct` from a checkpoint and the networks of the method.

`python -m stillscan.app.training.shipped_bundles CHECKPOINT METHOD`

All networks are trained on all domains together. Teacher and fast students are the same in all
three; the student lies between CHECKPOINT and `--keeping`, which was trained with a larger weight
of the lesions' loss, nearer to one or the other by domain (KEEPING). The figures are those that
`stillscan evaluate` measured for that domain. Without METHOD the existing teacher is kept, without
CHECKPOINT the student, without `--fast` and `--fast-int8` the fast students, without `--evaluation`
the figures; all other files are written again.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from stillscan.app.bundles.files import add_bundle_files
from stillscan.app.bundles.metadata import BundleText, bundle_metadata, page, table
from stillscan.app.datasets.development_data import SPLIT
from stillscan.models.bundle import (
    FAST_STUDENT,
    FAST_STUDENT_INT8,
    load_bundle,
    read_info,
    save_bundle,
)
from stillscan.models.networks.blind_spot import BlindSpotNetwork
from stillscan.models.networks.conditional_diffusion import DiffusionNetwork
from stillscan.models.networks.quantization import quantized
from stillscan.models.networks.student import StudentNetwork
from stillscan.models.networks.weights import load_network, save_network
from stillscan.models.training.noisy_examples import SIGMA_RANGE

BUNDLE_VERSION = "0.8.0"
CHANGES = (
    "students trained further with CT noise that is made in projections and with lesions that are "
    "judged in pairs: more of what is faint stays, and a little more noise"
)
# Between the noise that goes and the contrast that stays: share of the weights of --keeping,
# chosen on validation subjects (docs/method.md).
KEEPING = {"mr": 0.5, "xray": 0.65, "ct": 0.2}
EARLIER = {
    "0.7.0": "configs in the form of the MONAI model zoo, with preprocessing, inferer, "
    "postprocessing and the quality gate; the weights are those of 0.5.0",
    "0.6.0": "the configs name the package stillscan; the weights are those of 0.5.0",
    "0.5.0": "MR and radiographs: the fast student also in int8; the others are those of 0.4.0",
    "0.4.0": "a fast student joins the bundle; the student is that of 0.3.0",
    "0.3.0": "student trained further with faint structures: low contrast stays; configs for "
    "MONAI's bundle tools, licence files and models/model.pt",
    "0.2.0": "student trained for longer; teacher (blind spot, conditional diffusion) joins the "
    "bundle",
}
LICENSE = Path(__file__).resolve().parents[2] / "LICENSE"
COMMANDS = (
    "python -m stillscan.app.training.shipped_student --data $STILLSCAN_DATA --out runs/first "
    "--steps 11000",
    "python -m stillscan.app.training.shipped_student --data $STILLSCAN_DATA --out runs/student "
    "--from runs/first/checkpoint.pt --steps 12000 --seed 1 --learning-rate 0.0007",
    "python -m stillscan.app.training.shipped_student --data $STILLSCAN_DATA --out runs/faint "
    "--from runs/student/checkpoint.pt --steps 2200 --seed 3 --learning-rate 0.0005 --faint 0.6",
    "python -m stillscan.app.training.shipped_student --data $STILLSCAN_DATA --out runs/faint2 "
    "--from runs/faint/checkpoint.pt --steps 3000 --seed 4 --learning-rate 0.0007 --faint 0.9",
    "python -m stillscan.app.training.shipped_student --data $STILLSCAN_DATA --out runs/fast "
    "--widths 24,48,96 --steps 15000 --seed 5 --faint 0.5",
    "python -m stillscan.app.training.shipped_student --data $STILLSCAN_DATA --out runs/fast_int8 "
    "--from runs/fast/checkpoint.pt --widths 24,48,96 --steps 4000 --seed 6 "
    "--learning-rate 0.0003 --faint 0.5 --int8",
    "python -m bench.studies.method --data $STILLSCAN_DATA --out runs/method",
    # the commands above are those of the versions before 0.8.0
    "python -m stillscan.app.training.shipped_student --data $STILLSCAN_DATA --out runs/lesions "
    "--from runs/faint2/checkpoint.pt --steps 5000 --seed 11 --batch-size 6 "
    "--learning-rate 0.0004 --faint 0.3 --lesions 1",
    "python -m stillscan.app.training.shipped_student --data $STILLSCAN_DATA --out runs/keeping "
    "--from runs/lesions/checkpoint.pt --steps 3000 --seed 12 --batch-size 6 "
    "--learning-rate 0.0004 --faint 0.3 --lesions 4",
    "python -m stillscan.app.training.shipped_student --data $STILLSCAN_DATA --out runs/fast2 "
    "--from runs/fast/checkpoint.pt --widths 24,48,96 --steps 6000 --seed 13 --batch-size 6 "
    "--learning-rate 0.0004 --faint 0.3 --lesions 2",
    "python -m stillscan.app.training.shipped_student --data $STILLSCAN_DATA "
    "--out runs/fast2_int8 --from runs/fast2/checkpoint.pt --widths 24,48,96 --steps 3000 "
    "--seed 14 --batch-size 6 --learning-rate 0.0003 --faint 0.3 --int8",
    "the same with --steps 4500 --resume",
    "python -m stillscan.app.training.shipped_bundles runs/lesions/checkpoint.pt "
    "--keeping runs/keeping/checkpoint.pt --fast runs/fast2/checkpoint.pt "
    "--fast-int8 runs/fast2_int8/checkpoint.pt",
)
FAST_WIDTHS = (24, 48, 96)  # a quarter of the student's arithmetic
IN_INT8 = ("mr", "xray")  # on CT at low dose it finds less of low contrast
SERVES = {"mr": ["MR"], "xray": ["CR", "DX"], "ct": ["CT"]}
NAMES = {"mr": "MR", "xray": "radiographs", "ct": "CT (preliminary)"}
# all of it: the same networks are in every bundle, trained on all domains together
SOURCE = (
    "MR: Colin27 (MNI terms), 3 T head of the 0.055 T study (CC0), Siemens XA30 T1 and GE fruit "
    "(BSD-2-Clause). Radiographs: NIH ChestX-ray14, 16 images (NIH Clinical Center, unrestricted "
    "use with attribution). CT: GE HiSpeed head (BSD-2-Clause); Siemens chest (TCIA CPTAC-PDA) "
    "and Toshiba head (TCIA CPTAC-LSCC), CC BY 3.0; three subjects"
)

HEADING = "The images that the networks were trained on. No image is part of this bundle."
PROCEDURAL = (
    "Procedural images (dead leaves) are computed by this project; they have no other owner."
)
BSD = "BSD 2-Clause License, Copyright (c) Chris Rorden and others"
TERMS = (
    "i. Colin27 average brain: Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging "
    "Centre, Montreal Neurological Institute, McGill University. Permission to use, copy, "
    "modify, and distribute for any purpose and without fee is granted, provided that this "
    "notice appears in all copies; the authors make no representations about its suitability.",
    "ii. 3 T head of the 0.055 T study (Liu et al., Nat Commun 2021): CC0 1.0.",
    f"iii. Siemens XA30 T1 (dcm_qa_xa30), GE fruit (dcm_qa_deident) and GE HiSpeed head "
    f"(dcm_qa_ct): {BSD}.",
    "iv. NIH ChestX-ray14, 16 images: provided by the NIH Clinical Center, unrestricted use "
    "with attribution (Wang et al., CVPR 2017).",
    "v. The Cancer Imaging Archive, Creative Commons Attribution 3.0 Unported: CPTAC-PDA, subject "
    "C3N-00249, doi 10.7937/K9/TCIA.2018.SC20FO18 (Siemens Sensation 64, chest); CPTAC-LSCC, "
    "subject C3N-04457, doi 10.7937/K9/TCIA.2018.6EMUB5L2 (Toshiba, brain above the orbits). "
    "Slices were averaged and halved.",
)


def main(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="checkpoint of stillscan.app.training.shipped_student")
    ] = None,
    method: Annotated[
        Path | None, typer.Argument(help="folder of bench.studies.method, with the teacher")
    ] = None,
    keeping: Annotated[
        Path | None, typer.Option(help="checkpoint with a larger weight of the lesions' loss")
    ] = None,
    fast: Annotated[
        Path | None,
        typer.Option(help="checkpoint of shipped_student with widths 24,48,96"),
    ] = None,
    fast_int8: Annotated[
        Path | None,
        typer.Option(help="checkpoint of shipped_student --int8, same widths"),
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="evaluation.json of `stillscan evaluate`")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for the bundles")] = Path("models/bundles"),
) -> None:
    """Write the three bundles."""
    measured = json.loads(evaluation.read_text(encoding="utf-8")) if evaluation else {}
    for domain in SERVES:
        folder = out / domain
        if checkpoint is None:
            network = load_bundle(folder).denoiser.network
        else:
            network = _student(checkpoint, StudentNetwork())
            if keeping is not None:
                other = _student(keeping, StudentNetwork()).state_dict()
                share = KEEPING[domain]
                between = {k: v.lerp(other[k], share) for k, v in network.state_dict().items()}
                network.load_state_dict(between)
        teacher, choice = (None, _choice(folder)) if method is None else _trained(method)
        if evaluation is None and checkpoint is None:
            figures = read_info(folder).metadata["stillscan"]["figures"]
        else:
            figures = _figures(domain, measured)
        metadata = _metadata(domain, _training(choice), figures)
        save_bundle(network, folder, metadata, teacher)
        for path, file, student in (
            (fast, FAST_STUDENT, StudentNetwork(FAST_WIDTHS)),
            (fast_int8, FAST_STUDENT_INT8, quantized(StudentNetwork(FAST_WIDTHS))),
        ):
            if path is not None and (file != FAST_STUDENT_INT8 or domain in IN_INT8):
                save_network(_student(path, student), folder / file)
        _add_files(domain, metadata, folder)


def _student(checkpoint: Path, network: StudentNetwork) -> StudentNetwork:
    """Load the averaged weights of a checkpoint into a network."""
    network.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    return network


def _trained(method: Path) -> tuple[tuple[BlindSpotNetwork, DiffusionNetwork], dict[str, Any]]:
    """Load the teacher of `bench.studies.method` and the table by which it was chosen."""
    blind_spot = load_network(method / "blind_spot.safetensors")
    diffusion = load_network(method / "diffusion.safetensors")
    assert isinstance(blind_spot, BlindSpotNetwork)
    assert isinstance(diffusion, DiffusionNetwork)
    choice = json.loads((method / "candidates.json").read_text(encoding="utf-8"))
    return (blind_spot, diffusion), choice


def _choice(folder: Path) -> dict[str, Any]:
    """Return the table by which the teacher of the existing bundle was chosen."""
    training: dict[str, Any] = read_info(folder).metadata["stillscan"]["training"]
    choice: dict[str, Any] = training["teacher_candidates"]
    return choice


def _add_files(domain: str, metadata: dict[str, Any], folder: Path) -> None:
    """Write all files of a bundle except weights and metadata."""
    terms = "\n".join([HEADING, "", *TERMS, "", PROCEDURAL])
    add_bundle_files(folder, LICENSE.read_text(encoding="utf-8"), terms + "\n")
    (folder / "docs" / "README.md").write_text(_readme(domain, metadata), encoding="utf-8")


def _training(choice: dict[str, Any]) -> dict[str, Any]:
    return {
        "student": "supervised on simulated noise: the table of docs/method.md shows it to "
        "be better than the student that is distilled without clean images",
        "commands": list(COMMANDS),
        "seed": 0,
        "teacher_candidates": choice,
        "split": {item.name: item.part for item in SPLIT},
        "share_of_keeping": KEEPING,
        "procedural_images": "dead leaves (models/training/dead_leaves.py)",
    }


def _metadata(domain: str, training: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    return bundle_metadata(
        BundleText(
            name=f"Stillscan student, {NAMES[domain]}",
            data_source=SOURCE,
            version=BUNDLE_VERSION,
            changelog=CHANGES,
            modalities=SERVES[domain],
            noise_range=SIGMA_RANGE,
            preliminary=domain == "ct",
            training=training,
            figures=figures,
            earlier=EARLIER,
        )
    )


def _figures(domain: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Return mean PSNR in dB on the domain's test subjects, and the repeated scans (MR only)."""
    table: dict[str, dict[str, float]] = {}
    for row in figures.get("simulated", []):
        if row["domain"] == domain:
            values = [
                r["psnr"]
                for r in figures["simulated"]
                if all(r[key] == row[key] for key in ("domain", "noise", "method"))
            ]
            table.setdefault(row["noise"], {})[row["method"]] = round(statistics.mean(values), 2)
    found: dict[str, Any] = {"command": "stillscan evaluate DATA", "psnr_db": table}
    found["coverage"] = [r for r in figures.get("coverage", []) if r["domain"] == domain]
    if domain == "mr":
        found["repeated_scans"] = figures.get("repeats", [])
    return found


def _readme(domain: str, metadata: dict[str, Any]) -> str:
    figures = metadata["stillscan"]["figures"]["psnr_db"]
    data = (
        "The bundles mr, xray and ct hold the same teacher and fast student. The students are "
        "weighted means of the same two networks, which were trained on all of these images with "
        f"less and with more weight on lesions that stay; here the second has {KEEPING[domain]:g}."
        "\n"
        f"\n{metadata['data_source']}; procedural images; simulated noise (Gaussian, correlated, "
        "Poisson, Gamma, Rician) of 0.2/255 to 50/255."
    )
    if domain == "ct":
        data += " Preliminary: real CT of three subjects only."
    if not figures:
        return page(metadata, data)
    methods = list(dict.fromkeys(name for row in figures.values() for name in row))
    rows = [[n, *(str(row.get(method, "")) for method in methods)] for n, row in figures.items()]
    said = (
        "PSNR in dB on subjects that were not used in training, without knowledge of the noise "
        "(rows with oracle noise get the true noise), by `stillscan evaluate`:"
    )
    return page(metadata, data, said, table(["noise (/255)", *methods], rows))


if __name__ == "__main__":
    typer.run(main)
