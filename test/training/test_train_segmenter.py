"""A short training run on a made-up data set: it learns, from labels and from a teacher; what cannot be is refused."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from camvid_folder import write_camvid_folder
from picture_files import write_pair
from tiny_model import tiny_spec, write_lively_model
from tiny_training import log_rows, tiny_config

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.data.camvid import CAMVID_CLASSES
from hybrid_seg_ros.data.image_files import DatasetError
from hybrid_seg_ros.evaluation.accuracy.evaluate import prediction_pictures
from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.model_spec import Backbone, ModelSpec, Variant
from hybrid_seg_ros.network.checkpoint import load_model, save_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.training import train_segmenter
from hybrid_seg_ros.training.batches import Batch
from hybrid_seg_ros.training.run_loop import open_datasets
from hybrid_seg_ros.training.train_config import TrainConfig, TrainConfigError
from hybrid_seg_ros.visualization import draw_overlay

STEPS = 12


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=3, val=1)


def paper_config(**changes):
    return tiny_config(model={**tiny_config().model, 'policy': 'efficientnet_lite0'}, **changes)


@pytest.fixture(scope='module')
def finished(root, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp('run')
    train_segmenter.train(paper_config(), root, run_dir)
    return run_dir


def test_the_loss_falls(finished):
    losses = [float(row['loss']) for row in log_rows(finished)]
    assert len(losses) == STEPS and np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert {'layer6', 'layer8', 'layer12', 'policy'} <= set(log_rows(finished)[0])


def test_the_finished_model_runs(finished):
    pipeline = load_pipeline(finished / 'model.yaml', 'pytorch', 'cpu', variant='hybrid@6+8')
    result = pipeline(np.zeros((64, 96, 3), np.uint8))
    assert result.labels.shape == (64, 96)
    assert TrainConfig.load(finished / 'config.yaml') == paper_config().resolved(CAMVID_CLASSES)
    assert len((finished / 'evaluations.jsonl').read_text().splitlines()) == 1


@pytest.mark.parametrize('broken', ['loss', 'gradient'])
def test_what_is_not_finite_keeps_the_last_good_state(root, tmp_path, monkeypatch, broken):
    """An infinite gradient of a finite loss is as bad as a loss that is not finite."""
    exact, calls = train_segmenter.segmentation_losses, []

    def losses(output, *rest):
        result = exact(output, *rest)
        calls.append(None)
        if len(calls) == 6:
            weight = torch.zeros(()) if broken == 'gradient' else torch.tensor(float('nan'))
            extra = (output.stages[-1].mask_logits.sum() * weight).abs()
            result['layer12'] = result['layer12'] + (extra.sqrt() if broken == 'gradient' else extra)
        return result

    monkeypatch.setattr(train_segmenter, 'segmentation_losses', losses)
    with pytest.raises(FloatingPointError, match=rf'step 5: .* samples [012], .*after step 5 is kept in {tmp_path}'):
        train_segmenter.train(tiny_config(save_every=1), root, tmp_path)
    state = torch.load(tmp_path / 'state.pt', weights_only=True)
    assert state['step'] == 5
    assert all(value.isfinite().all() for value in state['model'].values() if value.is_floating_point())


def test_masks_are_compared_with_labels_where_they_are(root):
    """Labels one pixel to the left and one to the right of a mask's edge are equally wrong, those between are right."""
    config = tiny_config(loss_stride=4, atm_weight=0.0)
    spec = tiny_spec(input_size_hw=(64, 64), head='light', refinement='image')
    output = HybridSegmenter(spec).eval()(torch.zeros(1, 3, 64, 64), Variant(), spec.budget, supervise=True)
    ramp = (torch.arange(16) + 0.5) * 4 - 32.0  # of the pixel's place, upsampled too, but at the border
    masks = torch.full_like(output.refined_logits, -100.0)
    masks[0, 0], masks[0, 1] = -ramp, ramp
    output = dataclasses.replace(output, refined_logits=masks)

    def loss(edge):
        labels = (torch.arange(64) >= edge).long().expand(1, 64, 64)
        batches = [Batch(number, ('made up',), torch.zeros(1), labels, {}) for number in range(64)]
        return np.mean([train_segmenter.segmentation_losses(output, b, config)['refined'].item() for b in batches])

    assert loss(32) < 0.95 * loss(31)
    assert loss(31) == pytest.approx(loss(33), rel=0.02)


