"""What happens to frames, counted; and what diagnostics make of it."""

import dataclasses
from collections import deque

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from hybrid_seg_ros.inference.point_keeper import PointState
from hybrid_seg_ros.ros.camera import Frame, FrameSlot
from hybrid_seg_ros.ros.health.camera_monitor import RECENT_S, STEPS, CameraHealth, CameraMonitor, rate_hz
from hybrid_seg_ros.ros.health.diagnostics import (
    CameraState,
    InputState,
    ModelState,
    NodeState,
    image_verdict,
    model_verdict,
    node_statuses,
    point_verdict,
    segmentation_verdict,
)
from hybrid_seg_ros.ros.health.reporting import Alarms
from hybrid_seg_ros.segmentation import TokenReport

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
SOURCE = InputState(topic='/camera/image', publishers=1, dropped=3, is_listening=True, timeout_s=1.0)
GRID = np.ones((4, 6), np.uint8)
TOKENS = TokenReport((4, 6), GRID, 0 * GRID, 15, ((6, 9), (8, 5)))


def latencies(total):
    return {**dict.fromkeys(STEPS, 1.0), 'total': total}


def test_rate_is_that_of_the_last_seconds():
    times_s = deque()
    assert rate_hz(times_s, 0.0) == 0.0
    times_s.append(0.0)
    assert rate_hz(times_s, 0.0) == 0.0
    times_s.extend(index / 10 for index in range(1, 21))
    assert rate_hz(times_s, 2.0) == pytest.approx(10.0)
    assert rate_hz(times_s, 60.0) == 0.0


def test_monitor_counts_and_measures():
    monitor = CameraMonitor()
    monitor.restart(0.0)
    for index in range(1, 101):
        monitor.image_received(index / 10)
        rate = monitor.image_segmented(latencies(float(index)), TOKENS, index / 10)
    assert rate == pytest.approx(10.0)
    assert monitor.period_ms(10.5) == pytest.approx(100.0) and CameraMonitor().period_ms(10.5) == 0.0
    health = monitor.health(10.5)
    assert (health.received, health.segmented, health.tokens) == (100, 100, TOKENS)
    assert health.fps_in == pytest.approx(10.0) and health.since_image_s == pytest.approx(0.5)
    assert health.latency_ms['total'] == pytest.approx((50.5, 95.05))
    assert set(health.latency_ms) == set(STEPS)


def test_a_failure_stays_until_a_frame_succeeds_and_a_bad_frame_for_a_while():
    monitor = CameraMonitor()
    monitor.restart(0.0)
    monitor.inference_failed('out of memory')
    monitor.bad_frame('short', 1.0)
    health = monitor.health(1.0 + RECENT_S)
    assert (health.failure, health.failures) == ('out of memory', 1)
    assert (health.recent_bad_frame, health.bad_frames) == ('short', 1)
    monitor.image_segmented(latencies(1.0), TOKENS, 2.0)
    health = monitor.health(1.1 + RECENT_S)
    assert (health.failure, health.recent_bad_frame, health.bad_frames) == ('', '', 1)


def test_an_image_shows_that_the_qos_fits_after_all():
    monitor = CameraMonitor()
    monitor.restart(0.0)
    monitor.qos_incompatible('RELIABILITY')
    assert monitor.health(1.0).incompatible_qos
    monitor.image_received(1.0)
    assert not monitor.health(1.0).incompatible_qos


def health(**fields):
    return CameraHealth(**{'since_image_s': 0.1, 'fps_in': 15.0, **fields})


