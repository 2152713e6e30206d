"""MONAI Label's train task: `stillscan train` on the noisy images of the server.

MONAI Label runs it in a process of its own, keeps its last printed lines (GET /train) and kills it
to cancel it (DELETE /train). The same request continues a killed run.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, cast

from monailabel.interfaces.datastore import Datastore
from monailabel.tasks.train.basic_train import BasicTrainTask
from monailabel.utils.others.generic import device_list
from rich.console import Console

from stillscan.app.settings import Settings
from stillscan.app.training.checkpoints import load_json, save_json
from stillscan.app.training.command import train_bundle
from stillscan.app.training.console import plans_of, work_of
from stillscan.app.training.profiles import PROFILES, ProfileName, TrainingProfile
from stillscan.app.training.request import RUN, TrainingRequest
from stillscan.app.training.run import STAGES
from stillscan.deploy.monailabel.datastores import link_images
from stillscan.deploy.monailabel.errors import RequestError
from stillscan.deploy.monailabel.networks import choice
from stillscan.models.bundle import METADATA, BundleInfo, read_info
from stillscan.operators.reading.decoder import Decoder

ANY_MODALITY = "as the images say"
NEW_WEIGHTS = "none"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
PARTS = 100  # progress in clients, which show epoch / total_epochs


class ThreeStageTask(BasicTrainTask):  # type: ignore[misc]
    """Trains a bundle of the site as `stillscan train` does, without labels or clean images.

    It keeps the handling of requests, devices and statistics of `BasicTrainTask`, and replaces its
    supervised loop by `stillscan.app.training`.
    """

    def __init__(
        self, model_dir: Path, settings: Settings, bundles: Mapping[str, BundleInfo]
    ) -> None:
        """Set the folder for bundles, and the bundles from which a training may start."""
        super().__init__(
            model_dir=str(model_dir),
            description="Stillscan: training on the noisy images of this server",
        )
        self._folder = model_dir
        self._settings = settings
        self._bundles = bundles
        self._config = {  # the other options of the base class do not apply
            "name": "site",
            "profile": list(PROFILES),
            "modality": [ANY_MODALITY, *settings.selection.modalities],
            "start": [NEW_WEIGHTS, *bundles],
            "device": device_list(),
            "multi_gpu": False,
        }

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train in this process; for several GPUs use `torchrun ... stillscan train`."""
        result: dict[str, Any] = super().__call__({**request, "multi_gpu": False}, datastore)
        return result

    def pre_process(self, request: dict[str, Any], datastore: Datastore) -> Path:
        """Create a folder of links to the requested images, or to all of them."""
        images = request.get("images") or datastore.list_images()
        return link_images(datastore, images, self._folder / ".images" / _name(request))

    def train(
        self, rank: int, world_size: int, request: dict[str, Any], datalist: Path
    ) -> dict[str, Any]:
        """Run or resume the stages and write the bundle.

        Raises:
            StillscanError: as `stillscan.app.training.command.train_bundle`.
        """
        wanted = self.training_request(request, datalist)
        start = time.time()
        began = {"name": wanted.out.name, "profile": wanted.profile_name, "start_ts": start}
        self._folder.mkdir(parents=True, exist_ok=True)
        save_json(began, Path(self._stats_path))
        with Decoder() as decoder:
            train_bundle(wanted, decoder, Console(file=sys.stdout, width=160))
        seconds = time.time() - start
        figures = read_info(wanted.out).metadata.get("stillscan", {}).get("training", {})
        ended = {**began, "total_time": f"{seconds:.0f} s", "figures": figures}
        save_json(json.loads(json.dumps(ended, default=str)), Path(self._stats_path))
        return self.stats()

    def training_request(self, request: Mapping[str, Any], data: Path) -> TrainingRequest:
        """Return the arguments of the equivalent `stillscan train`.

        Raises:
            RequestError: if a parameter has an invalid value.
        """
        name = _name(request)
        if name in self._bundles:
            raise RequestError(
                f"name is '{name}', which is the name of an existing bundle: choose another"
            )
        modality = choice(request, "modality", tuple(self._config["modality"]))
        start = choice(request, "start", tuple(self._config["start"]))
        chosen = dict(request)
        if start != NEW_WEIGHTS and not isinstance(request.get("profile"), str):
            chosen["profile"] = "adapt"  # as `stillscan train --from`
        profile = cast(ProfileName, choice(chosen, "profile", tuple(PROFILES)))
        modalities = () if modality == ANY_MODALITY else (modality,)
        out = self._folder / name
        unfinished = (out / RUN / "run.json").exists() and not (out / METADATA).exists()
        rules = self._settings.selection
        return TrainingRequest(
            data=data,
            out=out,
            profile_name=profile,
            profile=PROFILES[profile],
            rules=replace(rules, modalities=modalities) if modalities else rules,
            modalities=modalities,
            device="cuda" if str(request["device"]).startswith("cuda") else "cpu",
            resume=unfinished,
            start=None if start == NEW_WEIGHTS else self._bundles[start].folder,
        )

    def stats(self) -> dict[str, Any]:
        """Return progress and result of the last run, as clients show them."""
        path = Path(self._stats_path)
        if not path.exists():
            return {}
        stats: dict[str, Any] = load_json(path)
        done = PARTS if "total_time" in stats else self._parts_done(stats)
        return {**stats, "epoch": done, "total_epochs": PARTS}

    def _parts_done(self, stats: Mapping[str, Any]) -> int:
        """Read the progress from the log of the run, which another process writes."""
        log = self._folder / stats["name"] / RUN / "log.csv"
        if not log.exists():
            return 0
        with log.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return part_done(rows[-1], PROFILES[stats["profile"]]) if rows else 0

    def _one_loop(self, context: Any) -> NoReturn:
        """Refuse the base class' supervised loop."""
        raise NotImplementedError("three stages are trained, not one supervised loop: see `train`")

    network = optimizer = loss_function = _one_loop
    train_pre_transforms = train_post_transforms = val_inferer = _one_loop


def part_done(row: Mapping[str, str], profile: TrainingProfile) -> int:
    """Return how many of PARTS of a run are done, from a row of its log (stage, step)."""
    work, stage = work_of(profile), row["stage"]
    before = sum(work[each] for each in STAGES[: STAGES.index(stage)])
    done = before + work[stage] * int(row["step"]) / plans_of(profile)[stage].steps
    return int(PARTS * done / sum(work.values()))


def _name(request: Mapping[str, Any]) -> str:
    """Return the name of the new bundle, which becomes the name of a folder."""
    name = str(request.get("name", ""))
    if not NAME.fullmatch(name):
        raise RequestError(f"name is '{name}', expected letters, digits, - and _")
    return name
