"""`benchmark` from the command line's side, on real backends; no test says how long anything takes."""

import dataclasses
import json
import sys
from contextlib import nullcontext
from pathlib import Path

import cv2
import pytest
import torch
from tiny_model import tiny_spec, write_lively_model
from torch._inductor import config as inductor

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.data.ade20k import ADE20K_CLASSES
from hybrid_seg_ros.evaluation.benchmark import command
from hybrid_seg_ros.evaluation.benchmark.street_scene import street_scene
from hybrid_seg_ros.evaluation.flops.count import count_flops, expected_tokens
from hybrid_seg_ros.evaluation.flops.paper import paper_form
from hybrid_seg_ros.model_spec import Backbone, ModelSpec, TokenBudget, Variant

ROOT = Path(__file__).parents[3]
BENCHMARK_SPECS = sorted((ROOT / 'config' / 'benchmark').glob('*.yaml'))


@pytest.fixture
def trained(tmp_path):
    """A model with weights of its own, not in the paper's form."""
    return str(write_lively_model(tmp_path, auxiliary_head='light', backbone=Backbone(24, 9, 3)))


@pytest.fixture
def without_weights(tmp_path):
    path = tmp_path / 'fast.yaml'
    tiny_spec(name='fast', policy='patch_mlp', auxiliary_head='light', backbone=Backbone(24, 9, 3)).save(path)
    return str(path)


def benchmark(tmp_path, *words):
    out = tmp_path / 'out.json'
    status = main(['benchmark', *words, '--json', str(out)])
    return status, json.loads(out.read_text()) if out.is_file() else None


def test_rows_of_real_backends_a_page_and_a_figure(trained, without_weights, tmp_path, capsys):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('matplotlib')
    page, picture = tmp_path / 'pages' / 'out.html', tmp_path / 'bars.png'
    status, content = benchmark(
        tmp_path, '--model', trained, without_weights, '--variants', 'dense,hybrid@8', '--backends',
        'pytorch,onnxruntime', 'pytorch-plain,onnxruntime-plain', '--keep', '0.5', '--rounds', '2', '--no-memory',
        '--cache-dir', str(tmp_path / 'cache'), '--html', str(page), '--picture', str(picture),
    )  # fmt: skip
    assert status == 0 and list(content) == ['device', 'rows'] and 'threads' in content['device']
    keys = [(row['model'], row['backend'], row['variant']) for row in content['rows']]
    expected = [(model, backend, variant) for model in ('tiny', 'fast')
                for backend in ('pytorch', 'onnxruntime', 'pytorch-plain', 'onnxruntime-plain')
                for variant in ('dense', 'hybrid@8')[: 1 if backend == 'onnxruntime-plain' else 2]]  # fmt: skip
    assert keys == [key for key in expected if key[:2] != ('fast', 'pytorch-plain')]
    by_key = dict(zip(keys, content['rows']))
    plain = by_key['tiny', 'pytorch-plain', 'dense']
    for (model, backend, variant), row in by_key.items():
        dense, alternative = by_key[model, backend, 'dense'], by_key[model, 'onnxruntime-plain', 'dense']
        assert row['ratio_to_dense'] == pytest.approx(dense['median_ms'] / row['median_ms'])
        assert row['ratio_to_plain'] == pytest.approx(plain['median_ms'] / row['median_ms'])
        assert row['alternative'] == 'onnxruntime-plain'
        assert row['ratio_to_alternative'] == pytest.approx(alternative['median_ms'] / row['median_ms'])
        assert row['dtype'] == 'float32' and row['device'] == 'cpu' and row['rounds'] == 2
        assert row['peak_memory_mb'] is None
        steps = [row['parts_ms'][step] for step in ('preprocess', 'network', 'postprocess')]
        assert all(step > 0 for step in steps) and row['p95_ms'] >= row['median_ms'] > 0
        is_random = model == 'fast' or backend == 'pytorch-plain'
        assert row['weights'] == ('random' if is_random else ModelSpec.load(trained).sha256)
        has_parts = {name for name in row['parts_ms'] if name.startswith('network.')}
        assert bool(has_parts) == (backend == 'pytorch')
        assert row['tokens'] == ({'total': 48, 'merged': 48} if variant == 'dense'
                                 else {'total': 48, 'merged': 33, 'kept@8': 16})
    spec = ModelSpec.load(trained)
    budget = TokenBudget(keep=(0.5,))
    for backend, form in (('pytorch', spec), ('onnxruntime', spec), ('pytorch-plain', paper_form(spec))):
        variant = Variant.parse('hybrid@8')
        cost = count_flops(form, (96, 128), variant, *expected_tokens(form, (96, 128), variant, budget))
        assert by_key['tiny', backend, 'hybrid@8']['gflops'] == pytest.approx(cost.gflops)
    parts = {name.removeprefix('network.') for name in by_key['tiny', 'pytorch', 'hybrid@8']['parts_ms']}
    assert {'embedding', 'policy', 'blocks', 'auxiliary_heads', 'head'} <= parts
    printed = capsys.readouterr().out
    assert 'Random weights: tiny on pytorch-plain, fast.' in printed and 'median of 2 interleaved rounds' in printed
    text = page.read_text()
    assert '<h2 id="tiny-96x128">' in text and 'hybrid@8, onnxruntime float32' in text and 'http' not in text
    assert cv2.imread(str(picture)) is not None


