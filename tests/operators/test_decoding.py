"""Decoding in the child: exact pixels in every syntax, and no file that ends more than itself."""

import json
import logging
import os
import platform
import signal
import struct
import subprocess
import sys
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from stillscan.operators.errors import (
    CorruptPixelDataError,
    DecoderStoppedError,
    InputError,
    input_error,
)
from stillscan.operators.reading.decoder import DecodedFrame, Decoder, Limits, Scanned
from stillscan.operators.reading.records import Identification
from stillscan.operators.reading.sandbox.parser import DEFLATED_LE
from stillscan.operators.reading.sandbox.silent_decoder import decoder_must_be_silent
from stillscan.operators.reading.sandbox_process import ReadingProcess
from tests.conftest import need
from tests.operators.test_parsing import element, part_10
from tests.series_factory import COMPRESSED_SYNTAXES, NATIVE_SYNTAXES, make_series

SYNTAXES = (*NATIVE_SYNTAXES, *COMPRESSED_SYNTAXES)
ROOT = Path(__file__).resolve().parents[2]
REAL_LOSSLESS = ("4.57", "4.70", "4.80", "4.90", "1.2.5.", "1.2.2.", "1.99", "1.2.1.")


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as running:
        yield running


def scan_one(decoder: Decoder, path: Path) -> Scanned:
    (scanned,) = decoder.scan([path])
    return scanned


def decode(decoder: Decoder, path: Path) -> tuple[DecodedFrame, np.ndarray]:
    image = scan_one(decoder, path).image
    assert image is not None
    (frame,) = decoder.read([(path, 0)], image.frame_bytes)
    return frame, np.frombuffer(frame.stored, image.dtype).reshape(image.rows, image.columns)


def rewrite(path: Path, value: bytes) -> None:
    """Put another encapsulated stream into a compressed file."""
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([value])
    dataset.save_as(path)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits_stored", [10, 12, 14, 16])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_syntax_decodes_to_its_uncompressed_twin(
    syntax, bits_stored, signed, decoder, tmp_path
):
    kind = {"modality": "CT", "slices": 1, "signed": signed, "bits_stored": bits_stored}
    (path,) = make_series(tmp_path / "it", transfer_syntax=syntax, rows=37, columns=41, **kind)
    (twin,) = make_series(tmp_path / "twin", rows=37, columns=41, **kind)
    _, stored = decode(decoder, path)
    expected = pydicom.dcmread(twin).pixel_array
    mask = 2**bits_stored - 1  # the sign is extended when the series is read
    assert np.array_equal(stored.astype(int) & mask, expected.astype(int) & mask)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_bytes_of_eight_bit_radiographs_are_exact(syntax, decoder, tmp_path):
    kind = {"modality": "DX", "slices": 1, "bits_stored": 8, "rows": 36, "columns": 37}
    (path,) = make_series(tmp_path / "it", transfer_syntax=syntax, **kind)
    (twin,) = make_series(tmp_path / "twin", **kind)
    assert np.array_equal(decode(decoder, path)[1], pydicom.dcmread(twin).pixel_array)


@pytest.mark.parametrize("syntax", [*NATIVE_SYNTAXES, RLELossless])
def test_odd_number_of_bytes_is_no_padding(syntax, decoder, tmp_path):
    kind = {"modality": "CR", "slices": 1, "bits_stored": 8, "rows": 35, "columns": 37}
    (path,) = make_series(tmp_path / "it", transfer_syntax=syntax, **kind)
    (twin,) = make_series(tmp_path / "twin", **kind)
    assert np.array_equal(decode(decoder, path)[1], pydicom.dcmread(twin).pixel_array)


@pytest.mark.data
def test_real_image_is_the_same_in_all_lossless_syntaxes(decoder, stillscan_data):
    folder = stillscan_data / "dev" / "dicom" / "ct_chest_transfer_syntaxes"
    expected = pydicom.dcmread(folder / "CTImage.dcm").pixel_array
    files = [p for p in folder.iterdir() if any(f"{s}" in p.name for s in REAL_LOSSLESS)]
    assert len(files) >= len(REAL_LOSSLESS)
    for path in files:
        if scan_one(decoder, path).known.lossy != "01":
            assert np.array_equal(decode(decoder, path)[1], expected), path.name


def test_header_comes_without_pixel_data(decoder, tmp_path):
    (path,) = make_series(tmp_path, slices=1)
    frame, _ = decode(decoder, path)
    header, original = frame.dataset(), pydicom.dcmread(path)
    assert "PixelData" not in header
    assert header.PatientName == original.PatientName
    assert len(header) == len(original) - 1


