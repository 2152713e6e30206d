"""DICOM to volumes and back, the quality gate, the report, the holoscan operators.

For the graphs of other MONAI Deploy applications:

    from stillscan.operators import DenoiseSeriesOperator, DerivedSeriesWriterOperator
"""

from importlib import import_module

# They put the application's bundles and settings to use, so they are of a higher layer; imported
# when they are asked for, as they need the SDK.
_FOR_OTHER_GRAPHS = ("DenoiseSeriesOperator", "DerivedSeriesWriterOperator")


def __getattr__(name: str) -> object:
    """Import an operator for other graphs when it is first used."""
    if name not in _FOR_OTHER_GRAPHS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("stillscan.app.library.sdk_operators"), name)