def test_sizes_memory_and_markdown(trained, tmp_path, capsys):
    """The model's own weights at each size."""
    words = ['--model', trained, '--variants', 'cts', '--rounds', '1', '--markdown', '--no-parts']
    _, content = benchmark(tmp_path, *words, '--sizes', '64x160')
    assert content['rows'][0]['peak_memory_mb'] > 50
    status, content = benchmark(tmp_path, *words, '--sizes', '96x128,64x160', '--no-memory')
    assert status == 0 and [tuple(row['size_hw']) for row in content['rows']] == [(96, 128), (64, 160)]
    for row, patches in zip(content['rows'], (48, 40)):
        assert row['weights'] == ModelSpec.load(trained).sha256
        assert row['tokens']['total'] == patches
        assert row['ratio_to_dense'] is None and row['ratio_to_plain'] is None
        assert set(row['parts_ms']) == {'preprocess', 'network', 'postprocess'}
    assert content['rows'][0]['gflops'] > content['rows'][1]['gflops']
    assert '| tiny | 64x160 | cts | pytorch | float32 |' in capsys.readouterr().out


def test_images_of_a_folder(trained, tmp_path):
    images = tmp_path / 'images'
    images.mkdir()
    for index, height in enumerate((40, 80)):
        cv2.imwrite(str(images / f'{index}.png'), street_scene((height, 70)))
    status, content = benchmark(tmp_path, '--model', trained, '--variants', 'dense', '--rounds', '3', '--no-memory',
                                '--images', str(images), '--settle', '0')  # fmt: skip
    assert status == 0 and content['rows'][0]['weights'] == ModelSpec.load(trained).sha256


@pytest.mark.parametrize('words, complaint', [
    (['--sizes', '96'], "--sizes: expected HEIGHTxWIDTH as in 384x512, got '96'"),
    (['--sizes', '8x64'], 'input_size_hw: expected [height, width], a patch at least, got (8, 64)'),
    (['--sizes', '64x64', '--inference', 'sliding'], 'fast: expected inference whole to run at other sizes'),
    (['--backends', 'onnxruntime-plain', '--inference', 'sliding'], 'expected inference whole, got sliding'),
    (['--backends', 'torch'], "unknown backend 'torch'; legal are pytorch"),
    (['--backends', 'pytorch:int8'], "unknown precision 'int8'; legal for pytorch are float32"),
    (['--backends', 'pytorch:float16'], 'backend pytorch:float16: precision float16 needs a CUDA device'),
    (['--backends', 'pytorch', '--device', 'tpu'], "unknown device 'tpu'; legal are cpu"),
    (['--variants', 'hybrid'], "unknown variant 'hybrid'; legal are dense"),
    (['--variants', 'dense,hybrid@7'], 'no auxiliary head after layer 7'),
    (['--keep', '0'], '--keep: expected a count >= 1 or a fraction in (0, 1], got 0'),
    (['--variants', 'hybrid@6+8', '--keep', '0.5', '0.5', '0.5'], None),
    (['--rounds', '0'], '--rounds: expected at least 1, got 0'),
    (['--rounds', '4', '--check'], '--rounds: expected at least 5, got 4'),
    (['--settle', '-1'], '--settle: expected at least 0, got -1'),
    (['--threads', '0'], '--threads: expected at least 1, got 0'),
])  # fmt: skip
def test_what_is_wrong_is_said_before_anything_is_measured(without_weights, tmp_path, capsys, words, complaint):
    rounds = [] if '--rounds' in words else ['--rounds', '1']
    status, content = benchmark(tmp_path, '--model', without_weights, '--no-memory', '--no-parts', *rounds, *words)
    if complaint is None:
        assert status == 0
        return
    captured = capsys.readouterr()
    assert status == 1 and content is None and complaint in captured.err and not captured.out


def test_a_folder_without_images_and_the_same_model_twice(without_weights, tmp_path, capsys):
    assert main(['benchmark', '--model', without_weights, '--images', str(tmp_path / 'empty')]) == 1
    (tmp_path / 'empty').mkdir()
    assert main(['benchmark', '--model', without_weights, '--images', str(tmp_path / 'empty')]) == 1
    assert main(['benchmark', '--model', without_weights, without_weights]) == 1
    said = capsys.readouterr().err
    assert all(words in said for words in ('no such folder', 'expected image files (.jpg', 'expected each model once'))


