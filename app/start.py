"""Entry point of `stillscan` with a fast start."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

HTTP_CLIENT = "requests"


@contextmanager
def without_http_client() -> Iterator[None]:
    """Make the import of `requests` fail inside this context.

    pydicom imports it only for files of its own tests and loads a quarter faster without it. A
    later import works.
    """
    if HTTP_CLIENT in sys.modules:
        yield
        return
    sys.modules[HTTP_CLIENT] = None  # type: ignore[assignment]  # forbids an import
    try:
        yield
    finally:
        del sys.modules[HTTP_CLIENT]


def main() -> None:
    """Entry point of the `stillscan` script."""
    with without_http_client():
        from stillscan.app import cli
    cli.main()
