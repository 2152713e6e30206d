"""`stillscan-gateway`: commands of the gateway for its operator."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from stillscan.app.exit_status import exit_code_of, leave
from stillscan.deploy.gateway.json_logs import set_up_logging
from stillscan.deploy.gateway.planner.rules import choose_rule, header_of
from stillscan.deploy.gateway.record.overview import Overview
from stillscan.deploy.gateway.settings import GatewaySettings, Places, load_gateway_settings
from stillscan.deploy.gateway.usable_settings import usable_settings
from stillscan.operators.errors import ExitCode
from stillscan.operators.reading.decoder import Decoder
from stillscan.operators.reading.file_names import shown
from stillscan.operators.reading.input_files import input_files

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="PACS gateway: receives DICOM series, denoises them and sends the derived series.",
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="Settings file in YAML (default: the default of every setting)",
        show_default=False,
    ),
]


@app.command()
def serve(config: Config = None) -> None:
    """Run the gateway until SIGTERM; running jobs and deliveries are then completed."""
    from stillscan.deploy.gateway.supervisor import serve as serve_until_stopped

    def action() -> ExitCode:
        serve_until_stopped(usable_settings(config))
        return ExitCode.DERIVED

    set_up_logging("service", os.environ.get("STILLSCAN_LOG_LEVEL", "info"))
    raise typer.Exit(exit_code_of(action))


@app.command()
def check(config: Config = None) -> None:
    """Check the settings file; print the settings as JSON, or the first error."""

    def action() -> ExitCode:
        settings = usable_settings(config)
        typer.echo(json.dumps(asdict(settings), indent=2, default=str))
        return ExitCode.DERIVED

    set_up_logging("check", "info")
    raise typer.Exit(exit_code_of(action))


@app.command()
def inspect(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Folder with DICOM files")],
    config: Config = None,
    sender: Annotated[str, typer.Option(help="Assumed calling AE title of the sender")] = "",
) -> None:
    """Show which rule each series of a folder matches (see also `stillscan inspect`)."""

    def action() -> ExitCode:
        settings = usable_settings(config)
        seen: set[str] = set()
        with Decoder() as decoder:
            for path in input_files(source).files:
                scanned, header = header_of(path, decoder)
                uid = scanned.known.series_instance_uid if scanned.known else shown(path)
                if uid not in seen:
                    seen.add(uid)
                    rule = choose_rule(settings.rules, header, sender)
                    typer.echo(f"{uid}: {_rule_text(rule.name if rule else None, settings)}")
        return ExitCode.DERIVED if seen else ExitCode.NOTHING_TO_DO

    set_up_logging("inspect", "info")
    raise typer.Exit(exit_code_of(action))


@app.command()
def status(config: Config = None) -> None:
    """Print the number of series, jobs and deliveries by state, and the last jobs, as JSON."""

    def action() -> ExitCode:
        overview = Overview(Places(load_gateway_settings(config).data))
        shown = {
            "counts": asdict(overview.counts()),
            "jobs": [asdict(each) for each in overview.recent_jobs(20)],
        }
        typer.echo(json.dumps(shown, indent=2))
        return ExitCode.DERIVED

    set_up_logging("status", "info")
    raise typer.Exit(exit_code_of(action))


def _rule_text(name: str | None, settings: GatewaySettings) -> str:
    if name is None:
        return "no rule matches: not processed, kept for the retention time"
    rule = next(each for each in settings.rules if each.name == name)
    if not rule.process:
        return f"rule '{name}': not processed"
    sent = ", then sent to " + ", ".join(rule.destinations) if rule.destinations else ", not sent"
    return f"rule '{name}': processed{sent}"


def main() -> None:
    """Entry point of the `stillscan-gateway` script."""
    try:
        app(prog_name="stillscan-gateway")
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else int(end.code is not None))


if __name__ == "__main__":
    main()
