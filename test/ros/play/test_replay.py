"""Replay over real DDS, of the shipped drive, to a subscriber in another process."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from bag_files import CAMERA, RAW, Sent, serialised, write_messages
from sensor_msgs.msg import CompressedImage

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.ros.bags.bag_content import BagError
from hybrid_seg_ros.ros.play.replay import replay
from hybrid_seg_ros.ros.play.replay_options import ReplayError, ReplayOptions, ReplayReport
from hybrid_seg_ros.ros.play.session import RosSession
from hybrid_seg_ros.ros.qos import reliable_qos

DRIVE = Path(__file__).parents[3] / 'bags' / 'camvid_val'
IMAGE, MASK = '/camera/image/compressed', '/segmentation_node/mask'


@contextmanager
def echo_node(*arguments):
    """Run echo_node.py with these arguments."""
    command = [sys.executable, str(Path(__file__).parents[1] / 'echo_node.py'), *arguments]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == 'ready\n'
        yield
        process.kill()


@pytest.fixture(scope='module')
def echo():
    """Let IMAGE be answered by MASK."""
    with echo_node():
        yield


def options(**changes):
    return ReplayOptions(**{'bag': DRIVE, **changes})


def test_lock_step_gets_an_answer_to_every_frame(echo):
    report = replay(options(lock_step=True))
    assert (report.sent, report.answered) == (101, 101)
    assert len(report.latencies_ms) == 101
    assert 0 < report.percentile_ms(50) <= report.percentile_ms(95) < 1000
    assert report.duration_s < 6.0  # it did not keep the recorded pace of 6.7 s


def test_recorded_pace_and_twice_that(echo):
    for rate in (1.0, 2.0):
        report = replay(options(rate=rate, limit=16, answer_topic=MASK))
        assert report.duration_s == pytest.approx(15 / 15 / rate, abs=0.3)  # 16 frames, 15 gaps of 1/15 s
        assert report.answers_hz == pytest.approx(15 * rate, rel=0.2)
        assert (report.sent, report.answered) == (16, 16)


def test_new_names_and_new_stamps_and_a_node_that_falls_silent():
    given = {'remap': {IMAGE: '/front/image/compressed'}, 'answer_topic': '/front/mask', 'lock_step': True}
    with echo_node('--image', '/front/image/compressed', '--mask', '/front/mask', '--deaf-after', '5'):
        report = replay(options(**given, restamp=True, limit=3))
        assert (report.sent, report.answered) == (3, 3)
        with pytest.raises(ReplayError, match='3 frames in a row got no answer on /front/mask within 0.2 s'):
            replay(options(**given, timeout_s=0.2))


def test_loop_begins_anew(echo):
    report = replay(options(loop=True, limit=103, answer_topic=MASK, lock_step=True))
    assert (report.sent, report.answered) == (103, 103)


def test_ctrl_c_ends_a_loop_and_is_no_error():
    command = [sys.executable, '-m', 'hybrid_seg_ros.cli', 'replay', str(DRIVE), '--loop']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        with RosSession('listener') as session:
            received = []
            session.node.create_subscription(CompressedImage, IMAGE, received.append, reliable_qos(10))
            assert session.spin_until(lambda: len(received) > 3, timeout_s=20.0)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=10)
    assert process.returncode == 0 and output == 'interrupted\n' and 'Traceback' not in errors


def test_ground_truth_is_played_on_request(echo):
    assert replay(options(labels=True, rate=50.0, wait_s=0.0)).sent == 101  # labels are not counted as frames
    labels = '/camera/labels/compressed'
    assert replay(options(topics=(labels,), remap={labels: IMAGE}, lock_step=True, limit=2)).answered == 2


def test_nobody_listens():
    with pytest.raises(ReplayError, match='no subscriber on /nobody/image within 0.2 s .ROS_DOMAIN_ID'):
        replay(options(wait_s=0.2, remap={IMAGE: '/nobody/image'}))


def test_nobody_answers():
    with pytest.raises(ReplayError, match='nobody publishes /other/mask'):
        replay(options(answer_topic='/other/mask', wait_s=0.0))


def test_playing_to_nobody_on_request():
    assert replay(options(wait_s=0.0, rate=100.0)).sent == 101


@pytest.mark.parametrize(('changes', 'error'), [
    ({'bag': DRIVE / 'absent'}, BagError),
    ({'topics': ('/absent',)}, BagError),
    ({'remap': {'/absent': '/x'}}, ReplayError),
])  # fmt: skip
def test_what_is_not_there_is_said(changes, error):
    with pytest.raises(error, match='absent'):
        replay(options(**changes))


@pytest.mark.parametrize(('changes', 'duration_s'), [
    ({'rate': 20.0}, 0.25),
    ({'max_gap_s': 2.0, 'rate': 4}, 0.5),
])  # fmt: skip
def test_a_gap_of_decades_is_shortened(tmp_path, changes, duration_s, caplog):
    """As of a message from before /clock ran, which was recorded at 0."""
    log_ns = (0, 1_700_000_000 * 10**9, 1_700_000_000 * 10**9)
    bag = write_messages(tmp_path / 'bag', (
        Sent(CAMERA, RAW, each, serialised(index, CAMERA)) for index, each in enumerate(log_ns)
    ))  # fmt: skip
    report = replay(options(bag=bag, wait_s=0.0, **changes))
    assert report.sent == 3 and report.duration_s == pytest.approx(duration_s, abs=0.3)
    assert f'a gap of 1700000000.0 s in the recording, at 1700000000.000 s of {CAMERA}, is shortened' in caplog.text


@pytest.mark.parametrize('changes', [{'rate': 0.0}, {'limit': 0}, {'max_gap_s': 0.0}])
def test_impossible_options_are_refused(changes):
    with pytest.raises(ReplayError, match='expected'):
        options(**changes)


def test_percentiles_are_nearest_rank():
    report = ReplayReport(4, 1.0, 4, 4.0, (4.0, 1.0, 3.0, 2.0))
    assert [report.percentile_ms(p) for p in (1, 25, 50, 75, 95, 100)] == [1, 1, 2, 3, 4, 4]


def test_command(echo, tmp_path, capfd):
    assert main(['replay', str(DRIVE), '--lock-step', '--limit', '4', '--json', str(tmp_path / 'out.json')]) == 0
    assert 'sent 4 frames' in capfd.readouterr().out
    assert json.loads((tmp_path / 'out.json').read_text())['answered'] == 4
    assert main(['replay', str(DRIVE), '--remap', 'nonsense']) == 1
    assert 'expected FROM:=TO' in capfd.readouterr().err

