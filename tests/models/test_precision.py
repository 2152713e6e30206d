"""bfloat16 where the hardware multiplies it, float32 elsewhere."""

import pytest
import torch
import torch.nn.functional as F

from stillscan.models.networks.precision import computes_bfloat16, mixed_precision


@pytest.mark.parametrize(("in_hardware", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_convolutions_run_in_what_the_processor_computes(monkeypatch, in_hardware, dtype):
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: in_hardware)
    with mixed_precision("cpu"):
        result = F.conv2d(torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3))
    assert computes_bfloat16("cpu") is in_hardware
    assert result.dtype == dtype


@pytest.mark.parametrize(("capability", "computes"), [((7, 5), False), ((8, 0), True)])
def test_a_graphics_card_says_what_it_computes(monkeypatch, capability, computes):
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    assert computes_bfloat16("cuda:0") is computes
