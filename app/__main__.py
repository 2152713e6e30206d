"""Entry point of the MONAI application package: `python app -i IN -o OUT [-m MODELS]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

if not __package__:
    # `python app` puts the folder `app` on the path; the packages are in its parent
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from stillscan.app.bundles.choice import DEFAULT_BUNDLES
from stillscan.app.exit_status import exit_code_of, leave
from stillscan.app.logging_setup import LEVELS, set_up_logging
from stillscan.app.pipeline.lines import log_derived, log_refusals, log_warnings
from stillscan.app.pipeline.pipeline import run
from stillscan.app.pipeline.survey import Job
from stillscan.app.process_setup import share_one_heap
from stillscan.app.settings import DEFAULT_SETTINGS, load_settings
from stillscan.operators.errors import ExitCode, SettingsError


def parse_arguments(arguments: Sequence[str], environment: Mapping[str, str]) -> argparse.Namespace:
    """Parse the command line; it has precedence over the HOLOSCAN_* variables."""
    parser = argparse.ArgumentParser(
        prog="python app",
        description="Denoise DICOM series (MR, CT, PET, X-ray) into derived series.",
    )

    def path_of(variable: str, default: Path | None = None) -> Path | None:
        return Path(environment[variable]) if environment.get(variable) else default

    parser.add_argument(
        "-i",
        "--input",
        type=Path,
        default=path_of("HOLOSCAN_INPUT_PATH"),
        help="folder with DICOM files (default: $HOLOSCAN_INPUT_PATH)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=path_of("HOLOSCAN_OUTPUT_PATH"),
        help="folder for the result (default: $HOLOSCAN_OUTPUT_PATH)",
    )
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        default=path_of("HOLOSCAN_MODEL_PATH", DEFAULT_BUNDLES),
        help="folder with model bundles, or one bundle (default: $HOLOSCAN_MODEL_PATH, or the "
        "shipped bundles)",
    )
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        default=path_of("HOLOSCAN_CONFIG_PATH", DEFAULT_SETTINGS),
        help="settings file in YAML (default: $HOLOSCAN_CONFIG_PATH, or the shipped app.yaml)",
    )
    parser.add_argument(
        "-l",
        "--log-level",
        type=str.lower,
        choices=LEVELS,
        default="info",
        help="level of the messages on standard error (default: info)",
    )
    return parser.parse_args(arguments)


def denoise(arguments: argparse.Namespace) -> ExitCode:
    """Run once and log the outcome of every series."""
    if arguments.input is None or arguments.output is None:
        raise SettingsError(
            "input and output are needed: -i IN -o OUT, or HOLOSCAN_INPUT_PATH and _OUTPUT_PATH"
        )
    settings = load_settings(arguments.config)
    result = run(Job(arguments.input, arguments.output, settings, arguments.model))
    log_derived(result.outcomes)
    log_warnings(result.outcomes)
    log_refusals(result, arguments.input)
    return result.exit_code


def main() -> NoReturn:
    """Entry point of the MONAI application package."""
    arguments = parse_arguments(sys.argv[1:], os.environ)
    set_up_logging(arguments.log_level)
    share_one_heap()
    leave(exit_code_of(lambda: denoise(arguments)))


if __name__ == "__main__":
    main()
