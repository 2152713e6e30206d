"""What the pass-through of low frequencies keeps of faint discs in CT, and what it costs.

python -m bench.studies.low_contrast [--data DATA]

The low-contrast phantom of the development data (simulated filtered back projection, four
realisations a dose) with discs inserted at eight angles, through plan, network, rule and gate of
the application, without and with the rule (`operators/denoising/pass_through.py`).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from unittest.mock import patch

import torch

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.evaluation.blind_denoising import denoise_series
from stillscan.app.evaluation.low_contrast import doses, inserted, kept_contrast, with_discs
from stillscan.models.bundle import load_bundle
from stillscan.models.denoisers.denoiser import Denoiser
from stillscan.operators.denoising import pass_through

FLAT = slice(100, 156)  # rows and columns of the flat middle


def main() -> None:
    """Print one line for each rule and dose."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("STILLSCAN_DATA"))
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the data: --data DATA, or STILLSCAN_DATA")
    denoiser = load_bundle(DEFAULT_BUNDLES / "ct").denoiser
    for scales in ({}, pass_through.SCALE_MM):
        with patch.object(pass_through, "SCALE_MM", scales):
            for line in lines(denoiser, arguments.data):
                print(f"scale {scales.get('CT', 0)} mm, {line}", flush=True)


def lines(denoiser: Denoiser, data: Path) -> list[str]:
    """Measure each dose: d' of source and result, noise taken away, contrast kept by each disc."""
    found = []
    for dose in doses(data):
        absent, present = dose.absent, with_discs(dose.absent)
        series = [
            _denoised(denoiser, each) for each in (absent, *torch.split(present, len(absent)))
        ]
        shown, with_it = series[0], torch.cat(series[1:])
        before, after = (
            float((each - each.mean(0))[:, FLAT, FLAT].std()) for each in (absent, shown)
        )
        kept = " / ".join(f"{each:.2f}" for each in kept_contrast(with_it, shown))
        found.append(
            f"dose {dose.percent} %: d' {inserted(present, absent).mean:.2f} -> "
            f"{inserted(with_it, shown).mean:.2f}, noise -{100 * (1 - after / before):.0f} %, "
            f"contrast kept {kept}"
        )
    return found


def _denoised(denoiser: Denoiser, images: torch.Tensor) -> torch.Tensor:
    return denoise_series(denoiser, images, gated=True, modality="CT").slices


if __name__ == "__main__":
    main()
