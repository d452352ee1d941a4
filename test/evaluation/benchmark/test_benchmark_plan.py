"""Which rows there are, in what order, and what is refused before anything is loaded."""

import dataclasses

import pytest
from tiny_model import tiny_spec

from hybrid_seg_ros.evaluation.benchmark.plan import (
    MEASURED,
    RowKey,
    SizedModel,
    format_size,
    parse_size,
    plain_model,
    plan_rows,
)
from hybrid_seg_ros.evaluation.flops.paper import paper_form
from hybrid_seg_ros.inference.backends import BackendChoice
from hybrid_seg_ros.inference.pipeline_options import split_list
from hybrid_seg_ros.model_spec import Backbone, ModelSpec, Variant

FAST = tiny_spec(name='fast', policy='patch_mlp', auxiliary_head='light', sha256='1', weights='f')
PAPER = tiny_spec(name='paper', weights='w.safetensors', sha256='2')
WIDE = tiny_spec(name='wide', backbone=Backbone(48, 12, 3))


def test_paper_form_keeps_weights_only_where_they_fit():
    assert paper_form(PAPER) == PAPER
    form = paper_form(FAST)
    assert (form.policy, form.auxiliary_head, form.weights, form.sha256) == ('efficientnet_lite0', 'atm', None, None)
    assert form == dataclasses.replace(PAPER, name='fast', weights=None, sha256=None)


@pytest.mark.parametrize('text, expected', [
    ('pytorch', ('pytorch', 'float32')), ('openvino:bfloat16', ('openvino', 'bfloat16')),
    ('pytorch-plain:bfloat16', ('pytorch-plain', 'bfloat16')), ('tensorrt:float16', ('tensorrt', 'float16')),
    ('torch-compile:bfloat16', ('torch-compile', 'bfloat16')),
])  # fmt: skip
def test_a_backend_and_its_dtype(text, expected):
    choice = BackendChoice.parse(text, MEASURED)
    assert (choice.name, choice.dtype) == expected
    assert str(choice) == ':'.join(expected)


