"""The real node, as a process of its own, over DDS: one process for all tests of this file."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from image_encodings import ENCODINGS, EXACT, GREY, encode
from node_harness import IMAGE_HW, QUIET_S, Client, active_node, image_message, picture, stamp_of, street, values_of
from rclpy.qos import QoSReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32, Int32MultiArray
from std_srvs.srv import SetBool
from tiny_model import write_tiny_model

from hybrid_seg_ros.ros.image_decoding import image_to_rgb
from hybrid_seg_ros.ros.qos import reliable_qos

MASK_HW = (96, 128)
IMAGE_TIMEOUT_S = 0.4
ALL_STAGES = 'total,merged,kept@6,kept@8'
BAD_FRAMES = (
    ({'encoding': 'rgb7'}, "unknown encoding 'rgb7'; legal are rgb8, "),
    ({'width': 2**32 - 1, 'height': 2**32 - 1, 'step': 2**32 - 1}, 'pixels, got 4294967295x4294967295'),
    ({'height': 400000}, 'expected 192000000 bytes (step 480 x height 400000), got 57600'),
    ({'data': bytes(57595)}, 'expected 57600 bytes (step 480 x height 120), got 57595'),
    ({'encoding': '32FC1', 'width': 120, 'data': np.full(14400, np.nan, np.float32).tobytes()}, 'got none and 14400'),
)
"""What is changed of an image of 160x120 pixels rgb8, and what the node says of it; test_image_decoding.py has more."""


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp('model'))


@pytest.fixture(scope='module')
def node(model, tmp_path_factory):
    """Start the node; each test leaves it active, with the parameters that it started with."""
    folder = tmp_path_factory.mktemp('node')
    with active_node(folder, model_path=model, image_timeout_s=IMAGE_TIMEOUT_S) as node:
        yield node


@pytest.fixture(scope='module')
def session(node):
    """Make one client for all tests: it takes seconds until a new one is discovered."""
    with Client() as client:
        client.wait_for_node()
        yield client


@pytest.fixture
def client(node, session):
    session.forget()
    yield session
    assert node.is_running, node.output


def test_every_output_carries_the_header_of_the_image(client):
    for name in ('mask', 'confidence', 'overlay', 'color_mask', 'token_map'):
        client.listen(f'~/{name}', Image)
    client.wait(lambda: all(publisher_count(client, name) for name in ('overlay', 'token_map')), 'discovery')
    stamp = client.ask('~/token_map')
    for name, encoding, channels in (
        ('mask', 'mono8', 1), ('confidence', 'mono8', 1),
        ('overlay', 'rgb8', 3), ('color_mask', 'rgb8', 3), ('token_map', 'rgb8', 3),
    ):  # fmt: skip
        message = client.answer(f'~/{name}', stamp)
        assert message.header.frame_id == 'camera_optical_frame'
        assert (message.encoding, message.height, message.width) == (encoding, *MASK_HW), name
        assert (message.step, len(message.data)) == (MASK_HW[1] * channels, MASK_HW[0] * MASK_HW[1] * channels)
        assert message.is_bigendian == 0
    mask = np.frombuffer(client.answer('~/mask', stamp).data, np.uint8)
    assert mask.max() < 11


def test_the_compressed_mask_is_the_mask_as_png(client):
    client.listen('~/mask', Image)
    client.listen('~/mask/compressed', CompressedImage)
    stamp = client.ask('~/mask/compressed')
    mask, compressed = client.answer('~/mask', stamp), client.answer('~/mask/compressed', stamp)
    assert compressed.header == mask.header and compressed.format == 'mono8; png compressed '
    assert len(compressed.data) < len(mask.data) / 4
    decoded = cv2.imdecode(np.frombuffer(compressed.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded.shape == MASK_HW and decoded.tobytes() == mask.data.tobytes()


def test_the_overlay_has_a_legend_where_that_is_wanted(client):
    client.listen('~/overlay', Image)
    pictures = []
    for is_wanted in (False, True, False):
        assert client.set_parameter('overlay_legend', is_wanted).successful
        overlay = client.answer('~/overlay', client.ask('~/overlay'))
        pictures.append(np.frombuffer(overlay.data, np.uint8).reshape(*MASK_HW, 3).astype(int))
    without, with_legend, again = pictures
    assert (without == again).all()
    assert (with_legend[:12, :20].mean() < 0.8 * without[:12, :20].mean()), 'a darkened corner'
    assert (with_legend[-8:] == without[-8:]).all()


def test_mask_and_confidence_are_what_nav2_s_segmentation_layer_takes(client):
    received = {'mask': {}, 'confidence': {}}
    subscriptions = [
        client.node.create_subscription(
            Image,
            f'/segmentation_node/{name}',
            lambda message, kept=kept: kept.update({stamp_of(message): message}),
            qos_profile_sensor_data,
        )
        for name, kept in received.items()
    ]

    def synchronized():  # as an exact TimeSynchronizer does it
        client.send(street())
        client.spin_for(0.05)
        return received['mask'].keys() & received['confidence'].keys()

    client.wait(synchronized, 'a mask and a confidence of one stamp, by best effort')
    stamp = synchronized().pop()
    for kept in received.values():
        message = kept[stamp]
        assert (message.encoding, message.height, message.width) == ('mono8', *MASK_HW)
        assert message.step == message.width and len(message.data) == message.width * message.height
        assert message.header.frame_id == 'camera_optical_frame'
    for subscription in subscriptions:
        client.node.destroy_subscription(subscription)


def test_token_usage_and_fps(client):
    usage, fps = client.listen('~/token_usage', Int32MultiArray), client.listen('~/fps', Float32)
    client.listen('~/mask', Image)
    for _ in range(5):
        client.ask('~/mask')
    client.wait(lambda: usage and fps and fps[-1].data > 0, 'token usage and FPS')
    axis = usage[-1].layout.dim[0]
    counts = dict(zip(axis.label.split(','), usage[-1].data))
    assert axis.label == ALL_STAGES and axis.size == 4
    assert counts['total'] == 48 and counts['total'] > counts['merged'] >= counts['kept@6'] >= counts['kept@8']


def test_camera_info_is_scaled_to_the_mask(client):
    client.listen('~/mask', Image)
    client.listen('~/camera_info', CameraInfo)
    publisher = client.node.create_publisher(CameraInfo, '/camera/camera_info', qos_profile_sensor_data)
    client.wait(lambda: publisher.get_subscription_count() > 0, 'the node to subscribe to camera_info')
    info = CameraInfo(height=IMAGE_HW[0], width=IMAGE_HW[1], k=[300.0, 0, 160, 0, 300, 120, 0, 0, 1])

    def comes():
        publisher.publish(info)
        client.send(street())
        client.spin_for(0.05)
        return client.received['~/camera_info']

    client.wait(comes, 'camera_info')
    scaled = client.received['~/camera_info'][-1]
    assert scaled.header.frame_id == 'camera_optical_frame'
    assert (scaled.height, scaled.width) == MASK_HW
    assert (scaled.k[0], scaled.k[2], scaled.k[4]) == pytest.approx((300 * 0.4, 160 * 0.4, 300 * 0.4))

    stamp = client.ask('~/mask', image_message(picture(60, 80), 'rgb8'))  # a mask of the same size
    same = client.answer('~/camera_info', stamp)
    assert (same.height, same.width, list(same.k)) == (info.height, info.width, list(info.k))
    client.node.destroy_publisher(publisher)


def test_every_encoding_is_answered_with_the_mask_of_the_picture(client):
    client.listen('~/mask', Image)
    rgb = picture(120, 160, seed=3)  # in any encoding below the 512 KB that arrive for sure

    def mask_of(message):
        return np.frombuffer(client.answer('~/mask', client.ask('~/mask', message)).data, np.uint8)

    color, grey = (mask_of(encode(pixels, 'rgb8')) for pixels in (rgb, np.dstack([rgb[..., 1]] * 3)))
    assert (color != grey).mean() > 0.05
    for encoding in ENCODINGS:
        message = encode(rgb, encoding, padding=8, big_endian='16' in encoding)
        if encoding in EXACT + GREY:
            expected = grey if encoding in GREY else color
        else:  # a hint of another colour may change the mask: that of the picture as it was decoded
            expected = mask_of(encode(image_to_rgb(message), 'rgb8'))
        assert (mask_of(message) == expected).all(), encoding


def test_the_subscription_follows_what_the_camera_offers(node, client):
    """An image of 640x480 is larger than Fast DDS's shared memory: by best effort hardly any arrives."""
    client.listen('~/mask', Image)
    image = image_message(picture(480, 640), 'rgb8')
    client.offer(reliable_qos(5))
    for transitions in ((), ('deactivate', 'activate'), ('deactivate', 'cleanup', 'configure', 'activate')):
        assert all(client.transition(label) for label in transitions)
        client.wait_for_subscription(QoSReliabilityPolicy.RELIABLE)
        for _ in range(5):
            client.answer('~/mask', client.send(image))
    client.offer(qos_profile_sensor_data)
    client.wait_for_subscription(QoSReliabilityPolicy.BEST_EFFORT)
    client.ask('~/mask')
    assert 'incompatible QoS' not in node.output


