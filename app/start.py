"""`stillscan`, from the first line on: a short series is mostly start-up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

HTTP_CLIENT = "requests"


@contextmanager
def without_http_client() -> Iterator[None]:
    """An import of `requests` fails inside.

    pydicom wants it for the files of its own tests, does without it, and is there a quarter sooner.
    Who imports it later gets it.
    """
    if HTTP_CLIENT in sys.modules:
        yield
        return
    sys.modules[HTTP_CLIENT] = None  # type: ignore[assignment]  # how an import is forbidden
    try:
        yield
    finally:
        del sys.modules[HTTP_CLIENT]


def main() -> None:
    """Entry point of the `stillscan` script."""
    with without_http_client():
        from stillscan.app import cli
    cli.main()
