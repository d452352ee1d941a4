"""A sweep's numbers are those of `evaluate`; it goes on where it stopped; it does not mix what cannot be compared."""

import csv
import json

import cv2
import pytest
from tiny_model import tiny_spec, write_tiny_model

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.data.registry import open_dataset
from hybrid_seg_ros.evaluation.accuracy.evaluate import evaluate
from hybrid_seg_ros.evaluation.accuracy.sweep import describe_subject, plan_points, run_sweep
from hybrid_seg_ros.evaluation.accuracy.sweep_results import Sweep, SweepPoint
from hybrid_seg_ros.evaluation.flops.count import count_variants
from hybrid_seg_ros.evaluation.pages.figures import SIZE_PX
from hybrid_seg_ros.inference.pipeline import load_pipeline
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant

pytest.importorskip('matplotlib', reason='comes with requirements/ros.txt, or from the system')

OWN = 103 / 256
"""Share of windows that the tiny model merges."""

KEEP_POINT = SweepPoint('hybrid@8', 'keep', 0.5, OWN)


@pytest.fixture
def command(camvid_root, tiny_model, tmp_path):
    return ['sweep', '--model', str(tiny_model), '--root', str(camvid_root), '--output', str(tmp_path / 'out'),
            '--limit', '1']  # fmt: skip


@pytest.mark.parametrize(
    'variants, keeps, thresholds, merged, expected',
    [
        (['dense', 'cts'], [0.5], [0.9], [], ['dense', f'cts merged {OWN}']),
        (['dense', 'cts'], [0.5], [0.9], [12, 0.5], ['dense', 'cts merged 12', 'cts merged 0.5']),
        (['dtop@8'], [0.5, 30], [], [0.5], ['dtop@8 keep 0.5', 'dtop@8 keep 30']),
        (['dtop@8', 'dtop@8'], [0.5], [0.9, 1], [],
         ['dtop@8 keep 0.5', 'dtop@8 threshold 0.9', 'dtop@8 threshold 1.0']),
        (['dtop@8'], [1, 1.0], [], [], ['dtop@8 keep 1', 'dtop@8 keep 1.0']),
        (['dtop@8', 'dtop@6+8'], [(0.5, 3), (1, 1.0)], [], [],
         ['dtop@8 keep 0.5', 'dtop@8 keep 1', 'dtop@6+8 keep 0.5+3', 'dtop@6+8 keep 1+1.0']),
        (['hybrid@8'], [0.5, 30], [], [0.5, 0.0],
         [f'hybrid@8 keep {keep} merged {merged}' for merged in (0.5, 0.0) for keep in (0.5, 30)]),
        (['hybrid@6+8'], [], [0.9], [], [f'hybrid@6+8 threshold {each} merged {OWN}' for each in (0.9, 0.3)]),
        (['hybrid@6+8'], [], [0.3], [], [f'hybrid@6+8 threshold 0.3 merged {OWN}']),
        (['hybrid@6+8'], [], [0.3], [0.5], [f'hybrid@6+8 threshold 0.3 merged {each}' for each in (0.5, OWN)]),
    ],
)  # fmt: skip
def test_points(variants, keeps, thresholds, merged, expected):
    """The tiny model's own point, hybrid@6+8 by threshold 0.3, joins where its variant is asked for."""
    assert [str(point) for point in plan_points(tiny_spec(), variants, keeps, thresholds, merged)] == expected


@pytest.mark.parametrize(
    'budget, variant, expected',
    [
        (TokenBudget(threshold=0.8, merged_windows=0.5), 'hybrid@8', 'hybrid@8 threshold 0.8 merged 0.5'),
        (TokenBudget(keep=0.6, merged_windows=9), 'hybrid@8', 'hybrid@8 keep 0.6 merged 9'),
        (TokenBudget(keep=(0.6, 0.6)), 'dtop@6+8', 'dtop@6+8 keep 0.6'),
        (TokenBudget(0.5, keep=(0.8, 0.6)), 'hybrid@6+8', 'hybrid@6+8 keep 0.8+0.6 merged 0.5'),
        (TokenBudget(0.5, keep=(0.8, 0.6)), 'hybrid@8', 'hybrid@8 keep 0.8 merged 0.5'),
        (TokenBudget(merged_windows=0.5), 'cts', 'cts merged 0.5'),
        (TokenBudget(merged_windows=0.5), 'dense', 'dense'),
    ],
)
def test_default_point(budget, variant, expected):
    assert str(SweepPoint.default(tiny_spec(budget=budget, variant=Variant.parse(variant)))) == expected


