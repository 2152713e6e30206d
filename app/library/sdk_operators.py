"""Operators for the graphs of other MONAI Deploy applications, with the SDK's ports and objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import stillscan.operators.graph.cuda_runtime  # noqa: F401 - loads a library that holoscan needs

# isort: split
import numpy as np
from monai.deploy.core import ConditionType, Fragment, Image, Operator, OperatorSpec
from monai.deploy.core.domain.dicom_series import DICOMSeries
from monai.deploy.core.domain.dicom_series_selection import SelectedSeries, StudySelectedSeries
from monai.deploy.core.domain.dicom_study import DICOMStudy
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_series_to_volume_operator import DICOMSeriesToVolumeOperator
from pydicom import Dataset, dcmwrite

from stillscan.app.library.functions import NothingDerivedError, Result, denoise
from stillscan.app.pipeline.output_folder import publish, staging_in
from stillscan.app.settings import Device, Mode, Settings, Strength
from stillscan.operators.output_faults import naming_output_faults
from stillscan.operators.report.outcome import SeriesOutcome

NOTHING = Result([], None, [], None, None, ())
OUTCOME = "stillscan_outcome"  # in the metadata of a selected series: what became of it


class DenoiseSeriesOperator(Operator):  # type: ignore[misc]  # holoscan has no type information
    """Denoises the selected DICOM series, or an image in memory, and judges the result.

    Either input may be connected, or none where `input_folder` is given: that folder is read as
    `stillscan denoise` reads it, which keeps all echoes and repetitions of a series (the SDK's
    DICOMDataLoaderOperator keeps one image of each position).

    Named Input:
        study_selected_series_list: List of StudySelectedSeries, from files or in memory.
        image: Image object of one series, in modality units (alternative).

    Named Output:
        study_selected_series_list: List of StudySelectedSeries with the derived series, under the
            names of the selections. A series that cannot be derived is passed on as it came, unless
            `keep_refused` is False. Not requiring a ready receiver, like the next two.
        image: Image object of the first of them, as DICOMSeriesToVolumeOperator makes it; or the
            denoised image.
        series_outcomes: List of SeriesOutcome, one for each series: status, reason, noise, verdict.
    """

    def __init__(
        self,
        fragment: Fragment,
        *args: Any,
        strength: Strength | float | None = None,
        mode: Mode | None = None,
        device: Device | None = None,
        model_path: Path | None = None,
        settings: Settings | None = None,
        input_folder: Path | None = None,
        keep_refused: bool = True,
        **kwargs: Any,
    ) -> None:
        """Create an operator.

        Args:
            fragment: the application.
            args: conditions and resources of holoscan.
            strength: share of the noise to remove: "low", "medium", "high", or 0 to 1.
            mode: the network, as for `stillscan denoise --mode`.
            device: "auto", "cpu" or "cuda".
            model_path: folder of bundles, or one bundle; default: the shipped ones.
            settings: default: those of the shipped `app.yaml`.
            input_folder: is read instead of an input port.
            keep_refused: pass a series on that cannot be derived.
            kwargs: further arguments of holoscan's Operator, such as `name`.
        """
        self._options: dict[str, Any] = {
            "strength": strength,
            "mode": mode,
            "device": device,
            "models": model_path,
            "settings": settings,
        }
        self._input_folder = input_folder
        self._keep_refused = keep_refused
        self._to_volume = DICOMSeriesToVolumeOperator(fragment, name="stillscan_to_volume")
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Define the ports; one message on either input is enough."""
        if self._input_folder is None:
            spec.input("study_selected_series_list")
            spec.input("image")
            spec.or_combine_port_conditions(["study_selected_series_list", "image"])
        for name in ("study_selected_series_list", "image", "series_outcomes"):
            spec.output(name).condition(ConditionType.NONE)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Denoise what has come."""
        if self._input_folder is not None:
            result = denoise(self._input_folder, **self._options)
            self._emit_series(op_output, _studies_of(result.image), result)
            self.stop_execution()
            return
        image = op_input.receive("image")
        if image is not None:
            found, result = self._denoised_image(image)
            op_output.emit(found, "image")
            op_output.emit(list(result.outcomes), "series_outcomes")
            return
        selected = op_input.receive("study_selected_series_list")
        result = self._denoised_series(selected)
        self._emit_series(op_output, self._derived(selected, result), result)

    def _denoised_image(self, image: Image) -> tuple[Image, Result]:
        meta = image.metadata()
        spacing = meta.get("row_pixel_spacing"), meta.get("col_pixel_spacing")
        result = denoise(
            np.asarray(image.asnumpy()),
            modality=meta.get("Modality"),
            spacing=None if None in spacing else spacing,
            **self._options,
        )
        return Image(result.image, meta), result

    def _denoised_series(self, selected: Sequence[StudySelectedSeries]) -> Result:
        datasets = [
            instance.get_native_sop_instance()
            for study in selected
            for each in study.selected_series
            for instance in each.series.get_sop_instances()
        ]
        try:
            return denoise(datasets, **self._options) if datasets else NOTHING
        except NothingDerivedError as error:
            return replace(NOTHING, outcomes=error.outcomes)

    def _derived(
        self, selected: Sequence[StudySelectedSeries], result: Result
    ) -> list[StudySelectedSeries]:
        """Return the selections with derived series in place of their sources."""
        derived = _by_source(result)
        studies = []
        for source in selected:
            study = StudySelectedSeries(_study_of(_datasets_of(source.selected_series[0])[0]))
            for each in source.selected_series:
                outcome, datasets = derived.get(each.series.SeriesInstanceUID, (None, []))
                series = _series_of(datasets) if datasets else each.series
                if datasets or self._keep_refused:
                    _add(study, each.selection_name, series, outcome)
            if study.selected_series:
                studies.append(study)
        return studies

    def _emit_series(
        self, op_output: Any, studies: list[StudySelectedSeries], result: Result
    ) -> None:
        op_output.emit(studies, "study_selected_series_list")
        if studies:
            op_output.emit(self._to_volume.convert_to_image(studies), "image")
        op_output.emit(list(result.outcomes), "series_outcomes")


class DerivedSeriesWriterOperator(Operator):  # type: ignore[misc]  # as above
    """Writes the derived series of DenoiseSeriesOperator as DICOM files, all of them or none.

    Named Input:
        study_selected_series_list: List of StudySelectedSeries; series that were passed on without
            being derived are not written.

    File output:
        `<SeriesInstanceUID>/<SOPInstanceUID>.dcm` in the output folder.
    """

    def __init__(self, fragment: Fragment, *args: Any, output_folder: Path, **kwargs: Any) -> None:
        """Create an operator.

        Args:
            fragment: the application.
            args: conditions and resources of holoscan.
            output_folder: made if needed.
            kwargs: further arguments of holoscan's Operator, such as `name`.
        """
        self._output_folder = output_folder
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Define the port."""
        spec.input("study_selected_series_list")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Write what was derived."""
        studies = op_input.receive("study_selected_series_list")
        derived = [
            each
            for study in studies
            for each in study.selected_series
            if each.metadata().get(OUTCOME) is not None
        ]
        with staging_in(self._output_folder) as staging:
            with naming_output_faults("write a derived series"):
                for series in derived:
                    folder = staging / str(series.series.SeriesInstanceUID)
                    folder.mkdir()
                    for each in _datasets_of(series):
                        dcmwrite(folder / f"{each.SOPInstanceUID}.dcm", each)
            publish(staging, self._output_folder)


def _by_source(result: Result) -> dict[str, tuple[SeriesOutcome, list[Dataset]]]:
    """Return the derived instances by the SeriesInstanceUID of their source."""
    found: dict[str, tuple[SeriesOutcome, list[Dataset]]] = {}
    for outcome in result.outcomes:
        if outcome.derived is not None and outcome.series_instance_uid is not None:
            uid = outcome.derived.series_instance_uid
            datasets = [each for each in result.image if each.SeriesInstanceUID == uid]
            found[outcome.series_instance_uid] = outcome, datasets
    return found


def _studies_of(datasets: Iterable[Dataset]) -> list[StudySelectedSeries]:
    """Return derived instances by study and series, selected under their SeriesInstanceUID."""
    series: dict[str, list[Dataset]] = {}
    for each in datasets:
        series.setdefault(str(each.SeriesInstanceUID), []).append(each)
    studies: dict[str, StudySelectedSeries] = {}
    for instances in series.values():
        uid = str(instances[0].StudyInstanceUID)
        study = studies.setdefault(uid, StudySelectedSeries(_study_of(instances[0])))
        _add(study, "", _series_of(instances), "derived")
    return list(studies.values())


def _add(study: StudySelectedSeries, name: str, series: DICOMSeries, outcome: Any) -> None:
    study.study.add_series(series)
    study.add_selected_series(SelectedSeries(name, series, metadata={OUTCOME: outcome}))


def _datasets_of(selected: SelectedSeries) -> list[Dataset]:
    return [each.get_native_sop_instance() for each in selected.series.get_sop_instances()]


def _study_of(dataset: Dataset) -> DICOMStudy:
    study = DICOMStudy(dataset.StudyInstanceUID)
    DICOMDataLoaderOperator.populate_study_attributes(None, study, dataset)
    return study


def _series_of(datasets: Sequence[Dataset]) -> DICOMSeries:
    series = DICOMSeries(str(datasets[0].SeriesInstanceUID))
    DICOMDataLoaderOperator.populate_series_attributes(None, series, datasets[0])
    for each in datasets:
        series.add_sop_instance(each)
    return series
