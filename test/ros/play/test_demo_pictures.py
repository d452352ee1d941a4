"""The demo's pictures: contact sheet and video."""

import cv2
import numpy as np
import pytest

from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.ros.play.demo_pictures import SheetRow, Video, draw_contact_sheet

CLASSES = LabelSpace(('road', 'sky'), ((128, 64, 128), (10, 20, 200)))


def plain(color, size_hw=(36, 48)):
    return np.full((*size_hw, 3), color, np.uint8)


def test_sheet_holds_every_picture_and_the_legend():
    rows = [
        SheetRow('t = 0.0 s', {'camera': plain((200, 10, 10)), 'mask': plain((10, 200, 10))}),
        SheetRow('t = 1.0 s', {'camera': plain((200, 200, 10)), 'mask': None}),
    ]
    sheet = draw_contact_sheet(rows, CLASSES, 'title')
    colors = {tuple(color) for color in sheet.reshape(-1, 3)}
    assert {(200, 10, 10), (10, 200, 10), (200, 200, 10), *CLASSES.palette} <= colors
    assert tuple(sheet[0, 0]) == (255, 255, 255)


def test_a_sheet_with_many_classes_has_room_for_their_legend():
    classes = LabelSpace.from_entries([{'name': f'class {index}'} for index in range(150)])
    sheet = draw_contact_sheet([SheetRow('t', {'camera': plain(0)})], classes, 'title')
    assert sheet.shape[0] > 150 * 20


@pytest.mark.parametrize('size_hw', [(36, 48), (37, 49)])
def test_video_can_be_played(tmp_path, size_hw):
    with Video(tmp_path / 'out.mp4', 15.0) as video:
        for shade in (0, 100, 200):
            video.add(plain((shade, 0, 0), size_hw))
    capture = cv2.VideoCapture(str(tmp_path / 'out.mp4'))
    frames = [capture.read()[1] for _ in range(3)]
    assert [frame.shape for frame in frames] == [(36, 48, 3)] * 3  # a codec takes even sizes only
    assert [int(frame[..., 2].mean()) for frame in frames] == pytest.approx([0, 100, 200], abs=12)
    assert not capture.read()[0]


def test_video_keeps_one_size(tmp_path):
    with Video(tmp_path / 'out.mp4', 15.0) as video:
        video.add(plain(0))
        with pytest.raises(ValueError, match=r'expected pictures of \(36, 48\), got \(20, 20\)'):
            video.add(plain(0, (20, 20)))


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match='cannot be written'), Video(tmp_path / 'absent' / 'out.mp4', 15.0) as video:
        video.add(plain(0))


def test_no_pictures_no_file(tmp_path):
    with Video(tmp_path / 'out.mp4', 15.0):
        pass
    assert not (tmp_path / 'out.mp4').exists()
