"""`hybrid_seg paper`: its numbers are those of `evaluate` and `flops`, and the page shows them."""

import csv
import json

import cv2
import pytest
from camvid_folder import write_camvid_folder
from page_reader import look_at
from tiny_model import tiny_spec, write_tiny_model

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.evaluation.flops.count import count_flops
from hybrid_seg_ros.evaluation.flops.paper import PAPER_FPS, PAPER_GFLOPS
from hybrid_seg_ros.evaluation.paper.layers import SIZE_PX
from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.model_spec import PAPER_VARIANTS, ModelSpec, SlidingWindow, Variant

pytest.importorskip('matplotlib', reason='comes with requirements/ros.txt, or from the system')

TABLES = {'tables.json', 'tables.csv', 'tables.md', 'index.html', 'figure_1_3_layers.png'}
TOKEN_FIGURES = {'figure_1_2_merged.jpg', 'figure_1_4_easy.jpg', 'figure_1_5_hard.jpg'}


def paper(model, root, folder, *words):
    return main(['paper', '--model', str(model), '--root', str(root), '--output', str(folder), '--rounds', '1', *words])


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Four images, so that two of them can be easy and two hard."""
    return write_camvid_folder(tmp_path_factory.mktemp('camvid'), train=1, val=4)


@pytest.fixture(scope='module')
def folder(tiny_model, root, tmp_path_factory):
    out = tmp_path_factory.mktemp('out') / 'new' / 'paper'
    assert paper(tiny_model, root, out, '--keep', '0.5') == 0
    return out


@pytest.fixture(scope='module')
def content(folder):
    return json.loads((folder / 'tables.json').read_text())


def test_everything_is_there_and_nothing_else(folder, content):
    assert {path.name for path in folder.iterdir()} == TABLES | TOKEN_FIGURES
    assert [row['variant'] for row in content['rows']] == list(content['layers']) == list(PAPER_VARIANTS)
    assert content['missing_variants'] == {} and content['subject']['frames'] == 4 and content['subject']['rounds'] == 1
    assert content['subject']['pruning'].endswith('at a pruning layer: 0.5')


@pytest.mark.parametrize('variant', ['dense', 'hybrid@6+8'])
def test_accuracy_is_that_of_evaluate(tiny_model, root, content, tmp_path, variant):
    out = tmp_path / 'result.json'
    assert main(['evaluate', '--model', str(tiny_model), '--root', str(root), '--variant', variant, '--keep', '0.5',
                 '--json', str(out)]) == 0  # fmt: skip
    expected = json.loads(out.read_text())
    row = next(row for row in content['rows'] if row['variant'] == variant)
    assert (row['miou'], row['pixel_accuracy']) == (expected['miou'], expected['pixel_accuracy'])
    assert (row['gflops'], row['tokens']) == (expected['gflops_mean'], expected['tokens_mean'])


def test_what_rows_say_of_each_other(tiny_model, content):
    spec = ModelSpec.load(tiny_model)
    dense = content['rows'][0]
    for row in content['rows']:
        variant = Variant.parse(row['variant'])
        assert (row['merges'], tuple(row['prune_layers'])) == (variant.merges, variant.prune_layers)
        policy = count_flops(spec, (96, 128), Variant(merges=variant.merges), 48).gflops_of('policy')
        assert (policy > 0) == variant.merges
        assert row['gflops_without_policy'] == pytest.approx(row['gflops'] - policy)
        assert row['fps'] == pytest.approx(1000 / row['median_ms']) and 0 < row['network_ms'] < row['p95_ms']
        assert row['miou_change'] == pytest.approx(row['miou'] - dense['miou'])
        assert row['gflops_change'] == pytest.approx(100 * (row['gflops'] / dense['gflops'] - 1))
        assert row['fps_to_dense'] == pytest.approx(row['fps'] / dense['fps'])
    assert dense['fps_to_dense'] == dense['fps_to_dense_paired'] == 1 and dense['gflops_change'] == 0
    assert 'it takes at least 5 rounds to tell' in content['verdict'] or 'No variant' in content['verdict']


def test_layers_add_up(tiny_model, content):
    spec = ModelSpec.load(tiny_model)
    for name, layers in content['layers'].items():
        variant = Variant.parse(name)
        row = next(row for row in content['rows'] if row['variant'] == name)
        assert layers['tokens'] == list(row['tokens'].values())[1:]  # a fixed keep: as many in each image
        kept = tuple(zip(variant.prune_layers, layers['tokens'][1:]))
        total = count_flops(spec, (96, 128), variant, layers['tokens'][0], kept).gflops
        assert sum(step['gflops'] for step in layers['steps']) == pytest.approx(total) == pytest.approx(row['gflops'])
        names = [step['name'] for step in layers['steps']]
        assert [each for each in names if each.startswith('auxiliary')] == [
            f'auxiliary head {layer}' for layer in variant.prune_layers
        ]
        assert [each for each in names if each.startswith('layer')] == [f'layer {layer}' for layer in range(1, 13)]
        passed_ms = 0.0
        for step in layers['steps']:
            assert (step['ms'] is None) == (step['name'] == 'upsampling')
            passed_ms += step['ms'] or 0
            assert step['fps_up_to_here'] == pytest.approx(1000 / passed_ms)
        assert layers['network_ms'] > 0


def test_page_shows_the_numbers(folder, content):
    page = (folder / 'index.html').read_text()
    seen = look_at(page)
    cells = seen.texts['td']
    for row in content['rows']:
        for value in (f'{row["miou"]:.2f}', f'{row["gflops"]:.2f}', f'{row["median_ms"]:.1f}', f'{row["fps"]:.1f}'):
            assert any(cell == value or cell.startswith(value + ' (') for cell in cells), (row['variant'], value)
        for reported in (*PAPER_GFLOPS.values(), *PAPER_FPS.values()):
            if row['variant'] in reported:
                value = f'{reported[row["variant"]]:.1f}'
                assert any(cell == value or cell.startswith(value + ' (') for cell in cells)
    assert '7.6 (63 %)' in cells and '9.3 (0.60x)' in cells
    assert any('ADE20K with 150 classes' in text and 'Jetson' in text for text in seen.texts['p'])
    assert content['verdict'] in seen.texts['p']
    assert len(seen.attributes['img']) == 1 + 4 + 4 * 5  # layers, merged, and four images of five pictures each
    assert 'http' not in page and len(seen.texts['h2']) == 6
    markdown = (folder / 'tables.md').read_text()
    assert all(f'| {row["variant"]} |' in markdown for row in content['rows']) and content['verdict'] in markdown


def test_table_as_csv(folder, content):
    with open(folder / 'tables.csv', newline='') as stream:
        rows = list(csv.DictReader(stream))
    for read, row in zip(rows, content['rows']):
        assert read['variant'] == row['variant'] and float(read['miou']) == row['miou']
        assert {key: float(read[f'tokens_{key}']) for key in row['tokens']} == row['tokens']
    assert len(rows) == 6 and rows[0]['tokens_kept@8'] == ''


def test_pictures(folder, content):
    shapes = {name: cv2.imread(str(folder / name)).shape for name in (*TOKEN_FIGURES, 'figure_1_3_layers.png')}
    assert shapes['figure_1_3_layers.png'] == (*SIZE_PX[::-1], 3)
    assert shapes['figure_1_2_merged.jpg'] == (2 * (24 + 300 + 6), 2 * 406 - 6, 3)  # 72x96 at a width of 400
    assert shapes['figure_1_4_easy.jpg'] == shapes['figure_1_5_hard.jpg'] == (2 * (24 + 195 + 6), 5 * 266 - 6, 3)
    images = content['images']
    assert (images['merging'], images['pruning']) == ('cts', 'hybrid@6+8')
    left = {kind: [each['tokens']['kept@8'] for each in images[kind]] for kind in ('easy', 'hard')}
    assert max(left['easy']) <= min(left['hard'])
    assert len({each['name'] for each in images['easy'] + images['hard']}) == 4


@pytest.mark.parametrize(
    'overrides, variants, missing, note',
    [
        ({'policy': 'none', 'auxiliary_layers': (8,), 'variant': Variant()}, ['dense', 'dtop@8'],
         {'figure_1_2_merged.jpg'}, 'no auxiliary head after layer 6'),
        ({'head': 'segvit_atm', 'variant': Variant()}, ['dense', 'cts'],
         {'figure_1_4_easy.jpg', 'figure_1_5_hard.jpg'}, 'cannot write pruned tokens back'),
    ],
)  # fmt: skip
def test_a_model_that_cannot_do_everything(root, tmp_path, overrides, variants, missing, note):
    model = write_tiny_model(tmp_path, **overrides)
    assert paper(model, root, tmp_path / 'out', '--limit', '2') == 0
    content = json.loads((tmp_path / 'out' / 'tables.json').read_text())
    assert [row['variant'] for row in content['rows']] == variants
    assert list(content['missing_variants']) == [name for name in PAPER_VARIANTS if name not in variants]
    assert {path.name for path in (tmp_path / 'out').iterdir()} == (TABLES | TOKEN_FIGURES) - missing
    page = (tmp_path / 'out' / 'index.html').read_text()
    assert 'Left out:' in page and note in page
    assert len(content['images']['easy']) == len(content['images']['hard']) == ('figure_1_4_easy.jpg' not in missing)


def test_random_weights_threshold_and_images_by_name(root, tmp_path):
    model = tmp_path / 'random.yaml'
    tiny_spec(name='random', policy='patch_mlp', auxiliary_head='light', auxiliary_layers=(8,), variant=Variant()).save(
        model)  # fmt: skip
    assert paper(model, root, tmp_path / 'out', '--limit', '3', '--threshold', '0.2', '--images', '2', '0') == 0
    content = json.loads((tmp_path / 'out' / 'tables.json').read_text())
    assert content['subject']['weights'] == 'random' and content['subject']['threshold'] == 0.2
    assert [each['name'] for each in content['images']['merged']] == ['2', '0']
    assert 'The weights are random' in (tmp_path / 'out' / 'index.html').read_text()


def test_one_image_and_another_backend(root, tmp_path):
    pytest.importorskip('onnxruntime')
    model = write_tiny_model(tmp_path, policy='none', auxiliary_layers=(8,), variant=Variant())
    assert paper(model, root, tmp_path / 'out', '--limit', '1', '--keep', '9', '--backend', 'onnxruntime',
                 '--cache-dir', str(tmp_path / 'cache'), '--threads', '1') == 0  # fmt: skip
    content = json.loads((tmp_path / 'out' / 'tables.json').read_text())
    assert (content['subject']['backend'], content['subject']['dtype']) == ('onnxruntime', 'float32')
    assert content['rows'][-1]['tokens'] == {'total': 48, 'merged': 48, 'kept@8': 9}
    assert 'it takes two images' in (tmp_path / 'out' / 'index.html').read_text()


def test_a_sliding_window_is_counted_by_its_crops(root, tmp_path):
    model = write_tiny_model(tmp_path, inference='sliding', sliding_window=SlidingWindow(64, 48), auxiliary_layers=(),
                             variant=Variant())  # fmt: skip
    assert paper(model, root, tmp_path / 'out', '--limit', '2', '--keep', '0.5') == 0
    content = json.loads((tmp_path / 'out' / 'tables.json').read_text())
    spec, row, layers = ModelSpec.load(model), content['rows'][1], content['layers']['cts']
    crops = row['tokens']['total'] / 16
    assert crops > 1 and layers['tokens'] == [row['tokens']['merged'] / crops]
    assert crops * sum(step['gflops'] for step in layers['steps']) == pytest.approx(row['gflops'])
    policy = crops * count_flops(spec, (64, 64), Variant(merges=True), 16).gflops_of('policy')
    assert row['gflops'] - row['gflops_without_policy'] == pytest.approx(policy)


@pytest.mark.parametrize(
    'words, complaint',
    [
        (['--rounds', '0'], '--rounds: expected at least 1, got 0'),
        (['--threads', '0'], '--threads: expected at least 1, got 0'),
        (['--limit', '0'], '--limit: expected at least 1 image, got 0'),
        (['--keep', '0.5', '--threshold', '0.5'], 'not both'),
        (['--keep', '1.5'], 'keep: expected a count >= 1 or a fraction'),
        (['--threshold', '0'], 'threshold: expected a number in (0, 1], got 0.0'),
        (['--backend', 'pytorch-plain'], "unknown backend 'pytorch-plain'; legal are pytorch"),
        (['--backend', 'pytorch:int8'], "unknown precision 'int8'; legal for pytorch are float32"),
        (['--device', 'tpu'], "unknown device 'tpu'"),
        (['--split', 'nowhere'], 'nowhere'),
        (['--images', 'x', '0'], '--images: expected names among 0, 1, 2, 3, got x'),
        (['--limit', '2', '--images', '3'], '--images: expected names among 0, 1, got 3'),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(tiny_model, root, tmp_path, capsys, words, complaint):
    out = tmp_path / 'out'
    assert paper(tiny_model, root, out, *words) == 1
    assert complaint in capsys.readouterr().err and not out.exists()


def test_classes_of_another_data_set(root, tmp_path, capsys):
    model = write_tiny_model(tmp_path, classes=LabelSpace(('a', 'b'), ((0, 0, 0), (9, 9, 9))))
    assert paper(model, root, tmp_path / 'out') == 1
    assert 'expected the classes of the dataset' in capsys.readouterr().err and not (tmp_path / 'out').exists()


def test_a_file_where_the_folder_should_be(tiny_model, root, tmp_path, capsys):
    (tmp_path / 'out').write_text('mine')
    assert paper(tiny_model, root, tmp_path / 'out' / 'deeper') == 1
    assert 'expected a folder' in capsys.readouterr().err and (tmp_path / 'out').read_text() == 'mine'
