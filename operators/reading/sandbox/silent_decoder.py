"""Treats any failure or warning of a decoder as a fault of the file.

Decoders report through exceptions, Python warnings, the log and, where they are C or C++, the
standard error of the process. Their text is not passed on, as it could quote the file.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from stillscan.operators.errors import CorruptPixelDataError

# what pydicom's decoders raise for a stream they cannot decode; anything else ends the child
DECODER_FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    OSError,
    Warning,
)
RUST_PANIC = "PanicException"  # of the RLE decoder: no subclass of Exception, and not exported


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.heard = False

    def emit(self, record: logging.LogRecord) -> None:
        self.heard = True


@contextmanager
def decoder_must_be_silent() -> Iterator[None]:
    """Fail if a decoder inside the `with` block fails, warns, logs or prints.

    Raises:
        CorruptPixelDataError: if a decoder fails, warns, logs or prints.
    """
    listener = _Listener()
    logging.getLogger().addHandler(listener)
    try:
        with _printed() as printed, warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except DECODER_FAILURES as error:
        raise CorruptPixelDataError(
            f"PixelData cannot be decoded: its decoder failed ({type(error).__name__})"
        ) from error
    except BaseException as error:
        if type(error).__name__ != RUST_PANIC:
            raise
        raise CorruptPixelDataError("PixelData cannot be decoded: its decoder aborted") from error
    finally:
        logging.getLogger().removeHandler(listener)
    if listener.heard or printed:
        raise CorruptPixelDataError("PixelData cannot be trusted: its decoder warned")


@contextmanager
def _printed() -> Iterator[bytearray]:
    """Yield a buffer that afterwards holds what was written to standard error, also by C code."""
    printed = bytearray()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)  # a decoder that prints more than a pipe holds must not block
    before = os.dup(2)
    os.dup2(writing, 2)
    try:
        yield printed
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(writing)
        printed += os.read(reading, 2**16)  # empty at the end of the pipe: all writers are closed
        os.close(reading)