def test_a_film_says_who_chose_the_windows_and_why(client):
    """The frame before chooses while it can be trusted; every frame is answered with a mask of its own."""
    client.listen('~/mask', Image)
    assert client.set_parameter('merge_by', 'previous').successful

    def count(key):
        values = values_of(client.status('tokens', lambda status: len(status.values)))
        return int(values.get(f'chosen by {key}', 0))

    for _ in range(3):
        client.ask('~/mask')
    client.wait(lambda: count('previous') >= 2, 'windows chosen by the frame before')
    client.ask('~/mask', image_message(picture(60, 80), 'rgb8'))
    client.wait(lambda: count('policy: another size') >= 1, 'a size that is not trusted')
    for seed in (5, 6):
        client.ask('~/mask', image_message(picture(60, 80, seed), 'rgb8'))
    client.wait(lambda: count('policy: cut') >= 1, 'a cut')
    assert client.set_parameter('merge_by', 'policy').successful


def test_sizes_may_change_in_mid_stream(client):
    client.listen('~/mask', Image)
    for height, width, mask_hw in ((240, 320, (96, 128)), (200, 400, (64, 128)), (60, 80, (60, 80))):
        stamp = client.ask('~/mask', image_message(picture(height, width), 'rgb8'))
        mask = client.answer('~/mask', stamp)
        assert (mask.height, mask.width) == mask_hw