def test_bfloat16_learns_too(root, tmp_path):
    train_segmenter.train(tiny_config(precision='bfloat16'), root, tmp_path)
    losses = [float(row['loss']) for row in log_rows(tmp_path)]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_pictures_show_image_labels_and_prediction(root, finished):
    spec = ModelSpec.load(finished / 'model.yaml')
    val_set = train_segmenter.open_dataset('camvid', root, 'train')
    pictures = prediction_pictures(load_model(spec), spec, val_set, Variant(), 'float32', torch.device('cpu'), count=2)
    assert [name for name, _ in pictures] == [val_set[0].name, val_set[2].name]
    for (_, picture), sample in zip(pictures, (val_set[0], val_set[2])):
        assert picture.shape == (240, 960, 3) and picture.dtype == np.uint8
        image, labels, predicted = np.split(picture, 3, axis=1)
        overlay = draw_overlay(sample.image, sample.labels, spec.classes)
        for panel, expected in ((image, sample.image), (labels, overlay)):
            np.testing.assert_allclose(panel.mean((0, 1)), expected.mean((0, 1)), atol=1)
        assert np.abs(predicted.mean((0, 1)) - image.mean((0, 1))).max() > 5


@pytest.mark.parametrize('options', [{'until': 0}, {'workers': 0}])
def test_counts_below_one_are_refused(root, tmp_path, options):
    with pytest.raises(TrainConfigError, match='expected a number >= 1, got 0'):
        train_segmenter.train(tiny_config(), root, tmp_path, **options)


