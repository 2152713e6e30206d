"""The command line `stillscan`."""

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
from stillscan.app.pipeline.inputs import is_bids, is_nifti, opened
from stillscan.app.pipeline.lines import log_refusals, log_warnings
from stillscan.app.pipeline.pipeline import run
from stillscan.app.pipeline.survey import Job, survey
from stillscan.app.process_setup import share_one_heap
from stillscan.app.settings import (
    DEFAULT_SETTINGS,
    STRENGTH_EXPECTED,
    STRENGTHS,
    Device,
    Engine,
    Mode,
    Settings,
    load_settings,
    with_choices,
)
from stillscan.operators.errors import ExitCode, SettingsError
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.report.outcome import SeriesOutcome, counted

EXIT_CODES = (
    "Exit codes: 0 every chosen series was derived; 1 internal fault; 2 wrong arguments or "
    "settings; 3 nothing to do; 4 every series was refused; 5 some series were derived, some "
    "refused; 6 the network cannot be loaded or run; 7 the output cannot be written."
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Denoise DICOM series (MR, CT, PET, X-ray) into derived series. " + EXIT_CODES,
)

# All commands are declared here and import their modules inside: the reading process must have
# started before anything imports torch.


def strength_of(text: str) -> float:
    """Return the strength that an option names.

    Raises:
        typer.BadParameter: if it is neither a word nor a number from 0 to 1.
    """
    try:
        share = STRENGTHS[text] if text in STRENGTHS else float(text)  # type: ignore[index]
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"'{text}': {STRENGTH_EXPECTED}")
    return share


Source = Annotated[
    Path | None,
    typer.Argument(
        metavar="IN",
        help="Folder with DICOM files, one file, a DICOMDIR, a zip archive, a NIfTI file or a BIDS "
        "data set",
        show_default=False,
    ),
]
Input = Annotated[
    Path | None, typer.Option("--input", "-i", metavar="IN", help="The same as the argument IN")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="OUT", help="The same as the argument OUT")
]
Json = Annotated[
    bool, typer.Option("--json", help="Write one line of JSON for each series to standard output")
]
Names = Annotated[
    bool,
    typer.Option(
        help="With --json: also StudyInstanceUID, SeriesNumber and SeriesDescription, or the "
        "path of the file; they may identify a patient"
    ),
]
Modality = Annotated[
    str | None, typer.Option(help="DICOM Modality of a NIfTI file, such as MR", metavar="MODALITY")
]
Models = Annotated[
    Path,
    typer.Option(
        help="Folder with model bundles, or one bundle (default: the shipped bundles)",
        show_default=False,
    ),
]
Config = Annotated[
    Path,
    typer.Option(help="Settings file in YAML (default: the shipped app.yaml)", show_default=False),
]
Bundle = Annotated[
    str | None, typer.Option("--model", help="Name of the bundle (default: chosen by modality)")
]
ModeOption = Annotated[
    Mode | None,
    typer.Option(
        help="Network: student (the default network), fast_student (smaller), srds, one_step or "
        "blind_spot (slow references), identity (a control that changes no pixel) (default: "
        "denoise.mode of the settings, student)"
    ),
]
StrengthOption = Annotated[
    float | None,
    typer.Option(
        parser=strength_of,
        metavar="0..1",
        help="Share of the estimated noise to remove, a number from 0 to 1 or low 0.5, medium "
        "0.75, high 1 (default: denoise.strength of the settings, high)",
    ),
]
DeviceOption = Annotated[
    Device | None,
    typer.Option(
        help="Device for the network; auto: a GPU if there is one (default: denoise.device of the "
        "settings, auto)"
    ),
]
EngineOption = Annotated[
    Engine | None,
    typer.Option(
        help="Inference backend for the network; auto: by processor and installed packages "
        "(default: denoise.engine of the settings, auto)"
    ),
]
ProfileName = Literal[
    "quick", "standard", "paper", "adapt"
]  # stillscan.app.training.profiles would import torch
TaskOption = Annotated[
    Literal["denoise", "anomaly"],
    typer.Option(help="Denoise images, or map how unusual they are beside healthy ones"),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Write debug messages to standard error")
]