def test_diagnostics(client):
    client.listen('~/mask', Image)
    for _ in range(3):
        client.ask('~/mask')
    model = client.status('model', lambda status: status.message.startswith('active'))
    assert model.level == DiagnosticStatus.OK and model.hardware_id.endswith(':cpu')
    assert values_of(model) == {
        'lifecycle_state': 'active', 'model': 'tiny', 'variant': 'hybrid@6+8', 'keep': 'by threshold',
        'threshold': '0.30', 'backend': 'pytorch', 'device': 'cpu', 'precision': 'float32',
    }  # fmt: skip
    segmentation = values_of(client.status('segmentation', lambda status: float(values_of(status)['fps_out']) > 0))
    for step in ('convert', 'preprocess', 'inference', 'postprocess', 'total'):
        assert 0 <= float(segmentation[f'{step}_p50_ms']) <= float(segmentation[f'{step}_p95_ms'])
    tokens = values_of(client.status('tokens', lambda status: len(status.values)))
    assert list(tokens)[:6] == [*ALL_STAGES.split(','), 'merged_windows', 'merged_2x2']
    images = values_of(client.status('images', lambda status: True))
    assert {'fps_in', 'dropped', 'bad_frames', 'seconds_since_last_image'} <= set(images)


def test_silence_is_reported_with_the_topic(client):
    infos = client.node.create_publisher(CameraInfo, '/camera/camera_info', qos_profile_sensor_data)
    client.wait(lambda: infos.get_subscription_count() > 0, 'the node to subscribe to camera_info')
    send_until_received(client, lambda: infos.publish(CameraInfo()))
    client.wait(lambda: any('no image for' in s.message for s in client.statuses()), 'a warning')
    assert not [s.message for s in client.statuses() if 'camera_info comes' in s.message], 'its camera froze'
    client.node.destroy_publisher(infos)
    warning = client.status('images', lambda status: status.level == DiagnosticStatus.WARN)
    assert 'no image for' in warning.message and '/camera/image' in warning.message
    error = client.status('images', lambda status: status.level == DiagnosticStatus.ERROR)
    assert '1 publisher' in error.message
    send_until_received(client)


def test_a_flood_keeps_the_newest_frame_and_counts_the_others(client):
    client.listen('~/mask', Image)
    client.ask('~/mask')
    before = int(values_of(client.status('images', lambda status: True))['dropped'])
    for seed in range(40):
        last = client.send(street(seed))
    client.answer('~/mask', last)
    client.status('images', lambda status: int(values_of(status)['dropped']) > before)


def test_bad_frames_are_reported_and_the_next_one_segmented(node, client):
    client.listen('~/mask', Image)
    client.ask('~/mask')
    start_s, lines = time.monotonic(), node.output.count('bad frame on')
    for fields, problem in BAD_FRAMES:
        message = encode(picture(), 'rgb8')
        for name, value in fields.items():
            setattr(message, name, value)

        def is_reported(message=message, problem=problem):
            client.send(message)
            client.spin_for(0.05)
            return any(problem in s.message and s.level == DiagnosticStatus.WARN for s in client.statuses())

        client.wait(is_reported, f'a warning that says {problem!r}')
        client.ask('~/mask')
    lines, passed_s = node.output.count('bad frame on') - lines, time.monotonic() - start_s
    assert 1 <= lines <= 1 + passed_s / 5, f'{lines} lines in {passed_s:.1f} s'


