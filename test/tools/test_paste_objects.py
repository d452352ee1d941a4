"""tools/paste_objects.py: what is cut out, where it may lie, and when it counts as seen."""

from types import SimpleNamespace

import numpy as np
import paste_objects
import pytest
from camvid_folder import write_camvid_folder
from paste_objects import SHOWN, WARM_UP, CutOut, cut_objects, frames_until_seen, merged_places
from tiny_model import write_tiny_model
from tool import run_tool

from hybrid_seg_ros.data.segmentation_dataset import Sample
from hybrid_seg_ros.inference.film import Film


def test_objects_of_the_right_height_are_cut_out():
    labels = np.zeros((200, 200), np.uint8)
    labels[10:40, 20:40] = 3  # 30 px high
    labels[60:70, 20:60] = 3  # too low
    labels[50:180, 100:140] = 3  # too high
    labels[10:50, 150:180] = 4  # another class
    image = np.arange(200 * 200 * 3, dtype=np.uint32).astype(np.uint8).reshape(200, 200, 3)
    (cut,) = cut_objects([Sample('a', image, labels)], [3])
    assert cut.label == 3 and cut.mask.shape == (30, 20) and cut.mask.all()
    assert np.array_equal(cut.picture, image[10:40, 20:40])


def test_places_are_all_that_are_merged():
    window_size = np.ones((4, 6), np.uint8)
    window_size[:2, 2:4] = 2
    cut = CutOut(1, np.zeros((30, 25, 3), np.uint8), np.ones((30, 25), bool))
    corners = merged_places(window_size, (64, 96), cut)
    assert {tuple(corner) for corner in corners.tolist()} == {(y, x) for y in range(3) for x in range(32, 40)}
    assert not len(merged_places(window_size, (20, 20), cut))


@pytest.mark.parametrize('delay', [0, 3, None])
def test_frames_are_counted_until_most_of_it_has_its_class(delay):
    cut = CutOut(7, np.full((10, 10, 3), 200, np.uint8), np.eye(10, dtype=bool) | np.tri(10, dtype=bool))
    frames, seen = [np.zeros((40, 40, 3), np.uint8)] * (WARM_UP + SHOWN), []

    def pipeline(image, film, stamp_s):
        seen.append((image[5:15, 8:18] == 200).all(2).sum())
        labels = np.zeros((40, 40), np.uint8)
        if delay is not None and len(seen) > WARM_UP + delay:
            labels[image[..., 0] == 200] = 7
        return SimpleNamespace(labels=labels)

    assert frames_until_seen(pipeline, frames, Film('policy'), 0.1, cut, (5, 8)) == delay
    assert seen[:WARM_UP] == [0] * WARM_UP and set(seen[WARM_UP:]) == {cut.mask.sum()}


def test_command(tmp_path, monkeypatch, capsys):
    for name, value in (('SIDES_PX', (8, 200)), ('WARM_UP', 2), ('SHOWN', 3)):
        monkeypatch.setattr(paste_objects, name, value)
    root = write_camvid_folder(tmp_path / 'camvid', train=2, val=5)
    model = write_tiny_model(tmp_path)
    options = ['--root', str(root), '--classes', 'road', 'sky', 'building', '--variant', 'cts', '--count', '2',
               '--merged-windows', '1.0']  # fmt: skip
    assert run_tool(paste_objects, ['--model', str(model), *options, '--json', str(tmp_path / 'o.json')]) == 0
    assert 'previous' in capsys.readouterr().out and (tmp_path / 'o.json').is_file()
    for wrong, complaint in [(['--variant', 'dense'], 'expected one that merges'), (['--classes', 'moon'], 'got moon')]:
        assert run_tool(paste_objects, ['--model', str(model), *options, *wrong]) == 1
        assert complaint in capsys.readouterr().err