def show_version(wanted: bool) -> None:
    """Print name and version, and exit."""
    if wanted:
        typer.echo(f"Stillscan {__version__}")
        raise typer.Exit


@app.callback()
def stillscan(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=show_version, is_eager=True, help="Show the version and exit"
        ),
    ] = False,
) -> None:
    """Denoise DICOM series (MR, CT, PET, X-ray) into derived series."""


@app.command(epilog=EXIT_CODES)
def denoise(
    source: Source = None,
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="OUT",
            help="Folder for the result, one subfolder per series; of a NIfTI file also its name",
            show_default=False,
        ),
    ] = None,
    input_: Input = None,
    output_: Output = None,
    bundle: Bundle = None,
    mode: ModeOption = None,
    fast: Annotated[bool, typer.Option("--fast", help="The same as --mode fast_student")] = False,
    strength: StrengthOption = None,
    temporal: Annotated[
        bool | None,
        typer.Option(
            "--temporal",
            help="Denoise a cine along its motion (docs/motion.md): the same as denoise.temporal "
            "auto of the settings",
        ),
    ] = None,
    device: DeviceOption = None,
    engine: EngineOption = None,
    modality: Modality = None,
    report: Annotated[
        bool,
        typer.Option(help="Also write OUT/report (DICOM): result.json and pages"),
    ] = True,
    uncertainty: Annotated[
        bool | None, typer.Option("--uncertainty", help="Also write maps of the error")
    ] = None,
    noise_map: Annotated[
        bool | None, typer.Option("--noise-map", help="Also write maps of the noise")
    ] = None,
    measurements: Annotated[
        bool | None,
        typer.Option("--measurements", help="Also write an SR with the measurements (DICOM)"),
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            metavar="PATTERN",
            help="Names for the folders of derived series, such as %s_%d (DICOM): "
            "%s SeriesNumber, %d SeriesDescription, %m Modality, %u SeriesInstanceUID; they may "
            "identify a patient (default: the SeriesInstanceUID)",
            show_default=False,
        ),
    ] = "",
    as_json: Json = False,
    names: Names = False,
    models: Models = DEFAULT_BUNDLES,
    config: Config = DEFAULT_SETTINGS,
    verbose: Verbose = False,
) -> None:
    """Denoise every series of a folder, a NIfTI file or a BIDS data set.

    Originals are not changed. Derived DICOM series appear in OUT together, at the end of the run.

    Of a BIDS data set, OUT is a derivative data set with desc-denoised images and sidecars.
    """
    # imported here: `inspect` and `--help` need no table
    from stillscan.app.pipeline.console import progress_bar, show_json, show_result

    def settings_of() -> Settings:
        wanted = "fast_student" if fast else mode
        settings = with_choices(load_settings(config), wanted, strength, device, engine)
        if temporal:
            settings = replace(settings, denoise=replace(settings.denoise, temporal="auto"))
        objects = settings.output.objects
        objects = replace(
            objects,
            uncertainty_map=objects.uncertainty_map if uncertainty is None else uncertainty,
            noise_map=objects.noise_map if noise_map is None else noise_map,
            measurements=objects.measurements if measurements is None else measurements,
        )
        return replace(settings, output=replace(settings.output, report=report, objects=objects))

    def action() -> ExitCode:
        job = Job(place(source, input_, "IN"), place(output, output_, "OUT"), settings_of(), models)
        job = replace(job, bundle=bundle, name=name)
        if is_nifti(job.source) or is_bids(job.source):
            return denoise_images(job, modality, as_json, names)
        console = Console()
        with opened(job.source) as folder, progress_bar(Console(stderr=as_json)) as watch:
            result = run(replace(job, source=folder), watch)
        if as_json:
            show_json(result, names)
        else:
            show_result(console, result, job.output)
        log_warnings(result.outcomes)
        log_refusals(result, job.source)
        return result.exit_code

    set_up_logging("debug" if verbose else "warning")
    raise typer.Exit(exit_code_of(action))