def test_scan_tells_patients_apart_without_their_names(decoder, tmp_path):
    (path,) = make_series(tmp_path / "1", slices=1, PatientName="Canary^Name", PatientID="CANARY")
    (other,) = make_series(tmp_path / "2", slices=1, PatientName="Canary^Name", PatientID="OTHER")
    one, two = decoder.scan([path, other])
    assert "CANARY" not in repr(one).upper()
    assert one.known.patient[0] != two.known.patient[0]
    assert one.known.patient[1:] == two.known.patient[1:]


def test_truncated_stream_is_refused(decoder, tmp_path):
    for syntax in (JPEG2000Lossless, JPEGLosslessSV1, JPEGLossless, JPEGLSLossless, RLELossless):
        (path,) = make_series(tmp_path / syntax, slices=1, transfer_syntax=syntax)
        dataset = pydicom.dcmread(path)
        stream = next(iter(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)))
        rewrite(path, stream[: len(stream) // 3])
        with pytest.raises(CorruptPixelDataError, match=path.name):
            decode(decoder, path)


def test_stream_larger_than_its_header_says_is_not_decoded(decoder, tmp_path):
    (path,) = make_series(tmp_path, slices=1, transfer_syntax=JPEG2000Lossless)
    stream = bytearray(
        next(pydicom.encaps.generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1))
    )
    struct.pack_into(">II", stream, 8, 60000, 60000)  # Xsiz, Ysiz: 6.7 GiB for a decoder
    rewrite(path, bytes(stream))
    started = decoder.process_id
    with pytest.raises(CorruptPixelDataError, match="60000 x 60000 x 1 values, expected 64 x 64"):
        decode(decoder, path)
    assert decoder.process_id == started


def warn() -> None:
    warnings.warn("a marker is missing", stacklevel=1)


def log() -> None:
    logging.getLogger("openjpeg").warning("a tile is too short")


def print_as_c_does() -> None:
    os.write(2, b"corrupt data")


def fail() -> None:
    raise RuntimeError("cannot")


class PanicException(BaseException):
    """As Rust's, which pylibjpeg's RLE decoder raises."""


def panic() -> None:
    raise PanicException("index out of bounds")


@pytest.mark.parametrize("complaint", [warn, log, print_as_c_does, fail, panic])
def test_decoder_that_complains_in_any_way_fails_the_file(complaint):
    with decoder_must_be_silent():
        pass
    with pytest.raises(CorruptPixelDataError), decoder_must_be_silent():
        complaint()


def test_lossy_stream_in_a_lossless_syntax_is_refused(decoder, tmp_path):
    (path,) = make_series(tmp_path, slices=1, transfer_syntax=JPEG2000Lossless)
    frames = pydicom.encaps.generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1)
    stream = bytearray(next(frames))
    coding = stream.index(b"\xff\x52")
    stream[coding + 13] = 0  # the 9-7 irreversible wavelet
    rewrite(path, bytes(stream))
    with pytest.raises(CorruptPixelDataError, match="lossy stream"):
        decode(decoder, path)


def test_file_that_takes_too_long_is_refused_and_the_next_is_read(tmp_path):
    files = make_series(tmp_path, slices=3)
    with Decoder(Limits(wall_s=1.0)) as decoder:
        child = decoder.process_id
        assert child is not None
        os.kill(child, signal.SIGSTOP)
        first, second, third = decoder.scan(files)
        assert isinstance(first.fault, DecoderStoppedError)
        assert "was not read within 1 s" in str(first.fault)
        assert second.instance is not None
        assert third.instance is not None
        assert decoder.process_id != child


def test_child_that_dies_between_requests_is_no_fault_of_a_file(tmp_path):
    (path,) = make_series(tmp_path, slices=1)
    with Decoder() as decoder:
        assert decoder.process_id is not None
        os.kill(decoder.process_id, signal.SIGKILL)
        time.sleep(0.1)
        assert scan_one(decoder, path).instance is not None


