"""The real node, as a process of its own, over DDS: how it starts, and what it says where something does not fit.

What is read when the node is configured is tried on one process, which each test configures anew.
"""

from __future__ import annotations

import signal

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from node_harness import IMAGE_HW, NODE, Client, active_node, image_message, picture, values_of
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Int32MultiArray
from tiny_model import write_tiny_model

from hybrid_seg_ros.export.export_onnx import export_model
from hybrid_seg_ros.model_spec import ModelSpec, TokenBudget, Variant

PLAIN = {
    'backend': 'pytorch', 'engine_path': '', 'cameras': [''], 'image_transport': 'raw', 'image_reliability': 'auto',
    'image_timeout_s': 1.0, 'expected_fps': 0.0,
}  # fmt: skip


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp('model'))


@pytest.fixture(scope='module')
def node(model, tmp_path_factory):
    """Start one node for all tests that configure it anew."""
    with active_node(tmp_path_factory.mktemp('node'), model_path=model) as node:
        yield node


@pytest.mark.parametrize(
    ('parameters', 'problem'),
    [
        ({'cameras': 'front'}, "'cameras' to 'front' of type 'STRING', expecting type 'STRING_ARRAY'"),
        ({'num_threads': -1}, 'out of range'),
        ({'cameras': '[front:=/x'}, "Couldn't parse parameter override rule"),
    ],
)
def test_start_values_that_cannot_be_are_refused_in_a_line(start_node, parameters, problem):
    node = start_node(**parameters)
    assert node.wait() == 1
    assert problem in node.output and 'Traceback' not in node.output


def test_the_events_executor_does_the_same(start_node, model):
    pytest.importorskip('rclpy.experimental.events_executor', reason='rclpy of Humble has none')
    node = start_node(model_path=model, executor='events')
    node.wait_for_output('waiting for images')
    with Client() as client:
        client.wait_for_node()
        client.listen('~/mask', Image)
        client.ask('~/mask')
        client.status('segmentation', lambda s: 'masks/s' in s.message)
        assert not client.set_parameter('executor', 'single').successful
        assert client.set_parameter('variant', 'dense').successful
        assert client.transition('deactivate') and client.transition('activate')
        client.wait_for_node()
        client.ask('~/mask')
        assert not client.transition('configure')
    assert node.stop(signal.SIGINT) == 0, node.output
    assert 'Traceback' not in node.output


def test_compressed_images_and_broken_ones(node):
    with Client('/camera/image/compressed', compressed=True) as client:
        assert client.restart(**{**PLAIN, 'image_transport': 'compressed'})
        client.wait_for_node()
        client.listen('~/mask', Image)
        bgr = picture(*IMAGE_HW)
        grey, bgra, wide = bgr[..., 0], np.dstack([bgr, bgr])[..., :4], bgr.astype(np.uint16) * 257
        for kind, pixels in (
            ('.jpg', bgr), ('.jpg', grey), ('.png', bgr), ('.png', grey), ('.png', bgra), ('.png', wide),
            ('.png', wide[..., 0]),
        ):  # fmt: skip
            stamp = client.ask('~/mask', compressed_message(kind, pixels))
            assert client.answer('~/mask', stamp).header.frame_id == 'camera_optical_frame'
        for message, problem in (
            (compressed_message('.jpg', bgr, cut=100), 'bytes that start with ff d8'),
            (compressed_message('.png', bgr, cut=100), 'bytes that start with 89 50'),
            (compressed_message('.png', grey, '16UC1; compressedDepth png'), 'got a depth image'),
            (CompressedImage(format='h264'), "(format 'h264')"),
        ):
            client.send(message)
            status = client.status('images', lambda s, problem=problem: problem in s.message)
            assert status.level == DiagnosticStatus.WARN
            client.ask('~/mask', compressed_message('.jpg', bgr))
        assert 1 <= node.output.count('bad frame on') <= 2, 'throttled'
        stray, data = CompressedImage(format='jpeg'), cv2.imencode('.jpg', bgr)[1].tobytes()
        stray.data.frombytes(data[:-2] + b'stray bytes' + data[-2:])
        for _ in range(3):
            client.ask('~/mask', stray)
        client.status('images', lambda s: int(values_of(s)['decoder_complaints']) >= 3)
        assert node.output.count('extraneous bytes before marker') == 1


def test_an_exported_graph_is_run_as_it_was_exported(node, model, tmp_path):
    graph = tmp_path / 'robot.onnx'
    export_model(ModelSpec.load(model), Variant.parse('hybrid@8'), TokenBudget(keep=0.5), graph, outputs='scores')
    with Client() as client:
        assert client.restart(**{**PLAIN, 'backend': 'onnxruntime', 'engine_path': str(graph)})
        node.wait_for_output('loaded tiny: hybrid@8 keep 16 merged 5, onnxruntime float32 on cpu')
        client.wait_for_node()
        client.listen('~/mask', Image)
        usage = client.listen('~/token_usage', Int32MultiArray)
        client.ask('~/mask')
        client.wait(lambda: usage, 'token usage')
        assert list(usage[-1].data) == [48, 33, 16]
        refused = client.set_parameter('variant', 'dense')
        assert not refused.successful and 'was exported for variant hybrid@8, expected dense' in refused.reason
        refused = client.set_parameter('keep', 0.3)
        assert not refused.successful and 'was exported for kept' in refused.reason
        assert client.set_parameter('keep', 0.5).successful and client.set_parameter('keep', -1.0).successful
        assert not client.set_parameter('engine_path', '').successful
        client.ask('~/mask')


