"""The frames of one camera of a bag: their times, and which ground truth is theirs."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from bag_files import (
    CAMERA,
    COMPRESSED,
    COUNT,
    LABELS,
    LOG_NS,
    PERIOD_NS,
    RAW,
    STAMP_NS,
    Sent,
    cut,
    file_cdr,
    image_cdr,
    picture,
    write_mcap,
    write_messages,
)

from hybrid_seg_ros.ros.bags.bag_content import BagError
from hybrid_seg_ros.ros.bags.bag_reader import BagReader
from hybrid_seg_ros.ros.bags.drive import Drive

PLAIN, PACKED = np.zeros((4, 6), np.uint8), cv2.imencode('.png', np.zeros((4, 6), np.uint8))[1].tobytes()
PAIR = (CAMERA, LABELS)
TWO = ('/front/image', '/rear/image', '/front/labels')
SENSOR = ('/camera/color/image_raw', '/camera/depth/image_raw', '/camera/labels/compressed')


def write_topics(folder, *topics):
    """Write one message of each topic; those whose names say so are compressed."""
    return write_messages(folder, [
        Sent(topic, COMPRESSED, LOG_NS, file_cdr(PACKED, STAMP_NS))
        if topic.endswith('/compressed') else Sent(topic, RAW, LOG_NS, image_cdr(PLAIN, STAMP_NS))
        for topic in topics
    ])  # fmt: skip


def write_frames(folder, stamps_ns, log_ns):
    return write_messages(
        folder, [Sent(CAMERA, RAW, log, image_cdr(PLAIN, stamp)) for stamp, log in zip(stamps_ns, log_ns)]
    )


@pytest.mark.parametrize(('topics', 'camera', 'labels'), [
    (PAIR, None, LABELS),
    (('/camera', '/truth/labels'), None, '/truth/labels'),
    (('/camera', '/labels'), '/camera', '/labels'),
    (('/camera/image',), None, None),
    (TWO, '/front/image', '/front/labels'),
    (TWO, '/rear/image', None),
    (TWO, 'rear/image', None),
    ((*TWO, '/rear/labels/compressed'), '/rear/image', '/rear/labels/compressed'),
    (('/front/image/compressed', '/front_rear/image', '/front/labels/image/compressed'), '/front_rear/image', None),
    (('/front/image_raw', '/front/image_raw/compressed', '/front/labels'), '/front/image_raw', '/front/labels'),
    (('/front/image_raw/compressed', '/rear/image', '/front/labels/compressed'), '/front/image_raw/compressed',
     '/front/labels/compressed'),
    (('/front/image', '/rear/image', '/labels'), '/rear/image', None),
    (('/front/image', '/one/labels', '/two/labels'), None, None),
    (SENSOR, '/camera/color/image_raw', '/camera/labels/compressed'),
])  # fmt: skip
def test_labels_belong_to_a_camera(tmp_path, topics, camera, labels):
    with BagReader(write_topics(tmp_path / 'bag', *topics)) as bag:
        truth = Drive(bag, camera).truth
        assert (None if truth is None else truth.name) == labels
        assert truth is None or np.array_equal(truth.labels_at(STAMP_NS), PLAIN)
        assert Drive(bag, camera, with_labels=False).truth is None


def test_labels_that_are_named_are_taken_wherever_they_are(tmp_path):
    with BagReader(write_topics(tmp_path / 'bag', *TWO)) as bag:
        assert Drive(bag, '/rear/image', '/front/labels').truth.name == '/front/labels'
        assert Drive(bag, '/rear/image', '/front/labels', with_labels=False).truth is None
        with pytest.raises(BagError, match='no topic /rear/labels; it holds'):
            Drive(bag, '/rear/image', '/rear/labels')


def test_several_that_fit_are_a_choice_to_make(tmp_path):
    with BagReader(write_topics(tmp_path / 'bag', CAMERA, LABELS, '/camera/labels/compressed')) as bag:
        listed = r'/camera/labels \(.*\), /camera/labels/compressed \(.*\); choose with --label-topic NAME'
        with pytest.raises(BagError, match=listed):
            Drive(bag)
        assert Drive(bag, with_labels=False).truth is None


def test_each_of_two_cameras_has_its_own(tmp_path):
    sides = {'front': 1, 'rear': 2}
    messages = [
        Sent(f'/{side}/{name}', RAW, LOG_NS, image_cdr(PLAIN + value * (name == 'labels'), STAMP_NS))
        for side, value in sides.items() for name in ('image', 'labels')
    ]  # fmt: skip
    with BagReader(write_messages(tmp_path / 'bag', messages)) as bag:
        for side, value in sides.items():
            assert (Drive(bag, f'/{side}/image').truth.labels_at(STAMP_NS) == value).all()
        with pytest.raises(BagError, match=r'several image topics: /front/image .*choose with --topic NAME'):
            Drive(bag)


@pytest.mark.parametrize(('classes', 'void'), [(None, None), (11, None), (10, 10), (None, 10), (11, 4)])
def test_mono8_labels_through_the_reader(tmp_path, classes, void):
    """`void` is unlabelled, and ids are checked."""
    with BagReader(write_mcap(tmp_path / 'drive.mcap')) as bag:
        truth = Drive(bag, classes=classes, void=void).truth
        values = picture(0, LABELS)
        assert (truth.name, truth.stamps_ns[0], len(truth.stamps_ns)) == (LABELS, STAMP_NS, COUNT)
        assert np.array_equal(truth.labels_at(STAMP_NS), np.where(values == void, 255, values) if void else values)


def test_ground_truth_may_come_from_elsewhere(tmp_path):
    with BagReader(write_mcap(tmp_path / 'drive.mcap', garbage={CAMERA: [3]})) as bag:
        elsewhere = SimpleNamespace(name='elsewhere', stamps_ns=(), labels_at=lambda stamp_ns: None)
        drive = Drive(bag, truth=elsewhere)
        assert drive.truth is elsewhere and Drive(bag, truth=elsewhere, with_labels=False).truth is None
        assert drive.camera.name == CAMERA and drive.camera.count == len(drive.stamps_ns) == len(drive.frames()) == 39


@pytest.mark.parametrize('spared', [True, False])
def test_labels_that_are_all_garbage(tmp_path, spared):
    path = write_mcap(tmp_path / 'drive.mcap', garbage={LABELS: range(COUNT)})
    if not spared:
        cut(path, path.stat().st_size - 4)
    with BagReader(path) as bag, pytest.raises(BagError, match='/camera/labels holds no'):
        Drive(bag, label_topic=LABELS)
    with BagReader(path) as bag:
        drive = Drive(bag)
        assert drive.truth is None and len(drive.stamps_ns) == COUNT
        assert '40 messages are damaged and left out, the first on /camera/labels' in bag.damage


def test_frames_that_are_all_garbage(tmp_path):
    path = write_mcap(tmp_path / 'drive.mcap', garbage={CAMERA: range(COUNT)})
    with BagReader(path) as bag, pytest.raises(BagError, match='/camera/image holds no messages'):
        Drive(bag)


@pytest.mark.parametrize(('stamps_s', 'times_s', 'repeated_s'), [
    ([5, 5.2, 5.6, 6], [0, 0.2, 0.6, 1], None),
    ([5, 5.2, 5.1, 6], [0, 0.1, 0.2, 0.3], None),
    ([5, 5.2, 5.2, 5], [0, 0.1, 0.2, 0.3], 5.2),
    ([5, 5.2, 5, 5.2], [0, 0.1, 0.2, 0.3], 5),
    ([0, 0, 0, 0], [0, 0.1, 0.2, 0.3], 0),
    ([5], [0], None),
])  # fmt: skip
def test_stamps_and_times(tmp_path, stamps_s, times_s, repeated_s):
    stamps_ns = [round(each * 1e9) for each in stamps_s]
    logs_ns = [LOG_NS + index * PERIOD_NS for index in range(len(stamps_s))]
    with BagReader(write_frames(tmp_path / 'bag', stamps_ns, logs_ns)) as bag:
        drive = Drive(bag)
        assert drive.stamps_ns == stamps_ns
        assert drive.times_s == pytest.approx(times_s)
        assert drive.repeated_stamp() == (None if repeated_s is None else round(repeated_s * 1e9))
        assert drive.rate_hz == pytest.approx(0 if len(stamps_s) == 1 else 10)


def test_recording_times_that_are_all_the_same_say_no_rate(tmp_path):
    with BagReader(write_frames(tmp_path / 'bag', [0, 0, 0], [LOG_NS] * 3)) as bag:
        drive = Drive(bag)
        assert (drive.rate_hz, drive.times_s, drive.repeated_stamp()) == (0.0, [0.0, 0.0, 0.0], 0)


@pytest.mark.parametrize('stamps_ns', [[0, LOG_NS, LOG_NS + PERIOD_NS], [0, 0, 0]])
def test_a_frame_from_before_the_clock_ran(tmp_path, stamps_ns):
    """It was recorded at 0; the gap counts as long as a replay waits."""
    with BagReader(write_frames(tmp_path / 'bag', stamps_ns, [0, LOG_NS, LOG_NS + PERIOD_NS])) as bag:
        drive = Drive(bag)
        assert drive.times_s == pytest.approx([0, 5, 5.1]) and drive.rate_hz == pytest.approx(2 / 5.1)


@pytest.mark.parametrize('limit', [1, 5, COUNT, COUNT + 1, None])
def test_a_limit_ends_the_reading(tmp_path, limit):
    """The last frame, which is garbage, is met only without one."""
    with BagReader(write_mcap(tmp_path / 'drive.mcap', garbage={CAMERA: [COUNT - 1]})) as bag:
        drive = Drive(bag, limit=limit)
        frames = min(limit or COUNT, COUNT - 1)
        assert len(drive.stamps_ns) == len(drive.times_s) == len(drive.frames()) == frames
        assert drive.stamps_ns[-1] == STAMP_NS + (frames - 1) * PERIOD_NS
        assert drive.rate_hz == pytest.approx(1e9 / PERIOD_NS)
        assert (bag.damage is None) is (limit in (1, 5))
