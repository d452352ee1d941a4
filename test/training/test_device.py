"""The device: what cannot be had is refused with the reason; autocast follows the precision."""

import pytest
import torch
from tiny_model import tiny_spec

from hybrid_seg_ros.model_spec import TokenBudget
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training.devices import autocast, prepare_model, training_device

CPU = torch.device('cpu')


@pytest.mark.parametrize(
    'name, precision, complaint',
    [
        ('cpu', 'float16', 'precision float16 needs --device cuda; legal on the CPU are float32, bfloat16'),
        ('tpu', 'float32', "unknown device 'tpu'; legal are cpu, cuda, cuda:N"),
        ('meta', 'float32', "unknown device 'meta'; legal are cpu, cuda, cuda:N"),
    ],
)
def test_what_cannot_be_had_is_refused(name, precision, complaint):
    with pytest.raises(ValueError, match=complaint):
        training_device(name, precision)


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_a_missing_gpu_is_refused():
    with pytest.raises(ValueError, match=r"device 'cuda:1': this PyTorch \(.*\) sees no CUDA device"):
        training_device('cuda:1', 'float16')


def test_torchrun_s_processes_take_a_gpu_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert training_device('cuda', 'float16') == torch.device('cuda', 0)
    assert training_device('cuda:1', 'float16') == torch.device('cuda', 1)
    monkeypatch.setenv('WORLD_SIZE', '3')
    with pytest.raises(ValueError, match='take one GPU each; expected --device cuda'):
        training_device('cuda:1', 'float16')
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert training_device('cuda', 'float16') == torch.device('cuda', 1)
    monkeypatch.setenv('LOCAL_RANK', '2')
    with pytest.raises(ValueError, match='device cuda:2: expected an index below 2'):
        training_device('cuda', 'float16')


@pytest.mark.parametrize('precision, dtype', [('float32', torch.float32), ('bfloat16', torch.bfloat16)])
def test_the_network_computes_in_the_precision(precision, dtype):
    layer = torch.nn.Linear(2, 2)
    with autocast(training_device('cpu', precision), precision):
        assert layer(torch.ones(1, 2)).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_channels_last_as_on_a_gpu_changes_nothing_but_the_layout():
    torch.manual_seed(0)
    model = HybridSegmenter(tiny_spec()).eval()
    images = torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8)

    def outputs():
        return model(model.normalize(images), model.spec.variant, TokenBudget(keep=0.5), supervise=True).scores

    expected = outputs()
    model = prepare_model(model, CPU).to(memory_format=torch.channels_last)
    assert model.policy.backbone.conv_stem.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(outputs(), expected, rtol=1e-4, atol=1e-5)
    outputs().sum().backward()