@pytest.mark.parametrize(
    ('fields', 'level', 'text'),
    [
        ({}, OK, '15.0 images/s on /camera/image'),
        ({'since_image_s': 1.5}, WARN, 'no image for 1.5 s on /camera/image (1 publisher)'),
        ({'since_image_s': 5.5}, ERROR, 'no image for 5.5 s on /camera/image'),
        ({'recent_bad_frame': 'too short'}, WARN, 'bad frame: too short'),
        ({'recent_bad_frame': 'too short', 'incompatible_qos': 'a publisher offers'}, ERROR, 'a publisher offers'),
        ({'info_fps': 15.2, 'stamp_age_s': 0.1}, OK, '15.0 images/s on /camera/image'),
        ({'info_fps': 30.0, 'image_bytes': 2764800}, WARN, 'of 30.0 published: images of 2.8 MB that do not fit'),
        ({'info_fps': 30.0, 'image_bytes': 300000}, WARN, 'the network or the processor is too slow'),
        ({'since_image_s': 2.0, 'since_info_s': 0.1}, WARN, 'its camera_info comes: images that do not fit'),
        ({'since_image_s': 2.0, 'since_info_s': 2.0}, WARN, '(1 publisher)'),
        ({'stamp_age_s': 3.2}, WARN, '15.0 images/s on /camera/image, but stamped 3.2 s old'),
        ({'stamp_age_s': -1.0}, WARN, 'but stamped 1.0 s in the future: unsynchronised clocks'),
    ],
)
def test_image_verdict(fields, level, text):
    verdict = image_verdict(SOURCE, health(**fields))
    assert verdict[0] == level and text in verdict[1]
    assert 'camera_info comes' in text or 'camera_info comes' not in verdict[1]


def test_the_expected_rate_goes_before_that_of_camera_info():
    source = dataclasses.replace(SOURCE, expected_fps=30.0)
    assert image_verdict(source, health(info_fps=15.0, image_bytes=10))[0] == WARN
    assert image_verdict(dataclasses.replace(SOURCE, expected_fps=15.0), health(info_fps=30.0))[0] == OK


@pytest.mark.parametrize(
    ('source', 'advice'),
    [
        ({}, 'fastdds_shm.xml, or let it publish reliably, with image_reliability auto here'),
        ({'is_reliable': True}, 'config/fastdds_shm.xml'),
        ({'is_compressed': True}, 'too slow for them'),
    ],
)
def test_the_likely_cause_of_loss_depends_on_what_is_asked_for(source, advice):
    lossy = health(info_fps=30.0, image_bytes=2764800)
    assert image_verdict(dataclasses.replace(SOURCE, **source), lossy)[1].endswith(advice)


def test_point_verdict():
    budget = PointState('cts merged 0.6', 'there is room', '80 ms', 0.8, position='2 of 5', miou=71.9, changes=3)
    assert point_verdict(budget) == (OK, 'cts merged 0.6: there is room')
    assert point_verdict(dataclasses.replace(budget, is_missed=True))[0] == WARN
    assert point_verdict(dataclasses.replace(budget, problem='cannot run dense: no memory')) == (
        ERROR, 'cannot run dense: no memory; cts merged 0.6 goes on')  # fmt: skip
    assert 'preparing dense; meanwhile cts' in point_verdict(dataclasses.replace(budget, preparing='dense'))[1]
    values = node_statuses(NodeState(ModelState('active'), budget), {}, 'node', 'robot')[1].values
    assert {item.key: item.value for item in values} == {
        'point': 'cts merged 0.6', 'reason': 'there is room', 'target': '80 ms', 'p95_of_target': '0.80',
        'position': '2 of 5', 'miou': '71.90', 'gflops': '', 'changes': '3', 'preparing': '', 'problem': '',
    }  # fmt: skip


def test_statuses_of_a_named_camera_carry_its_name():
    state = NodeState(ModelState('active'), cameras=[CameraState('front', SOURCE, health())])
    assert [status.name for status in node_statuses(state, {}, 'node', 'robot')] == [
        f'node: {task}' for task in ('model', 'front images', 'front segmentation', 'front tokens', 'machine')
    ]


def test_a_long_transition_says_how_far_it_is():
    assert model_verdict(ModelState('configuring', progress='building an engine')) == (
        OK, 'configuring: building an engine')  # fmt: skip


def test_a_node_that_does_not_listen_misses_nothing():
    source = dataclasses.replace(SOURCE, is_listening=False)
    assert image_verdict(source, health(since_image_s=100.0))[0] == OK


def test_silence_names_the_number_of_publishers():
    source = dataclasses.replace(SOURCE, publishers=0)
    assert '(0 publishers)' in image_verdict(source, health(since_image_s=2.0))[1]


def test_silence_names_publishers_of_another_type():
    source = dataclasses.replace(SOURCE, publishers=0, other_types=('sensor_msgs/msg/CompressedImage',))
    message = image_verdict(source, health(since_image_s=2.0))[1]
    assert '0 publishers, but others of sensor_msgs/msg/CompressedImage: see the parameter image_transport' in message
    source = dataclasses.replace(SOURCE, publishers=0, elsewhere='/camera/image/compressed')
    message = image_verdict(source, health(since_image_s=2.0))[1]
    assert '0 publishers, but others of /camera/image/compressed: see the parameter image_transport' in message