@pytest.mark.parametrize('text, complaint', [
    ('torch', 'unknown backend .torch.; legal are pytorch, onnxruntime, openvino, tensorrt, '
     'pytorch-plain, torch-compile, onnxruntime-plain'),
    ('onnxruntime:bfloat16', 'unknown precision .bfloat16.; legal for onnxruntime are float32, float16'),
    ('onnxruntime-plain:bfloat16', 'legal for onnxruntime-plain are float32, float16'),
    ('pytorch:int8', 'legal for pytorch are float32, bfloat16, float16'),
])  # fmt: skip
def test_an_unknown_backend_or_dtype(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        BackendChoice.parse(text, MEASURED)


def test_a_baseline_is_no_backend_of_this_package():
    assert BackendChoice.parse('openvino:bfloat16') == BackendChoice('openvino', 'bfloat16')
    with pytest.raises(ValueError, match='unknown backend .pytorch-plain.; legal are .*, tensorrt$'):
        BackendChoice.parse('pytorch-plain')


def test_lists():
    assert split_list(['a,b', 'c', 'b,']) == ['a', 'b', 'c']


def rows_of(specs: list[ModelSpec], variants: str, backends: str) -> list[RowKey]:
    choices = [BackendChoice.parse(text, MEASURED) for text in split_list([backends])]
    return plan_rows(by_subject(specs), [Variant.parse(v) for v in split_list([variants])], choices)


def by_subject(specs: list[ModelSpec]) -> dict[SizedModel, ModelSpec]:
    return {SizedModel(spec.name, spec.input_size_hw): spec for spec in specs}


def test_rows_are_models_by_backends_by_variants():
    assert rows_of([FAST, WIDE], 'dense,hybrid@8', 'pytorch,onnxruntime:float16') == [
        RowKey(model, (96, 128), variant, backend, dtype) for model in ('fast', 'wide')
        for backend, dtype in (('pytorch', 'float32'), ('onnxruntime', 'float16')) for variant in ('dense', 'hybrid@8')
    ]  # fmt: skip


@pytest.mark.parametrize('specs, plain', [
    ([FAST], {'fast': 'fast'}),
    ([FAST, PAPER, WIDE], {'fast': 'paper', 'paper': 'paper', 'wide': 'wide'}),
    ([PAPER, FAST], {'fast': 'paper', 'paper': 'paper'}),
    ([FAST, dataclasses.replace(FAST, name='other', policy='half_size')], {'fast': 'fast', 'other': 'fast'}),
    ([FAST, dataclasses.replace(PAPER, input_size_hw=(64, 64))], {'fast': 'fast', 'paper': 'paper'}),
], ids=['alone', 'the paper is there', 'the paper first', 'two fast ones', 'another size'])  # fmt: skip
def test_models_of_one_form_share_their_plain_rows(specs, plain):
    named = by_subject(specs)
    assert {subject.model: plain_model(named, subject).model for subject in named} == plain
    rows = rows_of(specs, 'dense,cts', 'pytorch-plain')
    assert [row.model for row in rows if row.variant == 'cts'] == list(dict.fromkeys(
        subject.model for subject in named if subject.model in plain.values()))


def test_plain_rows_of_each_size():
    small = dataclasses.replace(FAST, input_size_hw=(64, 64))
    rows = rows_of([FAST, small], 'dense', 'pytorch-plain')
    assert [row.sized_model for row in rows] == [('fast', (96, 128)), ('fast', (64, 64))]
    assert [str(row) for row in rows][1] == 'fast 64x64 dense, pytorch-plain float32'


@pytest.mark.parametrize('variants, backend', [('dense,cts', 'torch-compile'), ('hybrid@8', 'onnxruntime-plain')])
def test_an_alternative_is_dense_whatever_the_variants(variants, backend):
    rows = rows_of([FAST, PAPER], variants, backend)
    assert [(row.model, row.variant) for row in rows] == [('fast', 'dense'), ('paper', 'dense')]


@pytest.mark.parametrize('backend', ['pytorch-plain', 'torch-compile', 'onnxruntime-plain'])
def test_baselines_are_for_whole_frames(backend):
    with pytest.raises(ValueError, match=f'{backend}: expected inference whole, got sliding'):
        rows_of([dataclasses.replace(FAST, inference='sliding')], 'dense', backend)


def test_sizes():
    assert parse_size('384x512') == (384, 512) and format_size((384, 512)) == '384x512'
    for text in ('384', '384x', '384X512', '384x512x3', '-384x512', 'x'):
        with pytest.raises(ValueError, match='expected HEIGHTxWIDTH as in 384x512, got'):
            parse_size(text)


@pytest.mark.parametrize('specs, variants, backends, complaint', [
    ([FAST, dataclasses.replace(WIDE, auxiliary_layers=(8,), variant=Variant())], 'hybrid@6+8', 'pytorch',
     'no auxiliary head after layer 6.*legal for wide are'),
    ([dataclasses.replace(FAST, policy='none', variant=Variant())], 'cts', 'pytorch', 'no policy network'),
    ([], 'dense', 'pytorch', 'at least one model'), ([FAST], '', 'pytorch', 'at least one variant'),
    ([FAST], 'dense', '', 'at least one backend'),
], ids=['layer', 'policy', 'models', 'variants', 'backends'])  # fmt: skip
def test_what_cannot_be_measured(specs, variants, backends, complaint):
    with pytest.raises(ValueError, match=complaint):
        rows_of(specs, variants, backends)


def test_the_plain_way_has_a_policy_network_also_for_a_model_without():
    spec = dataclasses.replace(FAST, policy='none', variant=Variant())
    assert len(rows_of([spec], 'dense,cts', 'pytorch-plain')) == 2
