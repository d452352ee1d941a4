"""Files are written whole or not at all, on a full disk too; what is in their place is found before it is too late."""

import contextlib
import copy
import json
import resource

import cv2
import numpy as np
import pytest
from tiny_model import tiny_spec

from hybrid_seg_ros.evaluation.pages.figures import new_figure, save_figure
from hybrid_seg_ros.files import check_file, check_folder, whole_file, write_bytes, write_files, write_json, write_text
from hybrid_seg_ros.inference.backends.graph_export import export_graphs
from hybrid_seg_ros.inference.backends.graph_info import GraphInfo
from hybrid_seg_ros.model_spec import TokenBudget, Variant
from hybrid_seg_ros.network.checkpoint import save_model
from hybrid_seg_ros.network.encoder_weights import save_encoder
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.ros.bags.bag_writer import WriteBagOptions, write_bag
from hybrid_seg_ros.ros.play.demo_pictures import Video
from hybrid_seg_ros.training.train_config import TrainConfig
from hybrid_seg_ros.visualization import write_png

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
MODEL = HybridSegmenter(tiny_spec())


@contextlib.contextmanager
def full_disk(limit: int = 500):
    """Let no file be longer, as `ulimit -f` does; what writes more gets an error, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_in_pieces(path):
    with whole_file(path) as partial, open(partial, 'wb') as stream:
        for _ in range(100):
            stream.write(bytes(999))


def write_video(path):
    with Video(path.with_suffix('.mp4'), 15.0) as video:
        for _ in range(9):
            video.add(NOISE)


def write_figure(path):
    with full_disk(-1):
        figure = new_figure((900, 900))
    save_figure(figure, path)


def write_frames(path):
    folder = path.with_name(path.name + '_images')
    with full_disk(-1):
        folder.mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / 'a.jpg'), NOISE)
    try:
        write_bag(WriteBagOptions(folder, path.with_name('bag')))
    finally:
        (folder / 'a.jpg').unlink()


def write_graphs(path):
    model = copy.deepcopy(MODEL)  # an export takes it over
    export_graphs(model, GraphInfo.describe(model.spec, Variant(), TokenBudget(), model.spec.network_size_hw), path)


WRITERS = {
    'bytes': lambda path: write_bytes(path, bytes(999)),
    'text': lambda path: write_text(path, 'x' * 999),
    'JSON': lambda path: write_json(path, ['x' * 999]),
    'several': lambda path: write_files(path.parent, {'a': b'1', 'file': bytes(999)}),
    'in pieces': write_in_pieces,
    'picture': lambda path: write_png(path, NOISE),
    'figure': write_figure,
    'model': lambda path: save_model(MODEL, path.with_suffix('.yaml')),
    'model specification': lambda path: tiny_spec().save(path),
    'encoder': lambda path: save_encoder(MODEL.encoder, path),
    'configuration': lambda path: TrainConfig(model=tiny_spec().to_dict()).save(path),
    'video': write_video,
    'graphs': write_graphs,
    'bag': write_frames,
}


@pytest.mark.parametrize('name', WRITERS)
def test_a_full_disk_is_an_error_that_leaves_what_was_there(tmp_path, name):
    (tmp_path / 'file').write_text('before')
    with full_disk(), pytest.raises(OSError) as raised:
        WRITERS[name](tmp_path / 'file')
    assert [path.read_text() for path in tmp_path.rglob('*') if path.is_file()] == ['before'], 'nothing half written'
    assert str(tmp_path / ('bag' if name == 'bag' else 'file')) in str(raised.value)
    (tmp_path / 'file').unlink()
    WRITERS[name](tmp_path / 'file')


def test_a_name_that_is_too_long_is_named(tmp_path):
    for name in ('x' * 256, '\u00e9' * 128):
        with pytest.raises(OSError, match=f'File name too long: .*{name}'):
            write_text(tmp_path / name, 'text')
    assert not list(tmp_path.iterdir())


def test_an_error_of_something_else_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match='gone'), whole_file(tmp_path / 'file'):
        (tmp_path / 'gone').read_text()


def test_json_knows_no_nan(tmp_path):
    nan, inf = float('nan'), float('inf')
    write_json(tmp_path / 'new/x.json', {'a': nan, 'b': [1.5, (inf, {'c': -inf})], 'd': 'NaN'})
    content = json.loads((tmp_path / 'new/x.json').read_text(), parse_constant=pytest.fail)
    assert content == {'a': None, 'b': [1.5, [None, {'c': None}]], 'd': 'NaN'}


def test_files_are_written_all_or_none(tmp_path):
    (tmp_path / 'mine.txt').write_text('mine')
    write_files(tmp_path, {'a': b'1', 'b': b'2'})
    (tmp_path / 'b.partial').mkdir()
    with pytest.raises(OSError):
        write_files(tmp_path, {'a': b'3', 'b': b'4'})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == {
        'a': b'1', 'b': b'2', 'mine.txt': b'mine',
    }  # fmt: skip


def test_the_folder_may_be_new_or_there_but_no_file(tmp_path):
    check_folder(tmp_path)
    check_folder(tmp_path / 'new' / 'deeper')
    assert not (tmp_path / 'new').exists()
    (tmp_path / 'file').touch()
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(NotADirectoryError, match='expected a folder, .*file is a file'):
            check_folder(folder)


def test_a_folder_where_a_file_should_be_is_named(tmp_path):
    (tmp_path / 'file').write_text('mine')
    check_file(None, '--json')
    check_file(tmp_path / 'new' / 'x.json', '--json')
    check_file(tmp_path / 'file', '--json')
    with pytest.raises(IsADirectoryError, match='--json .*: expected a file, that is a folder'):
        check_file(tmp_path, '--json')
    with pytest.raises(NotADirectoryError, match='--html .*: expected a file in a folder, .*file is a file'):
        check_file(tmp_path / 'file' / 'x.html', '--html')