def test_budget_of_a_point():
    own = TokenBudget(merged_windows=0.4, threshold=0.8, keep_per_class=3, keep=0.5)
    assert SweepPoint('dense').budget(own) == own
    assert SweepPoint('cts', merged_windows=7).budget(own) == TokenBudget(7, 0.8, 3, (0.5,))
    assert SweepPoint('cts', merged_windows={2: 3, 4: 1}).budget(own).windows == ((4, 1), (2, 3))
    assert SweepPoint('dtop@8', 'threshold', 0.9).budget(own) == TokenBudget(0.4, 0.9, 3, None)
    assert SweepPoint('hybrid@8', 'keep', 9, 0.6).budget(own) == TokenBudget(0.6, 0.8, 3, (9,))


@pytest.mark.parametrize(
    'options, complaint',
    [
        (['--variants', 'hybrid@7'], 'legal for tiny are dense'),
        (['--keeps', '0.0'], 'a fraction in (0, 1], got 0.0'),
        (['--thresholds', '1.5'], 'a number in (0, 1], got 1.5'),
        (['--merged', '13'], 'at most 12'),
        (['--merged', '4:1,2:3'], 'expected window sizes of tiny, (2,), got 4'),
        (['--variants', 'dtop@8', '--keeps', '--thresholds'], 'expected at least one operating point'),
        (['--limit', '0'], 'at least 1 image'),
        (['--split', 'nowhere'], "no split 'nowhere'"),
    ],
)
def test_what_cannot_be_swept_is_said_before_anything_runs(command, tmp_path, capsys, options, complaint):
    assert main([*command, *options]) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_command_writes_what_evaluate_says_and_goes_on(command, camvid_root, tiny_model, tmp_path, capsys):
    out = tmp_path / 'out'
    assert main([*command, '--variants', 'dense,cts', 'hybrid@8', '--keeps', '0.5', '--thresholds', '0.3']) == 0
    content = json.loads((out / 'sweep.json').read_text())
    assert {key: content[key] for key in ('model', 'dataset', 'split', 'frames', 'device', 'precision')} == {
        'model': 'tiny', 'dataset': 'camvid', 'split': 'val', 'frames': 1, 'device': 'cpu', 'precision': 'float32'
    }  # fmt: skip
    assert content['default'] == {'variant': 'hybrid@6+8', 'rule': 'threshold', 'value': 0.3, 'merged_windows': OWN}
    names = [tuple(row[key] for key in ('variant', 'rule', 'value', 'merged_windows')) for row in content['rows']]
    assert names == [('dense', None, None, None), ('cts', None, None, OWN), ('hybrid@8', 'keep', 0.5, OWN),
                     ('hybrid@8', 'threshold', 0.3, OWN)]  # fmt: skip
    dataset = open_dataset('camvid', camvid_root, 'val')
    result = evaluate(load_pipeline(tiny_model, 'pytorch', 'cpu', variant='hybrid@8', keep=0.5), dataset, limit=1)
    for key in ('miou', 'pixel_accuracy', 'iou_per_class', 'tokens_mean', 'gflops_mean'):
        assert content['rows'][2][key] == getattr(result, key), key
    dense, cts, keep, _ = content['rows']
    assert dense['of_dense'] == pytest.approx(1)
    assert keep['of_dense'] == pytest.approx(keep['gflops_mean'] / dense['gflops_mean'])
    assert keep['tokens_mean'] == {'total': 48.0, 'merged': 33.0, 'kept@8': 16.0}
    table = list(csv.DictReader((out / 'sweep.csv').open()))
    assert [float(row['miou']) for row in table] == [row['miou'] for row in content['rows']]
    assert [row['merged_windows'] for row in table] == ['', str(OWN), str(OWN), str(OWN)]
    assert [row['tokens_kept@8'] for row in table][:3] == ['', '', '16.0']
    markdown = (out / 'sweep.md').read_text()
    assert '| hybrid@8 | 0.402 | keep 0.5 |' in markdown and '| 33 → 16 |' in markdown and '| 100 % |' in markdown
    assert cv2.imread(str(out / 'sweep.png')).shape == (SIZE_PX[1], SIZE_PX[0], 3)
    assert markdown in capsys.readouterr().out

    content['rows'][2]['miou'] = 12.5  # no evaluation gives that: it stays only if the point does not run again
    (out / 'sweep.json').write_text(json.dumps(content))
    assert main([*command, '--variants', 'hybrid@8', '--keeps', '0.5', '0.25', '--thresholds']) == 0
    again = json.loads((out / 'sweep.json').read_text())
    assert [row['value'] for row in again['rows']] == [None, None, 0.25, 0.5, 0.3]
    assert again['rows'][3] == content['rows'][2]


def test_number_of_merged_windows_varies(command, tmp_path):
    options = ['--variants', 'dtop@8,hybrid@8', '--keeps', '0.5', '--thresholds', '--merged', '0.5', '12']
    assert main([*command, *options]) == 0
    rows = json.loads((tmp_path / 'out' / 'sweep.json').read_text())['rows']
    assert [(row['variant'], row['merged_windows'], row['tokens_mean']['merged']) for row in rows] == [
        ('dtop@8', None, 48), ('hybrid@8', 12, 12), ('hybrid@8', 0.5, 30)]
    assert rows[1]['gflops_mean'] < rows[2]['gflops_mean']


