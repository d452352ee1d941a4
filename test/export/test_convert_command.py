"""`hybrid_seg convert` as a user runs it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from dinov2_network import HuggingFaceDinov2, official_names
from foreign_checkpoints import (
    augreg_arrays,
    converted,
    mmseg_atm,
    mmseg_vit,
    prefixed,
    save_mmseg,
    seeded_encoder,
    write_spec,
)
from safetensors.torch import load_file, save_file
from tiny_model import tiny_spec

from hybrid_seg_ros import cli, load_pipeline
from hybrid_seg_ros.export.convert_command import read_classes, read_spec
from hybrid_seg_ros.export.convert_model import MODEL_SOURCES
from hybrid_seg_ros.model_spec import Backbone, ModelSpec, ModelSpecError, Variant
from hybrid_seg_ros.network.attention_to_mask import SegVitHead
from hybrid_seg_ros.network.checkpoint import CheckpointError, load_model
from hybrid_seg_ros.network.encoder_weights import load_encoder
from hybrid_seg_ros.network.segmenter import HybridSegmenter

BACKBONE = {'embed_dim': 24, 'depth': 3, 'num_heads': 3}
NAMES = ('road', 'tree', 'sky')


@pytest.fixture
def segvit(tmp_path: Path) -> list[str]:
    """Write a SegViT checkpoint, its spec and its classes; return the arguments that convert it."""
    torch.manual_seed(0)
    encoder, head = seeded_encoder(Backbone(**BACKBONE), (4, 4)), SegVitHead(24, 3, 12, 1, 2, 2)
    state = {**prefixed('backbone.', mmseg_vit(encoder.state_dict())),
             **prefixed('decode_head.', mmseg_atm(head.state_dict()))}
    save_mmseg(tmp_path / 'iter_1.pth', state)
    write_spec(tmp_path / 'spec.yaml', 3, 64, backbone=BACKBONE, decoder={'layers': 1})
    (tmp_path / 'names.txt').write_text('\n'.join(NAMES) + '\n')
    words = ['segvit', tmp_path / 'iter_1.pth', '--spec', tmp_path / 'spec.yaml', '--classes', tmp_path / 'names.txt',
             '--auxiliary-layers', 2, '--decoder-heads', 2, '--normalization', 'imagenet', '--name', 'mine',
             '--input-size', 64, 96, '--output', tmp_path / 'out' / 'm.yaml']
    return ['convert', *map(str, words)]


def test_a_checkpoint_becomes_a_model(segvit: list[str], tmp_path: Path, capsys, caplog) -> None:
    with caplog.at_level(logging.INFO):
        assert cli.main(segvit) == 0
    spec, said = ModelSpec.load(tmp_path / 'out' / 'm.yaml'), capsys.readouterr().out
    assert spec.sha256 in said and str(spec.weights_path) in said
    assert '16 entries taken for a square grid, 4x4' in caplog.text and 'resized from 4x4 to 4x6' in caplog.text
    assert (spec.name, spec.classes.names, spec.input_size_hw) == ('mine', NAMES, (64, 96))
    assert spec.mean == (123.675, 116.28, 103.53)
    assert {value.dtype for value in load_file(spec.weights_path).values()} == {torch.float32}
    result = load_pipeline(tmp_path / 'out' / 'm.yaml', 'pytorch', 'cpu')(np.zeros((64, 96, 3), np.uint8))
    assert result.labels.shape == (64, 96) and result.labels.max() < 3


def test_existing_files_stay_without_force(segvit: list[str], tmp_path: Path, capsys) -> None:
    assert cli.main(segvit) == 0
    weights = tmp_path / 'out' / 'm.safetensors'
    before = weights.read_bytes()
    assert cli.main(segvit) == cli.EXIT_ERROR
    assert '--force overwrites' in capsys.readouterr().err and weights.read_bytes() == before
    (tmp_path / 'out' / 'm.yaml').unlink()
    assert cli.main(segvit) == cli.EXIT_ERROR
    assert cli.main([*segvit, '--force', '--precision', 'float16']) == 0
    assert {value.dtype for value in load_file(weights).values()} == {torch.float16}
    load_model(ModelSpec.load(tmp_path / 'out' / 'm.yaml'))


@pytest.mark.parametrize(
    'options, complaint',
    [
        (['--decoder-layers', '2'], 'missing head.decoders.0.layers.1'),
        (['--auxiliary-layers', '1', '2'], 'missing head.decoders.2'),
        (['--source-size', '32', '64'], 'expected 2x4 entries'),
        (['--output', 'm.safetensors'], 'expected a file that ends with .yaml'),
        (['--policy', 'none.pth'], 'none.pth: no such file'),
        (['--entry', 'ema'], "no entry 'ema'"),
        (['--key-prefix', 'module.'], "start with 'module.'"),
        (['--patch-size', '16', '--prefix-tokens', 'drop'], 'expected no --patch-size, --prefix-tokens'),
    ],
)
def test_errors_leave_nothing_behind(segvit: list[str], tmp_path: Path, capsys, options, complaint) -> None:
    assert cli.main([*segvit, *options]) == cli.EXIT_ERROR
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('value, precision', [(float('nan'), 'float32'), (1e5, 'float16')])
def test_weights_that_are_not_finite_are_refused(segvit, tmp_path, capsys, value, precision) -> None:
    content = torch.load(tmp_path / 'iter_1.pth', weights_only=True)
    content['state_dict']['decode_head.q.weight'][0, 0] = value
    torch.save(content, tmp_path / 'iter_1.pth')
    assert cli.main([*segvit, '--precision', precision]) == cli.EXIT_ERROR
    assert f'not finite as {precision}: head.query.weight' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['deit.pth', 'timm.safetensors', 'augreg.npz'])
def test_classifier_to_start_training_from(tmp_path: Path, name: str, capsys) -> None:
    backbone = Backbone(24, 12, 3, class_token=True, final_norm=True)
    state = seeded_encoder(backbone, (4, 7)).state_dict()
    classifier = {**state, 'head.weight': torch.zeros(5, 24), 'head.bias': torch.zeros(5)}
    if name == 'augreg.npz':
        np.savez(tmp_path / name, **{key: value.numpy() for key, value in augreg_arrays(state, 3).items()})
    elif name == 'deit.pth':
        torch.save({'model': classifier}, tmp_path / name)
    else:
        save_file(classifier, tmp_path / name)
    (tmp_path / 'spec.yaml').write_text('backbone: {embed_dim: 24, depth: 12, num_heads: 3}')
    output = tmp_path / 'encoder.safetensors'
    argv = ['convert', 'augreg' if name == 'augreg.npz' else 'timm', tmp_path / name, '--spec', tmp_path / 'spec.yaml',
            '--output', output]  # fmt: skip
    argv = [str(word) for word in argv]
    assert cli.main(argv) == cli.EXIT_ERROR
    assert '--source-size HEIGHT WIDTH' in capsys.readouterr().err and not output.exists()
    argv += ['--source-size', '64', '112']
    assert cli.main(argv) == 0
    assert f'initial_encoder: {output}' in capsys.readouterr().out
    model = HybridSegmenter(tiny_spec(policy='none', variant=Variant(), input_size_hw=(64, 112)))
    load_encoder(model, output)
    assert torch.equal(model.encoder.pos_embed, state['pos_embed'][:, 1:])
    assert torch.equal(model.encoder.blocks[11].attn.qkv.weight, state['blocks.11.attn.qkv.weight'])
    assert cli.main(argv) == cli.EXIT_ERROR
    assert '--force' in capsys.readouterr().err
    assert cli.main([*argv, '--force', '--head', 'linear', '--without-policy']) == cli.EXIT_ERROR
    assert 'expected no --head, --without-policy' in capsys.readouterr().err


def test_a_wrapper_around_the_whole_model_is_taken_off(segvit: list[str], tmp_path: Path, capsys) -> None:
    content = torch.load(tmp_path / 'iter_1.pth', weights_only=True)
    state = content['state_dict']
    torch.save({**prefixed('module.model.', state), 'criterion.weight': torch.ones(3)}, tmp_path / 'iter_1.pth')
    assert cli.main(segvit) == 0
    torch.save({**prefixed('student.', state), **prefixed('teacher.', state)}, tmp_path / 'iter_1.pth')
    assert cli.main([*segvit, '--force']) == cli.EXIT_ERROR
    assert 'several models, behind student., teacher.: name one with --key-prefix' in capsys.readouterr().err
    assert cli.main([*segvit, '--force', '--key-prefix', 'teacher.']) == 0
    torch.save({'backbone.stages.0.blocks.0.attn.w_msa.qkv.bias': torch.ones(1)}, tmp_path / 'iter_1.pth')
    assert cli.main([*segvit, '--force']) == cli.EXIT_ERROR
    assert 'iter_1.pth: expected a plain ViT, got a Swin Transformer: backbone.stages.0' in capsys.readouterr().err
    torch.save(prefixed('backbone.encoder.', {'a': torch.ones(1)}), tmp_path / 'iter_1.pth')
    assert cli.main([*segvit, '--force']) == cli.EXIT_ERROR
    assert 'iter_1.pth: does not fit the model' in capsys.readouterr().err
    torch.save(plain_vit(), tmp_path / 'iter_1.pth')
    assert cli.main([*segvit, '--force']) == cli.EXIT_ERROR
    complaint = capsys.readouterr().err
    assert 'iter_1.pth: segvit: expected keys that start with backbone., decode_head.; none of 30 does' in complaint
    assert 'convert timm|augreg|dinov2' in complaint


@pytest.mark.parametrize(
    'source, kernel, layer', [('segvit', 'backbone.patch_embed.projection.weight', 'backbone.layers.11.ln1.weight'),
                              ('cts', 'module.encoder.patch_embed.proj.weight', 'module.encoder.blocks.11.norm1.bias'),
                              ('dinov2', 'patch_embed.proj.weight', 'blocks.0.11.norm1.weight'),
                              ('augreg', 'embedding/kernel', 'Transformer/encoderblock_11/LayerNorm_0/bias')]
)  # fmt: skip
def test_without_a_backbone_the_preset_that_fits_is_named(tmp_path: Path, capsys, source, kernel, layer) -> None:
    shape = (16, 16, 3, 192) if source == 'augreg' else (192, 3, 16, 16)
    torch.save({kernel: torch.zeros(shape), layer: torch.zeros(192)}, tmp_path / 'w.pth')
    output = tmp_path / ('m.yaml' if source in MODEL_SOURCES else 'm.safetensors')
    assert cli.main(['convert', source, str(tmp_path / 'w.pth'), '--output', str(output)]) == cli.EXIT_ERROR
    assert 'the file has 12 layers of 192 channels: --backbone vit_tiny' in capsys.readouterr().err


def test_a_distilled_encoder_of_a_segmenter_is_named_before_its_positions(tmp_path: Path, capsys) -> None:
    state = plain_vit()
    state.update(dist_token=torch.zeros(1, 1, 24), pos_embed=torch.zeros(1, 2 + 9, 24))
    torch.save({**prefixed('encoder.', state), 'decoder.head.weight': torch.zeros(3, 24),
                'decoder.head.bias': torch.zeros(3)}, tmp_path / 'cts.pth')
    spec = write_spec(tmp_path / 'spec.yaml', 3, 64, backbone={**BACKBONE, 'depth': 2}, head='linear')
    argv = ['convert', 'cts', tmp_path / 'cts.pth', '--spec', spec, '--without-policy', '--output', tmp_path / 'm.yaml']
    assert cli.main([str(word) for word in argv]) == cli.EXIT_ERROR
    assert 'unexpected encoder.dist_token (unknown to cts) (1, 1, 24)' in capsys.readouterr().err


def plain_vit() -> dict[str, torch.Tensor]:
    return seeded_encoder(Backbone(24, 2, 3, class_token=True, final_norm=True), (3, 3)).state_dict()


@pytest.mark.parametrize('options', [[], ['--prefix-tokens', 'drop']])
def test_dinov2_to_start_training_from(tmp_path: Path, options: list[str], capsys) -> None:
    file, output = tmp_path / 'teacher_checkpoint.pth', tmp_path / 'e.safetensors'
    state = official_names(HuggingFaceDinov2(12, registers=4).state_dict())
    torch.save({'teacher': {**prefixed('backbone.', state), 'dino_head.mlp.0.weight': torch.zeros(9, 24)}}, file)
    spec = write_spec(tmp_path / 's.yaml', 1, 64, backbone={'embed_dim': 24, 'depth': 12, 'num_heads': 3})
    argv = [str(word) for word in ('convert', 'dinov2', file, '--spec', spec, '--output', output, *options)]
    backbone = Backbone(24, 12, 3, class_token=True, register_tokens=4, final_norm=True)
    fields = {'policy': 'none', 'variant': Variant(), 'input_size_hw': (64, 96)}
    model = HybridSegmenter(tiny_spec(backbone=backbone, **fields))
    assert cli.main(argv) == 0
    with pytest.raises(CheckpointError, match='expected patches of 16 pixels, got 14: convert with --patch-size 16'):
        load_encoder(model, output)
    assert cli.main([*argv, '--force', '--patch-size', '16']) == 0
    if options:
        with pytest.raises(CheckpointError, match='missing register_tokens'):
            load_encoder(model, output)
    else:
        load_encoder(model, output)
        assert torch.equal(model.encoder.register_tokens, state['register_tokens'])
    model = HybridSegmenter(tiny_spec(**fields))
    load_encoder(model, output)
    assert model.encoder.pos_embed.shape == (1, 4 * 6, 24)
    capsys.readouterr()
    weights = torch.load(file, weights_only=True)['teacher']
    torch.save({**weights, 'backbone.blocks.0.mlp.w12.weight': torch.zeros(9, 24)}, file)
    assert cli.main([*argv, '--force']) == cli.EXIT_ERROR
    assert f'{file}: expected a plain ViT, got a ViT with SwiGLU, as ViT-g of DINOv2' in capsys.readouterr().err


def test_cts_without_its_policy_network(tmp_path: Path) -> None:
    backbone = Backbone(24, 3, 3, class_token=True, final_norm=True)
    state = {**prefixed('encoder.', seeded_encoder(backbone, (4, 4)).state_dict()),
             'decoder.head.weight': torch.zeros(3, 24), 'decoder.head.bias': torch.zeros(3),
             'policy_net.head.bias': torch.zeros(2)}
    torch.save({'model': state}, tmp_path / 'checkpoint.pth')
    spec = write_spec(tmp_path / 'spec.yaml', 3, 64, backbone=BACKBONE, head='linear')
    model = converted('cts', tmp_path / 'checkpoint.pth', spec, '--without-policy')
    assert model.policy is None and model.spec.legal_variants() == ('dense',)


@pytest.mark.parametrize(
    'name, text, expected',
    [
        ('c.txt', 'wall\nfloor, flooring\n', [{'name': 'wall'}, {'name': 'floor, flooring'}]),
        ('c.txt', 'wall\r\nfloor\r\n\n\n', [{'name': 'wall'}, {'name': 'floor'}]),
        ('c.yaml', '- wall\n- floor\n', [{'name': 'wall'}, {'name': 'floor'}]),
        ('c.yaml', 'name: m\nclasses: [{name: wall, color: [1, 2, 3]}]', [{'name': 'wall', 'color': [1, 2, 3]}]),
        ('c.txt', 'wall\n\nfloor\n', 'line 2 is empty'),
        ('c.txt', '', 'line 1|expected a list'),
        ('c.yaml', 'name: m', 'expected a list of classes'),
        ('c.yaml', '[', 'c.yaml'),
    ],
)
def test_classes(tmp_path: Path, name, text, expected) -> None:
    (tmp_path / name).write_text(text, encoding='utf-8')
    if isinstance(expected, list):
        assert read_classes(tmp_path / name) == expected
        return
    with pytest.raises(ModelSpecError, match=expected):
        read_classes(tmp_path / name)


@pytest.mark.parametrize(
    'text, complaint', [('- 1', 'expected a mapping'), ('decoder: 3', 'decoder: expected a mapping')]
)
def test_spec_file(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / 's.yaml').write_text(text)
    with pytest.raises(ModelSpecError, match=complaint):
        read_spec(tmp_path / 's.yaml')
    for read in (read_spec, read_classes):
        with pytest.raises(FileNotFoundError, match='no such file'):
            read(tmp_path / 'none.yaml')