def test_a_subscriber_of_incompatible_qos_is_told(node):
    with Client() as client:
        assert client.restart(**PLAIN)
        qos = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        client.listen('~/mask', Image, qos)
        status = client.status('segmentation', lambda s: s.level == DiagnosticStatus.WARN)
        assert status.message == (
            'a subscriber of ~/mask asks for an incompatible QoS (DURABILITY) and receives nothing; change it there'
        )
        node.wait_for_output('a subscriber of ~/mask asks for')


def test_incompatible_qos_is_an_error_that_says_what_to_change(node):
    with Client() as client:  # whose camera publishes best effort
        assert client.restart(**{**PLAIN, 'image_reliability': 'reliable'})
        status = client.status('images', lambda s: s.level == DiagnosticStatus.ERROR and 'QoS' in s.message)
        assert 'RELIABILITY' in status.message and 'image_reliability' in status.message
        node.wait_for_output('incompatible QoS')


def test_images_that_get_lost_are_missed_and_the_likely_cause_is_named(node):
    """Images of 2.8 MB, best effort, through the default 512 KB of shared memory: hardly any arrives."""
    with Client() as client:
        assert client.restart(**PLAIN)
        client.wait_for_node()
        infos = client.node.create_publisher(CameraInfo, '/camera/camera_info', qos_profile_sensor_data)
        image = image_message(picture(720, 1280), 'rgb8')

        def is_missed():
            for _ in range(10):
                infos.publish(CameraInfo())
                client.send(image)
                client.spin_for(0.03)
            return any(s.level != DiagnosticStatus.OK and 'fastdds_shm.xml' in s.message for s in client.statuses())

        client.wait(is_missed, 'a warning that names config/fastdds_shm.xml')


def test_fewer_images_than_expected_are_a_warning(node):
    with Client() as client:
        assert client.restart(**{**PLAIN, 'expected_fps': 1000.0})
        client.wait_for_node()

        def is_missed():
            for _ in range(10):
                client.send(image_message(picture(), 'rgb8'))
                client.spin_for(0.03)
            slow = 'of 1000.0 published: the network or the processor is too slow'
            return any(slow in status.message for status in client.statuses())

        client.wait(is_missed, 'a warning on the rate')


@pytest.mark.parametrize(
    ('published', 'parameters', 'task', 'others'),
    [
        ('/camera/image', {}, 'images', 'sensor_msgs/msg/CompressedImage'),
        ('/camera/image/compressed', {}, 'images', '/camera/image/compressed'),
        ('/camera/image/compressed', {'image_transport': 'compressed', 'cameras': ['front:=/camera/image/compressed']},
         'front images', '/camera/image/compressed'),
    ],
)  # fmt: skip
def test_an_image_of_another_type_or_that_is_published_elsewhere_is_named(node, published, parameters, task, others):
    with Client(published, compressed=True) as client:
        assert client.restart(**{**PLAIN, 'image_timeout_s': 0.2, **parameters})
        status = client.status(task, lambda s: 'but others of' in s.message)
        assert f'(0 publishers, but others of {others}: see the parameter image_transport)' in status.message
        assert 'no image for' in status.message
        node.wait_for_output(f'{task}: no image for')


def test_cameras_whose_topics_resolve_to_one_are_refused(node):
    with Client() as client:
        assert not client.restart(**{**PLAIN, 'cameras': ['a:=/x', 'b:=x']})
        node.wait_for_output('cameras: expected a topic of its own for each, got /x for a, b')
        assert client.state() == 'unconfigured'


def test_what_the_node_does_not_take_is_told_and_a_remapped_mask_takes_its_png_along(start_node, model, tmp_path):
    others = tmp_path / 'others.yaml'
    others.write_text('another_node:\n  ros__parameters:\n    keep: 0.5\n')
    overrides = {f'qos_overrides./camera/{name}.subscription.depth': 3 for name in ('image', 'imgae')}
    reliability = 'qos_overrides./camera/image.subscription.reliability'
    overrides[reliability] = 'reliable'
    node = start_node(
        '~/mask:=/robot/mask', params_file=others, model_path=model, treshold=0.7, foo=1, **overrides
    )
    node.wait_for_output('waiting for images')
    for warning in (
        'parameters that this node does not have: ', 'treshold (did you mean threshold?)', 'foo',
        'others.yaml: expected a section /** or /segmentation_node, has none',
        'qos_overrides that no topic of this node takes: qos_overrides./camera/imgae.subscription.depth\n',
    ):  # fmt: skip
        node.wait_for_output(warning)
    with Client() as client:
        count = client.node.count_publishers
        client.wait(lambda: count('/robot/mask') and count('/robot/mask/compressed'), 'the remapped topics')
        assert not count(f'{NODE}/mask/compressed')
        status = client.status('images', lambda s: s.level == DiagnosticStatus.ERROR and 'QoS' in s.message)
        assert 'RELIABILITY' in status.message and reliability in status.message
    assert node.stop(signal.SIGTERM) == 0, node.output


def test_a_signal_while_libraries_are_loaded_ends_it_quietly(start_node, tmp_path):
    program = tmp_path / 'program.py'
    program.write_text(
        'import sys\n'
        'from hybrid_seg_ros.ros import segmentation_node\n'
        'real = segmentation_node.stop_event\n'
        'segmentation_node.stop_event = lambda: (real(), print("begins", flush=True))[0]\n'
        'sys.exit(segmentation_node.main())\n'
    )
    node = start_node(program=program)
    node.wait_for_output('begins')
    assert node.stop(signal.SIGINT) == 0 and node.output == 'begins\n'


def compressed_message(kind, pixels, image_format='', cut=0):
    data = cv2.imencode(kind, pixels)[1].tobytes()
    message = CompressedImage(format=image_format or kind[1:])
    message.data.frombytes(data[: len(data) - cut])
    return message
