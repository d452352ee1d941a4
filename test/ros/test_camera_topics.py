"""The parameter `cameras`, read as names and topics."""

import pytest

from hybrid_seg_ros.ros.camera_topics import CameraTopic, cameras_problem, parse_cameras


@pytest.mark.parametrize(
    ('entries', 'expected'),
    [
        ([], [('', 'image', '~')]),
        ([''], [('', 'image', '~')]),
        (['front'], [('front', 'front/image', '~/front')]),
        (
            ['front:=/front/image_raw', ' left ', 'rear:=rear_cam/color'],
            [('front', '/front/image_raw', '~/front'), ('left', 'left/image', '~/left'),
             ('rear', 'rear_cam/color', '~/rear')],
        ),
    ],
)  # fmt: skip
def test_names_topics_and_where_outputs_go(entries, expected):
    cameras = parse_cameras(entries)
    assert [(camera.name, camera.image, camera.output_prefix) for camera in cameras] == expected
    assert cameras_problem(entries) == ''


def test_without_names_it_is_one_camera_on_image():
    assert parse_cameras(['']) == (CameraTopic('', 'image'),)


@pytest.mark.parametrize(
    ('entries', 'problem'),
    [
        (['/front'], "got '/front'"),
        (['front:='], "got 'front:='"),
        (['front=/x'], 'expected entries like front or front:=/front/image_raw'),
        (['front:=/x//y'], "got 'front:=/x//y'"),
        (['1st'], "got '1st'"),
        (['front', 'front:=/x'], 'each name once, got front more than once'),
        (['a:=/x', 'b:=/x'], 'each topic once, got /x more than once'),
        (['mask'], "'mask' is the name of an output topic"),
        (['a:=~/mask'], "got 'a:=~/mask'"),
        ([3], 'strip'),
    ],
)
def test_what_is_refused(entries, problem):
    assert problem in cameras_problem(entries)
