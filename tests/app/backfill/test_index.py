"""What the source holds: each file is read once, each series known by its instances."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stillscan.app.backfill.database import opened_state
from stillscan.app.backfill.index import SeriesIndex
from stillscan.app.backfill.listing import Source, list_source, source_of
from stillscan.app.backfill.work_items import SeriesFiles, WorkItem
from stillscan.app.dicomweb.query import FoundSeries
from stillscan.operators.errors import SettingsError
from stillscan.operators.reading.decoder import Decoder, Scanned
from tests.series_factory import make_series


class CountingDecoder(Decoder):
    """Remembers which files it has looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.scanned: list[Path] = []

    def scan(self, paths: Iterable[Path]) -> Iterator[Scanned]:
        asked = list(paths)
        self.scanned += asked
        return super().scan(asked)


@pytest.fixture
def decoder() -> Iterator[CountingDecoder]:
    with CountingDecoder() as decoder:
        yield decoder


def listed(source: Path, state: Path, decoder: Decoder) -> list[WorkItem]:
    with opened_state(state) as connection:
        index = SeriesIndex(connection)
        list_source(Source(roots=(source,)), index, decoder, lambda _: None)
        items = list(index.items())
        assert len(items) == index.count()
        return items


def test_files_are_looked_into_once(tmp_path: Path, decoder: CountingDecoder):
    files = make_series(tmp_path / "in", slices=3)
    first = listed(tmp_path / "in", tmp_path / "state", decoder)
    assert len(decoder.scanned) == 3
    assert listed(tmp_path / "in", tmp_path / "state", decoder) == first
    assert len(decoder.scanned) == 3
    files[0].touch()
    listed(tmp_path / "in", tmp_path / "state", decoder)
    assert decoder.scanned[3:] == [files[0]]


def test_a_file_that_has_gone_is_listed_no_more(tmp_path: Path, decoder: CountingDecoder):
    files = make_series(tmp_path / "in", slices=3)
    (before,) = listed(tmp_path / "in", tmp_path / "state", decoder)
    files[1].unlink()
    (after,) = listed(tmp_path / "in", tmp_path / "state", decoder)
    assert isinstance(after, SeriesFiles)
    assert after.files == (files[0], files[2])
    assert after.content != before.content


def test_a_moved_series_is_the_same_work(tmp_path: Path, decoder: CountingDecoder):
    make_series(tmp_path / "in" / "a", slices=3)
    (before,) = listed(tmp_path / "in", tmp_path / "state", decoder)
    (tmp_path / "in" / "a").rename(tmp_path / "in" / "b")
    (after,) = listed(tmp_path / "in", tmp_path / "state", decoder)
    assert (after.key, after.content) == (before.key, before.content)


def test_names_in_any_encoding_are_listed(tmp_path: Path, decoder: CountingDecoder):
    (file,) = make_series(tmp_path / "in", slices=1)
    odd = tmp_path / "in" / b"\xff\xfe.dcm".decode("utf-8", "surrogateescape")
    file.rename(odd)
    (item,) = listed(tmp_path / "in", tmp_path / "state", decoder)
    assert isinstance(item, SeriesFiles)
    assert item.files == (odd,)


def test_a_fifo_is_not_opened(tmp_path: Path, decoder: CountingDecoder):
    import os

    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / "fifo")
    (item,) = listed(tmp_path / "in", tmp_path / "state", decoder)
    assert item.key.startswith("file-")
    assert not decoder.scanned


def test_what_we_store_into_a_study_does_not_move_numbers(tmp_path: Path):
    source = FoundSeries("1.2", "1.2.1", "MR", 2, 24)
    ours = FoundSeries("1.2", "2.25.7", "MR", 201, 24)

    def numbers(*found: FoundSeries) -> dict[str, frozenset[int]]:
        with opened_state(tmp_path) as connection:
            index = SeriesIndex(connection)
            index.add_archived(found)
            return {item.key: item.taken_numbers for item in index.items()}

    assert numbers(source) == {"1.2.1": {2}}
    assert numbers(source, ours)["1.2.1"] == {2}
    late = replace(source, instances=25)
    assert numbers(late, ours)["1.2.1"] == {2, 201}


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_a_source_that_is_nothing_is_refused(content: bytes | None, tmp_path: Path):
    if content is not None:
        (tmp_path / "source").write_bytes(content)
    with pytest.raises(SettingsError, match="source"):
        source_of(str(tmp_path / "source"), None)


def test_one_file_is_a_source(tmp_path: Path):
    (file,) = make_series(tmp_path, slices=1)
    assert source_of(str(file), None).roots == (file,)