def test_float16_on_the_cpu_is_refused_before_anything_is_written(root, tmp_path):
    with pytest.raises(ValueError, match='precision float16 needs --device cuda'):
        train_segmenter.train(tiny_config(precision='float16'), root, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_a_folder_with_another_run_is_refused(root, finished):
    with pytest.raises(TrainConfigError, match=r'another configuration \(learning_rate differ\)'):
        train_segmenter.train(paper_config(learning_rate=1e-3), root, finished)


def test_other_classes_are_refused(root, tmp_path):
    model = {**tiny_config().model, 'classes': [{'name': 'thing'}]}
    with pytest.raises(TrainConfigError, match='or those of camvid'):
        train_segmenter.train(tiny_config(model=model), root, tmp_path)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'crop_hw': (64, 72)}, r'crop_hw: expected multiples of patch_size, 16, got \[64, 72\]'),
        ({'loss_stride': 3}, r'crop_hw: expected multiples of loss_stride, 3, got \[64, 64\]'),
        ({'model': {'head': 'linear', 'variant': 'dense'}, 'variants': ('dense',)}, "atm or light, got 'linear'"),
        ({'model': {'backbone': {'embed_dim': 24, 'depth': 12, 'num_heads': 3, 'patch_size': 8}}},
         'expected patch_size 16 or policy none, got patch_size 8'),
        ({'model': {'trunk_convention': 'timm', 'policy': 'half_size'}}, 'trunk_convention: expected tensorflow'),
        ({'best_metric': 'iou'}, "unknown 'iou'; legal are miou, pixel_accuracy, with a minus"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_said_before_the_first_step(root, tmp_path, changes, message):
    changes = {**changes, 'model': {**tiny_config().model, **changes.get('model', {})}}
    with pytest.raises(TrainConfigError, match=message):
        train_segmenter.train(tiny_config(**changes), root, tmp_path)
    assert not (tmp_path / 'log.csv').exists()


@pytest.mark.parametrize(
    ('classes', 'train', 'val', 'complaint'),
    [
        ('[a, target]', [[0, 255]], [[0, 255]], 'train: expected two classes to tell apart, got one; .*target; values'),
        ('[target]', [[0, 255]], [[0, 255]], 'train: expected two classes to tell apart, got one; values of 255'),
        ('[a, b]', [[0, 1]], [[255, 255]], 'val: 1 problem:\n  expected labelled pixels, got none in 1 images'),
        ('[a, b]', [[255, 255]], [[0, 1]], 'train: 1 problem:\n  expected labelled pixels, got none in 1 images'),
    ],
)
def test_a_set_with_nothing_to_learn_or_to_measure_is_refused_before_training(tmp_path, classes, train, val, complaint):
    (tmp_path / 'classes.yaml').write_text(classes)
    for split, values in (('train', train), ('val', val)):
        write_pair(tmp_path / split / 'images/a.png', tmp_path / split / 'labels/a.png', np.array(values, np.uint8))
    with pytest.raises(DatasetError, match=complaint):
        open_datasets(tiny_config(dataset='folder'), tmp_path, check=True)


REFINED = {'head': 'light', 'auxiliary_head': 'light', 'refinement': 'image'}
WIDER = {**REFINED, 'backbone': Backbone(48, 12, 6, class_token=True, final_norm=True)}


@pytest.mark.parametrize(('teacher', 'student'), [({'window_sizes': (2, 4)}, REFINED), (WIDER, {})])
def test_a_teacher_is_named_in_the_configuration(root, tmp_path, teacher, student):
    path = write_lively_model(tmp_path, **teacher)
    before = path.with_suffix('.safetensors').read_bytes()
    model = {**tiny_config().model, **student}
    config = tiny_config(model=model, steps=2, teacher=str(path), distillation_weight=0.5)
    train_segmenter.train(config, root, tmp_path / 'run')
    rows = log_rows(tmp_path / 'run')
    assert all(0 < float(row['teacher']) < float(row['loss']) for row in rows) and len(rows) == 2
    assert path.with_suffix('.safetensors').read_bytes() == before


@pytest.mark.parametrize(('teacher', 'student'), [({}, REFINED), (REFINED, {}), (REFINED, REFINED)])
def test_a_teacher_teaches_its_dense_masks(teacher, student):
    """To the whole student, whose tokens merge and leave early; and nobody teaches the teacher."""
    torch.manual_seed(0)
    without_policy = {'policy': 'none', 'variant': Variant.parse('dtop@6+8')}
    teacher = HybridSegmenter(tiny_spec(**without_policy, **teacher)).eval()
    model = HybridSegmenter(tiny_spec(**without_policy, **student))
    config = tiny_config(variants=('dtop@6+8',), distillation_weight=2.0)
    batch = Batch(0, ('a', 'b'), torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8),
                  torch.randint(0, 11, (2, 64, 96)), {})  # fmt: skip
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    loss = train_segmenter.train_losses(model, batch, 0, config, teacher=teacher)['teacher']
    loss.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters()) and not teacher.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    learning = {name.split('.')[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {'encoder', 'head'} | {'refinement' for _ in student} <= learning

    with torch.no_grad():
        torch.manual_seed(0)
        taught, learned = (m(m.normalize(batch.images), Variant.parse(name), m.spec.budget, supervise).scores
                           for m, name, supervise in ((teacher, 'dense', False), (model, 'dtop@6+8', True)))
        taught = F.interpolate(taught.log(), size=learned.shape[2:], mode='bilinear', align_corners=False).exp()
        taught, learned = (scores / scores.sum(1, keepdim=True) for scores in (taught, learned))
    assert loss.item() == pytest.approx(-2 * (taught * learned.log()).sum(1).mean().item(), rel=1e-3)


@pytest.mark.parametrize(('teacher', 'message'), [
    ({'classes': LabelSpace.from_entries([{'name': 'thing'}])}, "teacher: expected the classes of camvid, .*'thing'"),
    ({'head': 'linear', 'variant': Variant()}, "teacher: expected head atm or light, got 'linear'"),
])  # fmt: skip
def test_a_teacher_that_cannot_teach(root, tmp_path, teacher, message):
    path = tmp_path / 'teacher.yaml'
    save_model(HybridSegmenter(tiny_spec(**teacher)), path)
    with pytest.raises(TrainConfigError, match=message):
        train_segmenter.train(tiny_config(teacher=str(path), distillation_weight=1.0), root, tmp_path / 'run')