def place(argument: Path | None, option: Path | None, name: str) -> Path:
    """Return a path that is given by its position or by an option.

    Raises:
        SettingsError: if it is given twice, or not at all.
    """
    if (argument is None) == (option is None):
        raise SettingsError(f"{name}: expected one path, by its position or by its option")
    return argument or option or Path()


def denoise_images(job: Job, modality: str | None, as_json: bool, names: bool) -> ExitCode:
    """Denoise NIfTI files; each is written when it is ready."""
    from stillscan.app.library.image_files import denoise_files
    from stillscan.app.pipeline.console import show_image

    def report(path: Path, name: str, outcome: SeriesOutcome) -> None:
        show_image(Console(), name, outcome, as_json, path if names else None)

    result = denoise_files(job, modality, report)
    derived = sum(each.status == "derived" for each in result.outcomes)
    if derived and not as_json:
        written = f"{counted(derived, 'denoised image')} in {job.output}"
        Console().print(written, soft_wrap=True, highlight=False)
    log_warnings(result.outcomes)
    log_refusals(result, job.source)
    return result.exit_code


def inspect_images(job: Job, modality: str | None, as_json: bool) -> ExitCode:
    """Show what would be done with NIfTI files."""
    from stillscan.app.library.image_files import inspect_files
    from stillscan.app.pipeline.console import show_finding

    statuses = set()
    for name, found in inspect_files(job, modality):
        show_finding(Console(), name, found, as_json)
        statuses.add(found.status)
    return ExitCode.DERIVED if "would-denoise" in statuses else ExitCode.NOTHING_TO_DO


@app.command()
def inspect(
    source: Source = None,
    input_: Input = None,
    bundle: Bundle = None,
    mode: ModeOption = None,
    modality: Modality = None,
    as_json: Json = False,
    models: Models = DEFAULT_BUNDLES,
    config: Config = DEFAULT_SETTINGS,
    verbose: Verbose = False,
) -> None:
    """Show which series and files of a folder would be denoised or refused, and why."""
    from stillscan.app.pipeline.console import show_findings, show_survey

    def action() -> ExitCode:
        settings = with_choices(load_settings(config), mode, None, None)
        job = Job(place(source, input_, "IN"), Path(), settings, models, bundle)
        if is_nifti(job.source) or is_bids(job.source):
            return inspect_images(job, modality, as_json)
        with Decoder() as decoder, opened(job.source) as folder:
            found = survey(replace(job, source=folder), decoder)
        if as_json:
            show_findings(found)
        else:
            show_survey(Console(), found)
        return ExitCode.DERIVED if found.chosen else ExitCode.NOTHING_TO_DO

    set_up_logging("debug" if verbose else "warning")
    raise typer.Exit(exit_code_of(action))


@app.command(epilog=EXIT_CODES)
def anomaly(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="DICOM: a folder, a file, a DICOMDIR or a zip")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the objects")],
    models: Annotated[
        Path, typer.Option(help="Bundle that `stillscan train --task anomaly` wrote")
    ],
    device: DeviceOption = None,
    config: Config = DEFAULT_SETTINGS,
    verbose: Verbose = False,
) -> None:
    """Map how unusual each place of a series is beside the healthy images of a bundle (research).

    Writes a Parametric Map, a Segmentation of candidate regions, a structured report and a page for
    each series. Originals are not changed. No bundle is shipped. A quiet map rules nothing out.
    """

    def action() -> ExitCode:
        settings = with_choices(load_settings(config), None, None, device)
        job = Job(source, output, settings, models)
        with Decoder() as decoder, opened(source) as folder:
            # imported here: the reading process starts before torch is imported
            from stillscan.app.pipeline.anomaly import map_anomalies

            result = map_anomalies(replace(job, source=folder), decoder)
        for each in result.outcomes:
            if each.status == "derived":
                Console().print(
                    f"mapped {each.uid}: {counted(each.slices, 'slice')}, {each.message}, "
                    f"{each.seconds:.1f} s",
                    soft_wrap=True,
                    highlight=False,
                )
        log_warnings(result.outcomes)
        log_refusals(result, job.source)
        return result.exit_code

    set_up_logging("debug" if verbose else "warning")
    raise typer.Exit(exit_code_of(action))