def test_simulated_time_that_never_comes_is_named():
    source = dataclasses.replace(SOURCE, is_without_clock=True)
    assert image_verdict(source, health()) == (
        WARN, '15.0 images/s on /camera/image, but use_sim_time is set and nothing publishes /clock')  # fmt: skip


def status(level, message='bad', name='node: images'):
    return DiagnosticStatus(level=level, name=name, message=message)


def test_the_log_has_what_becomes_worse_and_sometimes_what_stays_bad():
    alarms = Alarms()
    levels = [(0, OK), (1, WARN), (2, WARN), (7, ERROR), (8, ERROR), (9, WARN), (70, WARN), (71, OK), (72, WARN),
              (80, OK), (81, ERROR)]  # fmt: skip
    told = [now_s for now_s, level in levels if alarms.news([status(level)], float(now_s))]
    assert told == [1, 7, 70, 81]
    assert alarms.news([status(ERROR, name='node: machine')], 72.0)
    said = [(90, 'slow: 3 images/s'), (97, 'slow: 12 images/s'), (98, 'no clock'), (104, 'slow: 3 images/s')]
    assert [now_s for now_s, text in said if alarms.news([status(WARN, text)], float(now_s))] == [90, 98]
    for elsewhere in ('bad frame: short', 'segmentation failed: x', 'unconfigured: on_configure failed: x'):
        assert not alarms.news([status(ERROR, elsewhere, 'node: other')], 200.0)


def test_segmentation_verdict():
    assert segmentation_verdict(health()) == (OK, 'no image segmented yet')
    done = health(segmented=5, fps_out=9.5, latency_ms={'total': (50.0, 80.0)})
    assert segmentation_verdict(done) == (OK, '9.5 masks/s, 50.0 ms')
    failed = dataclasses.replace(done, failure='RuntimeError: no memory')
    assert segmentation_verdict(failed) == (ERROR, 'segmentation failed: RuntimeError: no memory')


def test_model_verdict():
    assert model_verdict(ModelState('unconfigured')) == (OK, 'unconfigured')
    assert model_verdict(ModelState('unconfigured', 'no such file'))[0] == ERROR
    runs_on = {'backend': 'pytorch', 'precision': 'float32', 'device': 'cpu'}
    loaded = ModelState('active', name='tiny', variant='cts', **runs_on)
    assert model_verdict(dataclasses.replace(loaded, at_work_s=12.4)) == (ERROR, (
        'active: the backend hangs, an image has been at work for 12 s; deactivate, or start the process anew'))
    assert model_verdict(loaded) == (OK, 'active: tiny, cts, pytorch in float32 on cpu')


def test_statuses_are_named_after_node_and_task_and_carry_the_numbers():
    full = health(segmented=5, tokens=TOKENS, latency_ms={'inference': (40.0, 41.256)}, failure='x')
    state = NodeState(ModelState('active'), cameras=[CameraState('', SOURCE, full)])
    statuses = node_statuses(state, {}, 'segmentation_node', 'robot:cpu')[:-1]
    assert [status.name for status in statuses] == [
        f'segmentation_node: {task}' for task in ('model', 'images', 'segmentation', 'tokens')
    ]
    assert all(isinstance(status.level, bytes) and status.hardware_id == 'robot:cpu' for status in statuses)
    _, images, segmentation, tokens = ({item.key: item.value for item in status.values} for status in statuses)
    assert images['dropped'] == '3' and images['fps_in'] == '15.00'
    assert segmentation['inference_p95_ms'] == '41.26'
    assert tokens == {'total': '24', 'merged': '15', 'kept@6': '9', 'kept@8': '5', 'merged_windows': '0'}
    assert statuses[3].message == '24 total -> 15 merged -> 9 kept@6 -> 5 kept@8'


def test_slot_keeps_the_newest_frame_and_counts_the_others():
    slot = FrameSlot()
    assert not slot.put(Frame('closed', 0.0)) and slot.take() is None
    slot.open()
    assert [slot.put(Frame(name, 0.0)) for name in 'abc'] == [True, False, False]
    assert slot.take().message == 'c' and slot.take() is None and slot.dropped == 2
    assert slot.put(Frame('d', 0.0))
    slot.close()
    assert slot.take() is None and slot.dropped == 2