@pytest.mark.parametrize('skip', [False, True])
def test_a_library_that_is_missing(without_weights, tmp_path, capsys, caplog, monkeypatch, skip):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)  # as if it were not installed
    monkeypatch.delitem(sys.modules, 'hybrid_seg_ros.inference.backends.onnx_backend', raising=False)
    words = ['--model', without_weights, '--variants', 'dense', '--backends', 'onnxruntime,pytorch', '--rounds', '1',
             '--no-memory', *(['--skip-missing'] if skip else [])]  # fmt: skip
    status, content = benchmark(tmp_path, *words)
    if skip:
        assert status == 0 and [row['backend'] for row in content['rows']] == ['pytorch']
        assert 'skipped backend onnxruntime:float32' in caplog.text and 'onnxruntime' in caplog.text
    else:
        assert status == 1 and content is None
        assert 'backend onnxruntime:float32' in capsys.readouterr().err


def compile_no_model(monkeypatch):
    """Let torch.compile fail on models, but not on the sum that check_compiler tries, which has one input."""
    real = torch.compile

    def backend(graph, inputs):
        if len(inputs) > 1:
            raise RuntimeError('no such kernel')
        return graph

    monkeypatch.setattr(torch, 'compile', lambda call, **options: real(call, backend=backend, **options))


@pytest.mark.parametrize('where, left, complaint', [
    ('here', 'pytorch', 'skipped backend torch-compile:float32: torch.compile needs a C++ compiler'),
    ('here', '', 'no row can run here: backend torch-compile:float32: torch.compile needs'),
    ('for a model', '', 'no row can run here: fast 96x128 dense, torch'),
])  # fmt: skip
def test_what_torch_cannot_compile(without_weights, tmp_path, capsys, caplog, monkeypatch, where, left, complaint):
    """No compiler here, which is found before anything is loaded; or one that fails on the model."""
    if where == 'for a model':
        compile_no_model(monkeypatch)
    torch.compiler.reset()
    backends = ','.join(filter(None, ['torch-compile', left]))
    words = ['--model', without_weights, '--variants', 'cts', '--backends', backends, '--rounds', '1', '--no-memory',
             '--no-parts', '--skip-missing']  # fmt: skip
    with inductor.patch({'cpp.cxx': ('no-such-compiler',)}) if where == 'here' else nullcontext():
        status, content = benchmark(tmp_path, *words)
    if left:
        assert status == 0 and [row['backend'] for row in content['rows']] == ['pytorch'] and complaint in caplog.text
    else:
        assert status == 1 and content is None and complaint in capsys.readouterr().err


def test_a_variant_that_saves_gflops_and_no_time(without_weights, tmp_path, capsys, monkeypatch):
    """The laps are made up, the rest is real: whether this machine would be slower nobody can promise."""
    real = command.run_rounds

    def slow_down_the_cheapest(*args):
        rows = real(*args)
        least = min(row.gflops for row in rows)
        return [dataclasses.replace(row, laps=tuple(
            dataclasses.replace(lap, total_ms=20.0 if row.gflops == least else 10.0) for lap in row.laps))
            for row in rows]  # fmt: skip

    monkeypatch.setattr(command, 'run_rounds', slow_down_the_cheapest)
    for backend, failing in (('pytorch', True), ('pytorch-plain', False)):
        status, content = benchmark(
            tmp_path, '--model', without_weights, '--variants', 'dense,cts', '--backends', backend, '--rounds', '5',
            '--no-memory', '--no-parts', '--check', '--settle', '0',
        )  # fmt: skip
        assert status == int(failing) and len(content['rows']) == 2
        least = min(content['rows'], key=lambda row: row['gflops'])['variant']
        assert f'fewer GFLOPs but slower: fast 96x128 {least}, {backend} float32' in capsys.readouterr().out


def test_specs_of_the_benchmark():
    specs = {path.stem: ModelSpec.load(path) for path in BENCHMARK_SPECS}
    assert set(specs) == {'vit_tiny_512', 'vit_tiny_512_paper', 'vit_base_512', 'vit_base_512_paper'}
    for name, spec in specs.items():
        assert spec.name == name and spec.weights is None and spec.input_size_hw == (512, 512)
        assert spec.classes.names == ADE20K_CLASSES.names and len(spec.legal_variants()) == 6
        assert (paper_form(spec) == spec) == name.endswith('_paper')
        assert expected_tokens(spec, (512, 512), spec.variant, spec.budget) == (715, ((8, 429),))