def test_windows_of_several_sizes(camvid_root, tmp_path):
    """Files and tables hold one form of them, and a sweep goes on from its own; what merges more comes first."""
    model, out = write_tiny_model(tmp_path, window_sizes=(2, 4)), tmp_path / 'out'
    command = ['sweep', '--model', str(model), '--dataset', 'camvid', '--root', str(camvid_root), '--limit', '1',
               '--output', str(out), '--variants', 'cts', '--merged', '0.5', '4:1,2:3', '2:1,4:0.5']  # fmt: skip
    assert main(command) == 0
    content = json.loads((out / 'sweep.json').read_text())
    assert [row['merged_windows'] for row in content['rows']] == [[[4, 1], [2, 3]], [[4, 0.5], [2, 1]], 0.5]
    assert [row['tokens_mean']['merged'] for row in content['rows']] == [24, 30, 30]
    table = list(csv.DictReader((out / 'sweep.csv').open()))
    assert [row['merged_windows'] for row in table] == ['4:1,2:3', '4:0.5,2:1', '0.5']
    assert '| cts | 4:1,2:3 | – |' in (out / 'sweep.md').read_text()
    spec, points = ModelSpec.load(model), [SweepPoint('cts', merged_windows=each) for each in (((2, 3), (4, 1)), 0.5)]
    assert [row.point for row in Sweep.load_json(out / 'sweep.json').rows][::2] == points
    for row in content['rows']:
        budget = TokenBudget(row['merged_windows'])
        cost = count_variants(spec, (96, 128), budget, [Variant.parse('cts')])['cts']
        assert row['gflops_mean'] == pytest.approx(cost.gflops)
    content['rows'][0]['miou'] = 12.5  # no evaluation gives that: it stays only if the point does not run again
    (out / 'sweep.json').write_text(json.dumps(content))
    assert main(command) == 0
    assert json.loads((out / 'sweep.json').read_text())['rows'][0]['miou'] == 12.5


def test_an_interrupted_sweep_keeps_whole_points(camvid_root, tiny_model, tmp_path):
    dataset = open_dataset('camvid', camvid_root, 'val')

    class Interrupted:
        """Reads three samples, then is interrupted, as by Ctrl-C."""

        classes, left = dataset.classes, 3

        def __len__(self):
            return 2

        def __getitem__(self, index):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return dataset[index]

    pipeline, path = load_pipeline(tiny_model, 'pytorch', 'cpu'), tmp_path / 'sweep.json'
    subject = describe_subject(pipeline, dataset, 'camvid', 'val', 2)
    points = [SweepPoint('dtop@6+8', 'keep', (0.5, 0.2)), KEEP_POINT]
    with pytest.raises(KeyboardInterrupt):
        run_sweep(pipeline, Interrupted(), points, Sweep(subject, SweepPoint('dense')), path)
    assert [path.name for path in tmp_path.iterdir()] == ['sweep.json']
    halfway = Sweep.load_json(path)
    assert [row.point for row in halfway.rows] == points[:1]
    done = run_sweep(pipeline, dataset, points, halfway, path)
    assert done.rows[0] == halfway.rows[0] and Sweep.load_json(path) == done
    assert [row.point for row in done.rows] == points


def test_rows_of_something_else_are_not_mixed_in(command, tmp_path, capsys):
    path = tmp_path / 'out' / 'sweep.json'
    options = ['--variants', 'hybrid@8', '--keeps', '0.5', '--thresholds']
    assert main([*command, *options]) == 0
    content = json.loads(path.read_text())
    for damage in ('frames', 'model_sha256', 'not JSON'):
        before = json.dumps({**content, damage: 7}) if damage in content else content['model']
        path.write_text(before)
        assert main([*command, *options]) == 1
        error = capsys.readouterr().err
        assert '--force to start anew' in error and (damage not in content or f'{damage}: expected' in error)
        assert path.read_text() == before
    assert main([*command, *options, '--force']) == 0
    assert json.loads(path.read_text()) == content


@pytest.mark.parametrize(
    'point, complaint',
    [
        (('dense', 'keep', 0.5), 'expected a rule and a value'),
        (('hybrid@8',), 'expected a rule and a value'),
        (('hybrid@8', 'keep'), 'expected a rule and a value'),
        (('dtop@8', 'top', 1), 'legal are keep, threshold'),
        (('cts',), 'expected merged_windows where it merges, got None'),
        (('dense', None, None, 0.5), 'expected merged_windows where it merges, got 0.5'),
    ],
)
def test_a_point_that_is_none(point, complaint):
    with pytest.raises(ValueError, match=complaint):
        SweepPoint(*point)
