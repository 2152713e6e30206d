"""The two manifests by which a MAP describes itself: `app.json` and `pkg.json`.

They are what `monai-deploy package` writes for the same application, key by key (a test compares
them), so that every tool that reads a MAP reads ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from stillscan.app.settings import DEFAULT_SETTINGS, load_settings

API_VERSION = "1.0.0"  # of the manifests
APPLICATION = "/opt/holoscan/app"
MODELS = "/opt/holoscan/models"
COMMAND = ("python3", APPLICATION)
WORKING_DIRECTORY = "/var/holoscan"
SDK = "monai-deploy"

# The paths of the MAP specification. Input and output stand in the manifest as they do here,
# relative to the working directory; in the image's environment they are absolute.
ENVIRONMENT: Mapping[str, str] = {
    "HOLOSCAN_APPLICATION": APPLICATION,
    "HOLOSCAN_INPUT_PATH": "input/",
    "HOLOSCAN_OUTPUT_PATH": "output/",
    "HOLOSCAN_WORKDIR": WORKING_DIRECTORY,
    "HOLOSCAN_MODEL_PATH": MODELS,
    "HOLOSCAN_CONFIG_PATH": f"{WORKING_DIRECTORY}/app.yaml",
    "HOLOSCAN_APP_MANIFEST_PATH": "/etc/holoscan/app.json",
    "HOLOSCAN_PKG_MANIFEST_PATH": "/etc/holoscan/pkg.json",
    "HOLOSCAN_DOCS_PATH": "/opt/holoscan/docs",
    "HOLOSCAN_LOGS_PATH": f"{WORKING_DIRECTORY}/logs",
}


def application_manifest(sdk_version: str, settings: Path = DEFAULT_SETTINGS) -> dict[str, Any]:
    """Build `app.json`: how the application is started and what it reads and writes.

    Args:
        sdk_version: version of the MONAI Deploy App SDK.
        settings: the application's YAML file.

    Raises:
        SettingsError: if the settings are wrong.
    """
    application = load_settings(settings).application
    return {
        "apiVersion": API_VERSION,
        "command": json.dumps(COMMAND),
        "environment": dict(ENVIRONMENT),
        "input": {
            "path": ENVIRONMENT["HOLOSCAN_INPUT_PATH"],
            "formats": list(application.input_formats),
        },
        "liveness": None,
        "output": {
            "path": ENVIRONMENT["HOLOSCAN_OUTPUT_PATH"],
            "formats": list(application.output_formats),
        },
        "readiness": None,
        "sdk": SDK,
        "sdkVersion": sdk_version,
        "timeout": 0,
        "version": application.version,
        "workingDirectory": WORKING_DIRECTORY,
    }


def package_manifest(
    bundles: Iterable[str], platform: str, settings: Path = DEFAULT_SETTINGS
) -> dict[str, Any]:
    """Build `pkg.json`: paths of the models and resources of one run.

    Args:
        bundles: names of the folders under the models.
        platform: `cpu`, or `dgpu` for an image with CUDA.
        settings: the application's YAML file; its `resources` are passed on unchanged.

    Raises:
        SettingsError: if the settings are wrong.
    """
    version = load_settings(settings).application.version
    document = yaml.safe_load(settings.read_text(encoding="utf-8"))
    return {
        "apiVersion": API_VERSION,
        "applicationRoot": APPLICATION,
        "modelRoot": MODELS,
        "models": {name: f"{MODELS}/{name}" for name in sorted(bundles)},
        "resources": document["resources"],
        "version": version,
        "platformConfig": platform,
    }