def deflated(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return part_10(packer.compress(body) + packer.flush(), DEFLATED_LE)


def test_file_that_burns_processor_time_is_refused(tmp_path):
    bomb = tmp_path / "bomb.dcm"  # 60 MiB of empty elements in 60 kB
    bomb.write_bytes(deflated(struct.pack("<HHI", 0, 1, 0) * 8_000_000))
    (good,) = make_series(tmp_path / "good", slices=1)
    with Decoder(Limits(cpu_s=0)) as decoder:
        refused, fine = decoder.scan([bomb, good])
    assert isinstance(refused.fault, DecoderStoppedError)
    assert "processor time" in str(refused.fault)
    assert fine.instance is not None


def test_file_that_needs_too_much_memory_is_refused(tmp_path):
    bomb = tmp_path / "bomb.dcm"  # a private attribute of 60 MiB, in 60 kB
    blob = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 60 * 2**20) + bytes(60 * 2**20)
    bomb.write_bytes(deflated(element(0x00080016, b"UI", b"1.2\0") + blob))
    (good,) = make_series(tmp_path / "good", slices=1)
    with Decoder(Limits(address_space=64 * 2**20)) as decoder:
        child = decoder.process_id
        refused, fine = decoder.scan([bomb, good])
        assert decoder.process_id == child
    assert isinstance(refused.fault, DecoderStoppedError)
    assert str(refused.fault) == "needs more than 64 MiB"
    assert fine.instance is not None


def test_pipes_and_devices_do_not_hang_the_child(decoder, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        fault = scan_one(decoder, path).fault
        assert fault is not None
        assert fault.reason == "unreadable-file"


def test_frames_read_from_several_threads_are_not_mixed_up(decoder, tmp_path):
    files = [make_series(tmp_path, slices=1, seed=seed)[0] for seed in range(8)]
    expected = {path: pydicom.dcmread(path).pixel_array for path in files}

    def check(number: int) -> bool:
        path = files[number % len(files)]
        return np.array_equal(decode(decoder, path)[1], expected[path])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(check, range(64)))


def test_child_answers_before_anything_heavy_is_imported():
    heavy = ("numpy", "pydicom", "torch", "holoscan", "gdcm", "jaxtyping")
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
        "import stillscan.operators.reading.sandbox.main; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_answers_of_another_shape_are_not_accepted(decoder, tmp_path):
    (path,) = make_series(tmp_path, slices=1)
    known = scan_one(decoder, path).known
    assert known is not None
    fields = {name: getattr(known, name) for name in Identification.__slots__}
    answer = json.loads(json.dumps(fields))
    assert Identification.from_answer(answer) == known
    for change in ({"modality": 1}, {"patient": ["x"]}, {"image_type": "M"}, {"more": 0}):
        with pytest.raises(ValueError, match=r"expected|should hold|argument 2"):
            Identification.from_answer({**answer, **change})


def test_every_refusal_has_its_own_reason():
    leaves = InputError.__subclasses__()
    assert len({leaf.reason for leaf in leaves}) == len(leaves)
    for leaf in leaves:
        assert type(input_error(leaf.reason, "why")) is leaf


def test_closed_decoder_reads_nothing(tmp_path):
    (path,) = make_series(tmp_path, slices=1)
    decoder = Decoder()
    with decoder:
        assert scan_one(decoder, path).instance is not None
    with pytest.raises(ValueError, match="closed"):
        scan_one(decoder, path)


FORBIDDEN = {
    "network": "socket.socket()",
    "program": "os.execv('/bin/true', ['true'])",
    "process": "os.fork()",
    "signal": "os.kill(os.getppid(), 0)",
    "write": "open(file, 'w')",
    "append": "open(file, 'a')",
    "remove": "os.unlink(file)",
    "folder": "os.mkdir(file + '.d')",
}
CONFINED = """
import os, socket, sys, threading
from stillscan.operators.reading.sandbox.system_calls import forbid_system_calls
file = sys.argv[1]
assert forbid_system_calls()
open(file).close()
threading.Thread(target=int).start()
try:
    {}
except PermissionError:
    sys.exit(7)
"""


@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_child_may_not_do_more_than_read(what, tmp_path):
    need(sys.platform == "linux" and platform.machine() == "x86_64", "Linux on x86-64 alone")
    (tmp_path / "file").touch()
    program = [sys.executable, "-c", CONFINED.format(FORBIDDEN[what]), str(tmp_path / "file")]
    assert subprocess.run(program, check=False).returncode == 7
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("possible", [True, False])
def test_where_the_child_is_not_confined_the_log_says_so_once(
    possible, tmp_path, caplog, monkeypatch
):
    if possible:
        need(sys.platform == "linux" and platform.machine() == "x86_64", "Linux on x86-64 alone")
    else:
        monkeypatch.setattr(ReadingProcess, "has_system_call_filter", lambda self: False)
    with Decoder() as decoder:
        assert len(list(decoder.scan(make_series(tmp_path, slices=3)))) == 3
    assert len([each for each in caplog.records if "seccomp" in each.message]) == int(not possible)
