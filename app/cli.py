"""`stillscan`: the commands for a person."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from stillscan import __version__
from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.exit_status import exit_code_of, leave
from stillscan.app.logging_setup import set_up_logging
from stillscan.app.pipeline.lines import log_refusals, log_warnings
from stillscan.app.pipeline.pipeline import Job, run, survey
from stillscan.app.process_setup import share_one_heap
from stillscan.app.settings import (
    DEFAULT_SETTINGS,
    Device,
    Engine,
    Mode,
    Settings,
    Strength,
    load_settings,
)
from stillscan.operators.errors import ExitCode
from stillscan.operators.reading.decoder import Decoder

EXIT_CODES = (
    "Exit codes: 0 every chosen series was derived; 1 internal fault; 2 wrong arguments or "
    "settings; 3 nothing to do; 4 every series was refused; 5 some series were derived, some "
    "refused; 6 the network cannot be loaded or run; 7 the output cannot be written."
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Noisy DICOM series in, quiet derived series out. " + EXIT_CODES,
)

# Commands of other modules (`train`, `evaluate`) are declared here as well and import what they
# need inside: `denoise` must have its reading child started before anything imports torch.

Source = Annotated[Path, typer.Argument(metavar="IN", help="folder with DICOM files, or one file")]
Models = Annotated[
    Path,
    typer.Option(
        help="folder with bundles, or one bundle; default: the shipped ones", show_default=False
    ),
]
Config = Annotated[
    Path,
    typer.Option(help="settings in YAML; default: the shipped app.yaml", show_default=False),
]
Bundle = Annotated[
    str | None, typer.Option("--model", help="use only this bundle; default: by modality")
]
ModeOption = Annotated[Mode | None, typer.Option(help="identity is a control: same pixels")]
ProfileName = Literal[
    "quick", "standard", "paper", "adapt"
]  # stillscan.app.training.profiles would import torch
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="more on stderr")]


def show_version(wanted: bool) -> None:
    """Print name and version, and leave."""
    if wanted:
        typer.echo(f"Stillscan {__version__}")
        raise typer.Exit


@app.callback()
def stillscan(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="and leave")
    ] = False,
) -> None:
    """Noisy DICOM series in, quiet derived series out."""


@app.command(epilog=EXIT_CODES)
def denoise(
    source: Source,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="gets one folder per series")],
    bundle: Bundle = None,
    mode: ModeOption = None,
    strength: Annotated[
        Strength | None, typer.Option(help="how much of the noise is taken away")
    ] = None,
    device: Annotated[Device | None, typer.Option(help="where the network runs")] = None,
    engine: Annotated[Engine | None, typer.Option(help="what multiplies")] = None,
    report: Annotated[bool, typer.Option(help="also write OUT/report")] = True,
    models: Models = DEFAULT_BUNDLES,
    config: Config = DEFAULT_SETTINGS,
    verbose: Verbose = False,
) -> None:
    """Denoise every series of a folder; the derived series are published together at the end."""
    # imported here: `inspect` and `--help` need no table
    from stillscan.app.pipeline.console import progress_bar, show_result

    def action() -> ExitCode:
        settings = with_choices(load_settings(config), mode, strength, device, engine)
        settings = replace(settings, output=replace(settings.output, report=report))
        console = Console()
        with progress_bar(console) as watch:
            result = run(Job(source, output, settings, models, bundle), watch)
        show_result(console, result, output)
        log_warnings(result.outcomes)
        log_refusals(result, source)
        return result.exit_code

    set_up_logging("debug" if verbose else "warning")
    raise typer.Exit(exit_code_of(action))


@app.command()
def inspect(
    source: Source,
    bundle: Bundle = None,
    mode: ModeOption = None,
    models: Models = DEFAULT_BUNDLES,
    config: Config = DEFAULT_SETTINGS,
    verbose: Verbose = False,
) -> None:
    """Say what would be done with a folder, series by series and file by file, and why."""
    from stillscan.app.pipeline.console import show_survey

    def action() -> ExitCode:
        settings = with_choices(load_settings(config), mode, None, None)
        with Decoder() as decoder:
            found = survey(Job(source, source, settings, models, bundle), decoder)
        show_survey(Console(), found)
        return ExitCode.DERIVED if found.chosen else ExitCode.NOTHING_TO_DO

    set_up_logging("debug" if verbose else "warning")
    raise typer.Exit(exit_code_of(action))


@app.command()
def train(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="folder with noisy DICOM, NIfTI, PNG, npz files")
    ],
    out: Annotated[Path, typer.Option(help="the bundle that is made")],
    profile: Annotated[
        ProfileName | None,
        typer.Option(help="how much is learned; default: quick, with --from adapt"),
    ] = None,
    resume: Annotated[bool, typer.Option(help="go on with the run that OUT holds")] = False,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="fine-tune this bundle's student; released if no worse"),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--evaluate", help="with --from: images, or a repeated scan, that decide as well"
        ),
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(help="that the bundle serves; default: what the DICOM series say"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**20, help="of first weights and examples")] = 0,
    device: Annotated[Device, typer.Option(help="where the networks train")] = "auto",
    config: Config = DEFAULT_SETTINGS,
    verbose: Verbose = False,
) -> None:
    """Train a bundle on a folder of noisy series; no clean image is needed.

    A run that was stopped or killed goes on with --resume. Several GPUs: torchrun --no-python
    --nproc-per-node N stillscan train ...

    Exit codes: 0 the bundle is written; 2 wrong arguments; 3 no images; 4 none that can be trained
    on, or too few; 5 trained, but not released: what --from made is not shown to be as good as
    what it began with (release-refused); 6 no such device or first weights, or the loss diverged;
    7 OUT cannot be written.
    """

    def action() -> ExitCode:
        settings = load_settings(config)
        with Decoder() as decoder:
            # imported here: the decoder's child starts before torch is there
            from stillscan.app.training.command import train_bundle
            from stillscan.app.training.profiles import PROFILES
            from stillscan.app.training.request import Order

            chosen = profile or ("adapt" if start else "quick")
            order = Order(
                data,
                out,
                chosen,
                PROFILES[chosen],
                settings.selection,
                tuple(modality or ()),
                seed,
                device,
                resume,
                start,
                evaluation,
            )
            return train_bundle(order, decoder, Console())

    set_up_logging("debug" if verbose else "warning")
    raise typer.Exit(exit_code_of(action, "its checkpoints are kept, --resume goes on"))


@app.command()
def evaluate(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="the development data (its folder `dev`), or images"),
    ],
    out: Annotated[Path, typer.Option(help="folder of tables, plots, page and measurements")],
    model: Annotated[
        Path,
        typer.Option(help="bundle, or folder of bundles; default: shipped", show_default=False),
    ] = DEFAULT_BUNDLES,
    compare: Annotated[Path | None, typer.Option(help="other bundles, as rows beside them")] = None,
    controls: Annotated[
        Path | None, typer.Option(help="folder of networks (*.safetensors), as rows")
    ] = None,
    methods: Annotated[
        str, typer.Option(help="names of rows, or how they begin, with commas; default: all")
    ] = "",
    noise: Annotated[
        list[str] | None, typer.Option(help="such as 'gaussian 15' (may be repeated); default: all")
    ] = None,
    slices: Annotated[int, typer.Option(min=1, help="of each subject, at most")] = 4,
    crop: Annotated[
        int | None, typer.Option(min=48, help="only the middle of each slice, in pixels")
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="one slice per subject, four noises, no real scans")
    ] = False,
    real: Annotated[
        bool, typer.Option(help="repeated scans and CT phantom, if DATA has them")
    ] = True,
    full: Annotated[
        bool, typer.Option(help="costly methods on whole slices, all noises and the phantom")
    ] = False,
    device: Annotated[Device, typer.Option(help="where networks run")] = "auto",
    verbose: Verbose = False,
) -> None:
    """Measure denoisers: simulated noise, inserted lesions, repeated scans, a CT phantom.

    Writes CSV, Markdown, JSON, plots and one HTML page. What OUT holds already is not measured
    again: a run that was stopped goes on, and rows can be added. Images of DATA count as the truth.

    Exit codes: 0 the results are written; 2 wrong arguments, or a package is missing (the extra
    `evaluate`); 3 no images; 4 none that can be read; 6 a network cannot be loaded; 7 OUT cannot be
    written.
    """

    def action() -> ExitCode:
        with Decoder() as decoder:
            # imported here: the decoder's child starts before torch is there
            from stillscan.app.bundles.choice import resolve_device
            from stillscan.app.evaluation.command import evaluate as measure
            from stillscan.app.evaluation.run import QUICK_NOISES, Plan

            plan = Plan(
                data=data,
                out=out,
                model=model,
                compare=compare,
                controls=controls,
                methods=tuple(name.strip() for name in methods.split(",") if name.strip()),
                noises=tuple(noise or (QUICK_NOISES if quick else ())),
                slices=1 if quick else slices,
                crop=crop,
                device=resolve_device(device),
                real=real and not quick,
                full=full,
            )
            named = {str(data): "DATA", str(out): "OUT"}  # a path may say who somebody is
            command = shlex.join(["stillscan", *(named.get(word, word) for word in sys.argv[1:])])
            return measure(plan, command, decoder, Console())

    set_up_logging("debug" if verbose else "warning")
    raise typer.Exit(exit_code_of(action, "its measurements are kept, the same command goes on"))


@app.command(epilog=EXIT_CODES)
def backfill(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="folder, DICOMweb address, or list of paths and series UIDs"
        ),
    ],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="folder or DICOMweb address")],
    ray: Annotated[
        str | None, typer.Option(help="address of a Ray cluster; default: a Ray of our own")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="default: one for each core, or GPU")
    ] = None,
    resume: Annotated[bool, typer.Option(help="go on with the back-fill that DEST holds")] = False,
    archive: Annotated[
        str | None, typer.Option(help="DICOMweb address where the UIDs of a list are")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="folder of the record; default: inside DEST")
    ] = None,
    tries: Annotated[int, typer.Option(min=1, help="of a series, at most")] = 3,
    timeout: Annotated[float, typer.Option(min=1, help="seconds for one series")] = 3600,
    bundle: Bundle = None,
    mode: ModeOption = None,
    strength: Annotated[
        Strength | None, typer.Option(help="how much of the noise is taken away")
    ] = None,
    device: Annotated[Device | None, typer.Option(help="where the networks run")] = None,
    engine: Annotated[Engine | None, typer.Option(help="what multiplies")] = None,
    models: Models = DEFAULT_BUNDLES,
    config: Config = DEFAULT_SETTINGS,
    verbose: Verbose = False,
) -> None:
    """Denoise an archive: thousands of series, on all cores or GPUs of a machine or a Ray cluster.

    What is done stays done: with --resume a second run does what is missing. With a teacher's
    --mode (srds, one_step) the same command labels a training set.

    Credentials of an archive come from the environment: STILLSCAN_SOURCE_TOKEN, or
    STILLSCAN_SOURCE_USER and STILLSCAN_SOURCE_PASSWORD; STILLSCAN_DEST_... for DEST.
    """

    def action() -> ExitCode:
        settings = with_choices(load_settings(config), mode, strength, device, engine)
        with Decoder() as decoder:
            # imported here: the other commands need none of it
            from stillscan.app.backfill.command import Request
            from stillscan.app.backfill.command import backfill as fill
            from stillscan.app.backfill.configuration import Configuration

            own_models = None if models == DEFAULT_BUNDLES else models.absolute()
            settings = replace(settings, output=replace(settings.output, report=False))
            configuration = Configuration(settings, own_models, bundle)
            request = Request(
                source=source,
                dest=dest,
                configuration=configuration,
                archive=archive,
                state=state,
                resume=resume,
                address=ray,
                workers=workers,
                tries=tries,
                timeout_s=timeout,
            )
            return fill(request, decoder, Console())

    set_up_logging("debug" if verbose else "warning")
    raise typer.Exit(exit_code_of(action, "what is done is kept, --resume goes on"))


def with_choices(
    settings: Settings,
    mode: Mode | None,
    strength: Strength | None,
    device: Device | None,
    engine: Engine | None = None,
) -> Settings:
    """The settings with what was said on the command line."""
    denoise = settings.denoise
    chosen = replace(
        denoise,
        mode=mode or denoise.mode,
        strength=strength or denoise.strength,
        device=device or denoise.device,
        engine=engine or denoise.engine,
    )
    return replace(settings, denoise=chosen)


def main() -> None:
    """Entry point of the `stillscan` script."""
    share_one_heap()
    try:
        app(prog_name="stillscan")
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else int(end.code is not None))
