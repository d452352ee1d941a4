"""Several cameras, one model: the real node over DDS, in turns and in batches."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from node_harness import NODE, TIMEOUT_S, Client, active_node, stamp_of, street, values_of
from sensor_msgs.msg import Image
from tiny_model import write_lively_model

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.ros.image_decoding import image_to_rgb

TOPICS = {'front': '/front/image_raw', 'rear': '/rear/image'}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return write_lively_model(tmp_path_factory.mktemp('model'))


class Cameras:
    """Publishers of both cameras, and the masks that come for each."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.publishers = {name: client.add_camera(topic) for name, topic in TOPICS.items()}
        self.masks = {name: client.listen(f'~/{name}/mask', Image) for name in TOPICS}

    def send(self, name: str, image: Any, stamp: int) -> tuple[int, int]:
        image.header.stamp.sec, image.header.frame_id = stamp, name
        self.publishers[name].publish(image)
        return stamp, 0

    def ask(self, stamps: dict[str, int], seed: Optional[int] = None) -> dict[str, Image]:
        """Publish an image of each camera named until a mask with its stamp has come for each."""
        found: dict[str, Image] = {}

        def are_there():
            for name, stamp in stamps.items():
                self.send(name, street(len(name) if seed is None else seed), stamp)
            self.client.spin_for(0.2)
            found.update({
                name: mask for name, stamp in stamps.items() for mask in self.masks[name]
                if stamp_of(mask) == (stamp, 0)
            })  # fmt: skip
            return set(found) == set(stamps)

        self.client.wait(are_there, f'masks of {", ".join(stamps)}')
        return found


@pytest.fixture(scope='module')
def node(model, tmp_path_factory):
    """Start a node with both cameras; the second one's topic is remapped."""
    cameras = [f'front:={TOPICS["front"]}', 'rear']
    settings = {'image_timeout_s': 0.5, 'batch_wait_ms': 1000.0}
    with active_node(tmp_path_factory.mktemp('node'), model_path=model, cameras=cameras, **settings) as node:
        for topic in TOPICS.values():
            node.wait_for_output(f'waiting for images on {topic}')
        yield node


@pytest.fixture(scope='module', params=['turns', 'batch'])
def cameras(request, node):
    """Configure the node with either schedule."""
    with Client() as client:
        assert client.restart(schedule=request.param)
        yield Cameras(client)


def test_each_camera_has_outputs_of_its_own(cameras):
    masks = cameras.ask({'front': 1, 'rear': 2})
    for name, mask in masks.items():
        assert mask.header.frame_id == name
        for output in ('confidence', 'overlay', 'token_usage', 'fps', 'mask/compressed'):
            assert cameras.client.node.count_publishers(f'{NODE}/{name}/{output}') == 1
    assert cameras.client.node.count_publishers(f'{NODE}/mask') == 0
    assert bytes(masks['front'].data) != bytes(masks['rear'].data)


def test_a_silent_camera_holds_nobody_up_and_is_named(cameras):
    client = cameras.client
    cameras.ask({'front': 10, 'rear': 11})
    status = client.status('rear images', lambda s: 'no image for' in s.message)
    assert status.level != DiagnosticStatus.OK and TOPICS['rear'] in status.message
    answered = set()

    def are_answered():
        """20 frames one after the other, within the time of one wait; a batch that waits takes 20 s."""
        stamp = 20 + len(answered)
        cameras.send('front', street(), stamp)
        client.spin_until(lambda: any(stamp_of(mask)[0] == stamp for mask in cameras.masks['front']), timeout_s=0.5)
        answered.update(stamp_of(mask)[0] for mask in cameras.masks['front'] if stamp_of(mask)[0] >= 20)
        return len(answered) == 20

    assert client.spin_until(are_answered, TIMEOUT_S)
    assert all(stamp_of(mask)[0] < 20 for mask in cameras.masks['rear'])
    fresh = client.status('front images', lambda s: 'images/s' in s.message)
    assert values_of(fresh)['topic'] == TOPICS['front']
    cameras.ask({'front': 40, 'rear': 41})


def test_a_fast_camera_does_not_crowd_out_a_slow_one(cameras):
    cameras.ask({'front': 50, 'rear': 51})
    answered = 0
    for stamp in range(60, 70):
        for _ in range(10):
            cameras.send('front', street(), stamp)
        cameras.send('rear', street(), stamp)
        answered += cameras.client.spin_until(
            lambda stamp=stamp: any(stamp_of(mask)[0] == stamp for mask in cameras.masks['rear']), timeout_s=3.0
        )
    assert answered >= 8  # best effort may lose one


def test_both_schedules_give_the_masks_that_a_single_camera_gets(cameras, model):
    pipeline = load_pipeline(model, 'pytorch', 'cpu', output_size='network')
    for stamp, mask in enumerate(cameras.ask({'front': 80, 'rear': 81}).values()):
        expected = pipeline(image_to_rgb(street(len(mask.header.frame_id)))).labels
        assert bytes(mask.data) == expected.tobytes(), stamp


def test_films_are_apart_and_start_anew_after_a_fault(cameras, model):
    """Each camera has a film of its own; after a gap, a cut, a clock that goes back, the mask is the frame's alone."""
    client, pipeline = cameras.client, load_pipeline(model, 'pytorch', 'cpu', output_size='network')
    assert client.set_parameter('merge_by', 'previous').successful

    def counts(name):
        values = values_of(client.status(f'{name} tokens', lambda status: len(status.values)))
        return {key.removeprefix('chosen by '): int(value) for key, value in values.items() if 'chosen by' in key}

    def check(stamp, seeds):
        masks = {}
        for name, seed in seeds.items():
            cameras.masks[name].clear()  # another test has asked for this stamp
            masks.update(cameras.ask({name: stamp}, seed))
        for name, seed in seeds.items():
            assert bytes(masks[name].data) == pipeline(image_to_rgb(street(seed))).labels.tobytes(), (stamp, name)

    both = {'front': 1, 'rear': 2}
    check(100, both)
    for fault, stamp, seeds in (('gap', 200, both), ('clock went back', 50, both), ('cut', 51, {'front': 3})):
        check(stamp, seeds)
        for name in seeds:
            client.wait(lambda name=name, fault=fault: counts(name).get(f'policy: {fault}'), f'{fault} of {name}')
    assert not counts('rear').get('policy: cut')
    cameras.ask({'rear': 51}, 2)
    client.wait(lambda: counts('rear').get('previous'), 'the frame before to choose for the rear camera')
    assert client.set_parameter('merge_by', 'policy').successful
