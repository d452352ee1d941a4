"""config/train_folder.yaml on a team's own images: one command, whose result runs dense, merged and pruned."""

import json
import logging

import cv2
import numpy as np
import pytest
from foreign_checkpoints import seeded_encoder
from tiny_training import ROOT, log_rows, run_arguments

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.cli import main
from hybrid_seg_ros.data.registry import open_dataset
from hybrid_seg_ros.model_spec import Backbone, ModelSpec, Variant
from hybrid_seg_ros.network.encoder_weights import save_encoder

CLASSES = """
- {name: floor, color: [128, 64, 0]}
- {name: wall, color: [200, 200, 200]}
- {name: pallet, color: [255, 0, 0]}
"""
COLORS = np.array([[128, 64, 0], [200, 200, 200], [255, 0, 0]], np.uint8)
TINY = ('model.backbone={embed_dim: 24, depth: 12, num_heads: 3, class_token: true, final_norm: true}',
        'model.input_size_hw=[128, 160]', 'crop_hw=[128, 160]', 'steps=6', 'warmup_steps=2', 'batch_size=2',
        'learning_rate=1e-3', 'precision=float32')  # fmt: skip


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Sixty JPEGs in two sizes, 48 to train on, with coloured labels under the names that labelling tools write."""
    root = tmp_path_factory.mktemp('warehouse')
    rng = np.random.default_rng(0)
    for kind in ('images', 'labels'):
        (root / kind).mkdir()
    names = []
    for index in range(60):
        height, width = (120, 160) if index % 3 else (150, 130)
        labels = np.zeros((height, width), np.uint8)
        labels[: int(rng.integers(30, 70))] = 1
        top, left = int(rng.integers(40, height - 40)), int(rng.integers(0, width - 50))
        labels[top : top + 40, left : left + 50] = 2
        image = np.array([[60, 60, 70], [220, 215, 200], [170, 110, 40]])[labels]
        image += rng.integers(-20, 20, image.shape)
        names.append(f'dock {index:02d}')
        cv2.imwrite(str(root / 'images' / f'{names[-1]}.jpg'), image.astype(np.uint8)[..., ::-1])
        cv2.imwrite(str(root / 'labels' / f'{names[-1]}_labels.png'), COLORS[labels][..., ::-1])
    (root / 'classes.yaml').write_text(CLASSES, encoding='utf-8')
    for split, chosen in (('train', names[:48]), ('val', names[48:])):
        (root / f'{split}.txt').write_text('\n'.join(chosen), encoding='utf-8')
    return root


def test_one_command_gives_a_model_that_runs_every_way_and_a_second_a_narrower_one(root, tmp_path, caplog):
    encoder = seeded_encoder(Backbone(24, 12, 3, class_token=True, register_tokens=4, final_norm=True), (16, 16))
    save_encoder(encoder, tmp_path / 'encoder.safetensors')
    command = ['train', *run_arguments(ROOT / 'config' / 'train_folder.yaml', root, tmp_path / 'run')]
    for change in (*TINY, f'initial_encoder={tmp_path / "encoder.safetensors"}'):
        command += ['--set', change]
    assert main(command) == 0

    rows = log_rows(tmp_path / 'run')
    expected = {'layer6', 'layer8', 'layer12', 'refined', 'lovasz', 'policy'}
    assert len(rows) == 6 and all(float(row[name]) >= 0 for row in rows for name in expected)
    evaluations = [json.loads(line) for line in (tmp_path / 'run' / 'evaluations.jsonl').read_text().splitlines()]
    assert [line['step'] for line in evaluations] == [6] and 0 <= evaluations[-1]['miou'] <= 100

    model = tmp_path / 'run' / 'best.yaml'
    spec = ModelSpec.load(model)
    assert spec.classes.names == ('floor', 'wall', 'pallet') and spec.variant == Variant.parse('hybrid@6+8')
    sample, entered, kept = open_dataset('folder', root, 'val')[0], [], []
    for variant in ('dense', 'cts', 'hybrid@6+8'):
        result = load_pipeline(model, 'pytorch', 'cpu', variant=variant)(sample.image)
        assert result.labels.shape == sample.labels.shape and result.labels.max() < 3
        entered.append(result.tokens.entering)
        kept.append(result.tokens.kept)
    assert entered == [80, 56, 56] and kept == [(), (), ((6, 34), (8, 20))]
    assert main(['evaluate', '--model', str(model), '--dataset', 'folder', '--root', str(root)]) == 0

    narrow = ['train', *run_arguments(ROOT / 'config' / 'train_folder.yaml', root, tmp_path / 'narrow')]
    for change in (*TINY, 'initial_encoder=null', f'narrowed_from={model}', 'steps=2',
                   'model.backbone={embed_dim: 16, depth: 12, num_heads: 2, class_token: true, final_norm: true}'):
        narrow += ['--set', change]
    caplog.set_level(logging.INFO)
    assert main([*narrow, '--until', '1']) == 0 and 'layer 12 of 12 fitted' in caplog.text
    caplog.clear()
    assert main(narrow) == 0 and 'fitted' not in caplog.text
    assert ModelSpec.load(tmp_path / 'narrow' / 'best.yaml').backbone.embed_dim == 16