@app.command(epilog=EXIT_CODES)
def interpolate(
    source: Source = None,
    output: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="Folder for the result", show_default=False),
    ] = None,
    input_: Input = None,
    output_: Output = None,
    frames: Annotated[
        int | None, typer.Option(help="Number of phases at each place of the result")
    ] = None,
    factor: Annotated[
        int | None, typer.Option(help="Number of phases of the result for each acquired one")
    ] = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="Make only phases that are missing or rejected")
    ] = False,
    allow_uneven: Annotated[
        bool, typer.Option("--allow-uneven", help="Accept steps that differ by more than 25 %")
    ] = False,
    report: Annotated[
        bool, typer.Option(help="Also write OUT/report: result.json and a page that plays the cine")
    ] = True,
    config: Config = DEFAULT_SETTINGS,
    verbose: Verbose = False,
) -> None:
    """Make phases between the acquired phases of a cine (MR), by their motion.

    The derived series holds every acquired frame pixel for pixel, and made frames between them,
    marked as such. Made frames are a guess: nothing may be measured on them.
    """

    def action() -> ExitCode:
        settings = load_settings(config)
        settings = replace(settings, output=replace(settings.output, report=report))
        job = Job(place(source, input_, "IN"), place(output, output_, "OUT"), settings)
        with Decoder() as decoder, opened(job.source) as folder:
            # imported here: the reading process starts before torch is imported
            from stillscan.app.pipeline.console import show_result
            from stillscan.app.pipeline.interpolate import interpolate as make
            from stillscan.operators.interpolation.phases import Wanted

            wanted = Wanted(frames, factor, fill)
            result = make(replace(job, source=folder), wanted, decoder, allow_uneven=allow_uneven)
        show_result(Console(), result, job.output)
        log_warnings(result.outcomes)
        log_refusals(result, job.source)
        return result.exit_code

    set_up_logging("debug" if verbose else "warning")
    raise typer.Exit(exit_code_of(action))


@app.command()
def doctor(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER",
            help="Folder that must be writable (default: the temporary folder)",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = None,
    engine: EngineOption = None,
    models: Models = DEFAULT_BUNDLES,
    config: Config = DEFAULT_SETTINGS,
) -> None:
    """Show versions, processor, GPU, engine, bundles and decoders, and try each of them.

    Exit codes: 0 everything that is needed works; 6 a network cannot be loaded or run; 7 the folder
    cannot be written.
    """

    def action() -> ExitCode:
        from stillscan.app.doctor import examine

        settings = with_choices(load_settings(config), None, None, device, engine)
        return examine(settings, models, folder)

    set_up_logging("warning")
    raise typer.Exit(exit_code_of(action))


