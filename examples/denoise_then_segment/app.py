"""Denoise, then segment: python denoise_then_segment -i IN -o OUT -m model.ts (TorchScript)."""

import monai.deploy.operators as sdk
from monai.deploy.conditions import CountCondition
from monai.deploy.core import Application
from monai.deploy.operators.dicom_seg_writer_operator import SegmentDescription
from monai.transforms import AsDiscreted, Compose, EnsureChannelFirstd, LoadImaged
from pydicom.sr.codedict import codes

from stillscan.operators import DenoiseSeriesOperator, DerivedSeriesWriterOperator

SERIES = {("study_selected_series_list", "study_selected_series_list")}
OPTIONS = {"roi_size": (64, 64, 16), "pre_transforms": None, "post_transforms": None}


class Segment(sdk.MonaiSegInferenceOperator):
    def pre_process(self, reader):
        return Compose([LoadImaged("image", reader=reader), EnsureChannelFirstd("image")])

    def post_process(self, _):
        return AsDiscreted("pred", threshold=0.5)


class DenoiseThenSegment(Application):
    def compose(self):
        at, once = Application.init_app_context(self.argv), CountCondition(self, 1)
        what = [SegmentDescription("Liver", codes.SCT.Organ, codes.SCT.Liver, "Example", "1")]
        out = {"output_folder": at.output_path}
        load = sdk.DICOMDataLoaderOperator(self, once, input_folder=at.input_path, name="load")
        select = sdk.DICOMSeriesSelectorOperator(self, name="select")
        denoise = DenoiseSeriesOperator(self, strength="medium", name="denoise")
        keep = DerivedSeriesWriterOperator(self, **out, name="keep")
        stack = sdk.DICOMSeriesToVolumeOperator(self, name="stack")
        segment = Segment(self, app_context=at, **OPTIONS, name="segment")
        seg = sdk.DICOMSegmentationWriterOperator(self, segment_descriptions=what, **out, name="s")
        self.add_flow(load, select)
        for source, target in (select, denoise), (denoise, keep), (denoise, stack), (denoise, seg):
            self.add_flow(source, target, SERIES)
        self.add_flow(stack, segment)
        self.add_flow(segment, seg, {("seg_image", "seg_image")})