def test_live_parameters_take_effect_at_the_next_frame(client):
    usage = client.listen('~/token_usage', Int32MultiArray)
    client.listen('~/mask', Image)
    for variant, label in (('dense', 'total,merged'), ('dtop@8', 'total,merged,kept@8'), ('', ALL_STAGES)):
        assert client.set_parameter('variant', variant).successful
        usage.clear()
        client.ask('~/mask')
        client.wait(lambda: usage, 'token usage')
        assert usage[-1].layout.dim[0].label == label
    assert client.set_parameter('keep', 0.5).successful
    usage.clear()
    client.ask('~/mask')
    client.wait(lambda: usage, 'token usage')
    counts = usage[-1].data
    assert counts[2] == pytest.approx(counts[1] / 2, abs=1)
    assert client.set_parameter('keep', -1.0).successful


@pytest.mark.parametrize(
    ('name', 'value', 'reason'),
    [
        ('variant', 'fast', 'legal are dense, cts, dtop@6+8, dtop@8, hybrid@6+8, hybrid@8'),
        ('variant', 'dtop@7', 'no auxiliary head after layer 7'),
        ('overlay_alpha', 1.5, 'Min: 0.0, Max: 1.0'),
        ('threshold', -0.1, 'Min: 0.0, Max: 1.0'),
        ('keep', 2.5, 'a fraction up to 1.0 or a whole count'),
        ('mask_size', 'huge', 'legal are network, image'),
        ('model_path', '/elsewhere.yaml', 'fixed while the node is configured'),
        ('autostart', False, 'read-only'),
    ],
)
def test_a_refused_parameter_names_the_legal_values(client, name, value, reason):
    result = client.set_parameter(name, value)
    assert not result.successful and reason in result.reason


def test_disabled_node_leaves_images_alone(client):
    masks = client.listen('~/mask', Image)
    client.ask('~/mask')
    assert client.set_parameter('enabled', False).successful
    assert is_quiet(client, masks)
    assert client.set_parameter('enabled', True).successful
    client.ask('~/mask')


def test_the_service_enable_does_as_the_parameter(client):
    masks = client.listen('~/mask', Image)
    client.ask('~/mask')
    response = client.call(SetBool, 'enable', SetBool.Request(data=False))
    assert (response.success, response.message) == (True, 'disabled')
    assert is_quiet(client, masks)
    assert client.call(SetBool, 'enable', SetBool.Request(data=True)).message == 'enabled'
    client.ask('~/mask')


def test_lifecycle_and_an_invalid_transition(node, client):
    masks = client.listen('~/mask', Image)
    assert client.state() == 'active'
    assert not client.transition('configure')
    assert client.state() == 'active'
    client.ask('~/mask')

    for seed in range(20):  # so that a frame is in flight
        client.send(street(seed))
    assert client.transition('deactivate')
    assert is_quiet(client, masks)
    assert client.transition('activate')
    client.ask('~/mask')

    assert client.transition('deactivate') and client.transition('cleanup')
    assert client.state() == 'unconfigured'
    client.wait(lambda: publisher_count(client, 'mask') == 0, 'the mask topic to go')
    assert client.set_parameter('mask_size', 'image').successful
    assert client.transition('configure') and client.transition('activate')
    stamp = client.ask('~/mask')
    mask = client.answer('~/mask', stamp)
    assert (mask.height, mask.width) == IMAGE_HW
    for line in ('activate: active', 'deactivate: inactive', 'cleanup: unconfigured', 'configure: inactive'):
        assert line in node.output

    assert client.transition('deactivate') and client.transition('cleanup')
    assert client.set_parameter('mask_size', 'network').successful
    assert client.transition('configure') and client.transition('activate')


def publisher_count(client, name):
    return client.node.count_publishers(f'/segmentation_node/{name}')


def send_until_received(client, also=lambda: None):
    client.forget()

    def is_received():
        client.send(street())
        also()
        client.spin_for(0.1)
        return any('images/s' in s.message for s in client.statuses() if s.name.endswith('images'))

    client.wait(is_received, 'images to be received')


def is_quiet(client, messages):
    """Send images for a while; return whether nothing was published for them."""
    client.spin_for(0.1)  # what was published before may still arrive
    messages.clear()
    return not client.spin_until(lambda: client.send(street()) and messages, QUIET_S)