@app.command()
def train(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder with noisy DICOM, NIfTI, PNG or npz files"),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the new bundle and its checkpoints")],
    task: TaskOption = "denoise",
    labels: Annotated[
        Path | None,
        typer.Option(help="With --task anomaly: CSV with file (or series_instance_uid) and label"),
    ] = None,
    profile: Annotated[
        ProfileName | None,
        typer.Option(
            help="Profile: quick (half an hour on two CPU cores), standard, paper (GPU), adapt "
            "(fine-tuning) (default: quick; with --from: adapt)"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in OUT")] = False,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Fine-tune this bundle; the result is released if not worse"),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--evaluate",
            help="With --from: folder of images or of a repeated scan on which old and new bundle "
            "are also compared (default: procedural images)",
        ),
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(
            help="Modality the bundle is for; may be repeated (default: read from the DICOM series)"
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=2**20, help="Random seed for weight initialisation and training patches"
        ),
    ] = 0,
    device: Annotated[
        Device, typer.Option(help="Device for the training; auto: a GPU if there is one")
    ] = "auto",
    config: Config = DEFAULT_SETTINGS,
    verbose: Verbose = False,
) -> None:
    """Train a bundle on a folder of noisy series; no clean image is needed.

    An interrupted run continues with --resume. Several GPUs: torchrun --no-python
    --nproc-per-node N stillscan train ...

    Exit codes: 0 the bundle was written; 2 wrong arguments; 3 no images; 4 no usable images, or too
    few; 5 trained, but not released: the bundle made with --from is not shown to be as good as its
    origin (release-refused); 6 device or initial weights are missing, or the loss diverged; 7 OUT
    cannot be written.
    """

    def train_anomaly(decoder: Decoder) -> ExitCode:
        from stillscan.app.training.anomaly.command import AnomalyRequest, train_anomaly_bundle
        from stillscan.app.training.anomaly.run import PROFILES

        chosen = profile or "quick"
        if chosen not in PROFILES or start or evaluation:
            known = " and ".join(PROFILES)
            raise SettingsError(f"--task anomaly has the profiles {known}, no --from, --evaluate")
        rules = load_settings(config).selection
        request = AnomalyRequest(
            data,
            out,
            chosen,
            PROFILES[chosen],
            rules,
            tuple(modality or ()),
            seed,
            device,
            resume,
            labels=labels,
        )
        return train_anomaly_bundle(request, decoder, Console())

    def action() -> ExitCode:
        settings = load_settings(config)
        with Decoder() as decoder:
            # imported here: the reading process starts before torch is imported
            from stillscan.app.training.command import train_bundle
            from stillscan.app.training.profiles import PROFILES
            from stillscan.app.training.request import TrainingRequest

            if task == "anomaly":
                return train_anomaly(decoder)
            if labels is not None:
                raise SettingsError("--labels is for --task anomaly")
            chosen = profile or ("adapt" if start else "quick")
            request = TrainingRequest(
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
            return train_bundle(request, decoder, Console())

    set_up_logging("debug" if verbose else "warning")
    raise typer.Exit(exit_code_of(action, "its checkpoints are kept; continue with --resume"))


@app.command()
def evaluate(
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="Folder of images, or of the development data (`dev`)"),
    ],
    out: Annotated[Path, typer.Option(help="Folder for tables, plots, page and measurements")],
    models: Models = DEFAULT_BUNDLES,
    task: TaskOption = "denoise",
    masks: Annotated[
        Path | None,
        typer.Option(help="With --task anomaly: masks of lesions (default: synthetic lesions)"),
    ] = None,
    healthy: Annotated[
        Path | None,
        typer.Option(help="With --task anomaly: other healthy images, for the simple methods"),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Bundle or folder of bundles to compare with --models")
    ] = None,
    controls: Annotated[
        Path | None, typer.Option(help="Folder of further networks (*.safetensors) to measure")
    ] = None,
    methods: Annotated[
        str,
        typer.Option(help="Method names or their beginnings, comma-separated (default: all)"),
    ] = "",
    noise: Annotated[
        list[str] | None,
        typer.Option(help="Noise such as 'gaussian 15'; may be repeated (default: all)"),
    ] = None,
    slices: Annotated[int, typer.Option(min=1, help="Maximum slices per series")] = 4,
    crop: Annotated[
        int | None,
        typer.Option(
            min=48, help="Side in pixels of the central square to use (default: whole slices)"
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="One slice per series, four kinds of noise, no repeated scans")
    ] = False,
    real: Annotated[
        bool, typer.Option(help="Also measure repeated scans and the CT phantom, if DATA has them")
    ] = True,
    full: Annotated[
        bool, typer.Option(help="Measure slow methods on whole slices, all noises and the phantom")
    ] = False,
    device: Annotated[
        Device, typer.Option(help="Device for the networks; auto: a GPU if there is one")
    ] = "auto",
    verbose: Verbose = False,
) -> None:
    """Measure denoisers: simulated noise, inserted lesions, repeated scans, a CT phantom.

    Writes CSV, Markdown, JSON, plots and one HTML page. Measurements that OUT already holds are not
    repeated: an interrupted run can be continued and extended. The images of DATA count as the
    truth.

    Exit codes: 0 the results were written; 2 wrong arguments, or a package is missing (the extra
    `evaluate`); 3 no images; 4 no readable images; 6 a network cannot be loaded; 7 OUT cannot be
    written.
    """

    def action() -> ExitCode:
        with Decoder() as decoder:
            if task == "anomaly":
                from stillscan.app.evaluation.anomaly.command import AnomalyPlan, evaluate_anomaly

                if healthy is None or models == DEFAULT_BUNDLES:
                    raise SettingsError("--task anomaly needs --models BUNDLE and --healthy FOLDER")
                rules = load_settings(DEFAULT_SETTINGS).selection
                of = AnomalyPlan(data, out, models, masks, healthy, rules)
                return evaluate_anomaly(of, decoder, Console())
            # imported here: the reading process starts before torch is imported
            from stillscan.app.bundles.choice import resolve_device
            from stillscan.app.evaluation.command import evaluate as measure
            from stillscan.app.evaluation.run import QUICK_NOISES, Plan

            plan = Plan(
                data=data,
                out=out,
                model=models,
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
            named = {str(data): "DATA", str(out): "OUT"}  # a path may contain a patient's name
            command = shlex.join(["stillscan", *(named.get(word, word) for word in sys.argv[1:])])
            return measure(plan, command, decoder, Console())

    set_up_logging("debug" if verbose else "warning")
    raise typer.Exit(
        exit_code_of(action, "its measurements are kept; continue with the same command")
    )


@app.command(epilog=EXIT_CODES)
def backfill(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Folder, DICOMweb URL, or file that lists paths and series UIDs"
        ),
    ],
    dest: Annotated[str, typer.Argument(metavar="DEST", help="Folder or DICOMweb URL")],
    ray: Annotated[
        str | None, typer.Option(help="Address HOST:PORT of a Ray cluster (default: a local Ray)")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of workers (default: one per core, or per GPU)"),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue the back-fill in DEST")] = False,
    archive: Annotated[
        str | None, typer.Option(help="DICOMweb URL of the archive that holds the listed UIDs")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder for the state of the back-fill (default: inside DEST)"),
    ] = None,
    tries: Annotated[int, typer.Option(min=1, help="Maximum attempts per series")] = 3,
    timeout: Annotated[float, typer.Option(min=1, help="Time limit per series in seconds")] = 3600,
    bundle: Bundle = None,
    mode: ModeOption = None,
    strength: StrengthOption = None,
    device: DeviceOption = None,
    engine: EngineOption = None,
    models: Models = DEFAULT_BUNDLES,
    config: Config = DEFAULT_SETTINGS,
    verbose: Verbose = False,
) -> None:
    """Denoise an archive: thousands of series, on all cores or GPUs of a machine or a Ray cluster.

    Finished series are not denoised again: with --resume a second run continues. With --mode srds
    or one_step the command produces the labels of a training set.

    Credentials of the archives are read from the environment: STILLSCAN_SOURCE_TOKEN, or
    STILLSCAN_SOURCE_USER and STILLSCAN_SOURCE_PASSWORD; STILLSCAN_DEST_... for DEST.
    """

    def action() -> ExitCode:
        settings = with_choices(load_settings(config), mode, strength, device, engine)
        with Decoder() as decoder:
            # imported here: the other commands do not need these modules
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
    raise typer.Exit(exit_code_of(action, "finished series are kept; continue with --resume"))


def main() -> None:
    """Entry point of the `stillscan` script."""
    share_one_heap()
    try:
        app(prog_name="stillscan")
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else int(end.code is not None))
