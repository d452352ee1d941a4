"""Runs the segmentation node as a process of its own, and a client that talks to it over DDS."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, QoSReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from hybrid_seg_ros.ros.play.session import RosSession
from hybrid_seg_ros.ros.qos import reliable_qos

NODE = '/segmentation_node'
IMAGE_HW = (240, 320)
TIMEOUT_S = 10.0
QUICK = {'num_threads': 1, 'backend': 'pytorch', 'device': 'cpu', 'precision': 'float32'}
"""Parameters of a node whose model need not be exported first."""
QUIET_S = 0.5
"""How long it must stay quiet for a test to say that nothing is published."""


class NodeProcess:
    """The node's process; its output goes to a file. `program` is a module, or the path of a script."""

    def __init__(
        self, log: Path, *remaps: str, program: Any = 'hybrid_seg_ros.ros.segmentation_node',
        params_file: Optional[Path] = None, **parameters: Any,
    ) -> None:  # fmt: skip
        self._log = log
        arguments = [argument for remap in remaps for argument in ('-r', remap)]
        arguments += [] if params_file is None else ['--params-file', str(params_file)]
        parameters = {**QUICK, **parameters}
        for name, value in parameters.items():
            arguments += ['-p', f'{name}:={str(value).lower() if isinstance(value, bool) else value}']
        run = [str(program)] if isinstance(program, Path) else ['-m', program]
        command = [sys.executable, *run, '--ros-args', *arguments]
        with log.open('w') as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=Path(__file__).parents[2]
            )

    @property
    def output(self) -> str:
        """Everything that the process wrote so far."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is still there."""
        return self._process.poll() is None

    def wait_for_output(self, text: str) -> None:
        """Wait until the process has written `text`."""
        deadline = time.monotonic() + 3 * TIMEOUT_S
        while text not in self.output:
            if not self.is_running or time.monotonic() > deadline:
                self._process.kill()  # it would answer in place of the next test's node
                raise AssertionError(f'{text!r} not in the output:\n{self.output}')
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal and return the exit status."""
        if self.is_running:
            self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait until the process has ended by itself; return its exit status."""
        try:
            return self._process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise


@contextmanager
def active_node(folder: Path, *remaps: str, **options: Any) -> Iterator[NodeProcess]:
    """Start a node with its log in `folder`, and end it in order; options are those of NodeProcess."""
    node = NodeProcess(folder / 'node.log', *remaps, 'image:=/camera/image', **options)  # the first rule wins
    try:
        node.wait_for_output('waiting for images')
        yield node
        assert node.stop() == 0, node.output
        assert 'Traceback' not in node.output
    finally:
        node.stop(signal.SIGKILL)


class Client(RosSession):
    """Publishes images, collects what the node publishes, calls its services."""

    def __init__(self, image_topic: str = '/camera/image', compressed: bool = False, node: str = NODE) -> None:
        """`node` is the one to talk to."""
        super().__init__('test_client')
        self._name = node
        self.received: dict[str, list[Any]] = {}
        self.messages_sent = 0
        self._service_clients: dict[str, Any] = {}
        self._image_type, self._image_topic = CompressedImage if compressed else Image, image_topic
        self._image_publisher: Any = None
        self.offer(qos_profile_sensor_data)
        self.listen('/diagnostics', DiagnosticArray)

    def offer(self, qos: QoSProfile) -> None:
        """Publish images with this profile from now on."""
        if self._image_publisher is not None:
            self.node.destroy_publisher(self._image_publisher)
        self._image_publisher = self.node.create_publisher(self._image_type, self._image_topic, qos)

    def wait_for_subscription(self, reliability: QoSReliabilityPolicy) -> None:
        """Wait until the node asks for this reliability of images, alone, and is matched."""

        def is_matched() -> bool:
            asked = self.node.get_subscriptions_info_by_topic(self._image_topic)
            is_asked = [info.qos_profile.reliability for info in asked] == [reliability]
            return is_asked and self._image_publisher.get_subscription_count() == 1

        self.wait(is_matched, f'the node to ask for {reliability.name}')

    def listen(self, topic: str, message_type: type, qos: Any = None) -> list[Any]:
        """Collect the messages of a topic, `~/` being the node's, from now on, in the list that is returned."""
        if topic in self.received:
            return self.received[topic]
        name = topic.replace('~', self._name)
        messages = self.received[topic] = []
        self.node.create_subscription(message_type, name, messages.append, qos or reliable_qos(50))
        assert self.spin_until(lambda: self.node.count_publishers(name) > 0 or topic == '/diagnostics', TIMEOUT_S)
        return messages

    def forget(self) -> None:
        """Forget what was received; go on listening."""
        for messages in self.received.values():
            messages.clear()

    def wait(self, condition: Callable[[], Any], what: str) -> None:
        """Run callbacks until `condition()`, fail after a while."""
        assert self.spin_until(condition, TIMEOUT_S), f'waited in vain for {what}'

    def wait_for_node(self) -> None:
        """Wait until the node listens to the image topic."""
        self.wait(lambda: self._image_publisher.get_subscription_count() > 0, 'the node to subscribe')

    def add_camera(self, topic: str) -> Any:
        """Return a publisher of images, once the node listens to it."""
        publisher = self.node.create_publisher(Image, topic, qos_profile_sensor_data)
        self.wait(lambda: publisher.get_subscription_count() > 0, f'the node to subscribe to {topic}')
        return publisher

    def send(self, message: Any) -> tuple[int, int]:
        """Publish an image with a stamp of its own; return the stamp."""
        self.messages_sent += 1
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.time_ns(), 1_000_000_000)
        message.header.frame_id = 'camera_optical_frame'
        self._image_publisher.publish(message)
        return stamp_of(message)

    def ask(self, topic: str, image: Optional[Any] = None) -> tuple[int, int]:
        """Publish an image until a message of its stamp comes on `topic`; return the stamp.

        Best effort may lose an image, and pictures are drawn only for subscribers that have been discovered.
        """
        image = street() if image is None else image
        stamp = self.send(image)

        def is_answered() -> bool:
            if self.spin_until(lambda: any(stamp_of(m) == stamp for m in self.received[topic]), timeout_s=0.5):
                return True
            self._image_publisher.publish(image)
            return False

        self.wait(is_answered, f'an answer on {topic}')
        return stamp

    def answer(self, topic: str, stamp: tuple[int, int]) -> Any:
        """Wait for the message with this stamp on a topic that is listened to."""
        found: list[Any] = []

        def is_there() -> bool:
            found[:] = [message for message in self.received[topic] if stamp_of(message) == stamp]
            return bool(found)

        self.wait(is_there, f'a message with stamp {stamp} on {topic}')
        return found[0]

    def statuses(self) -> list[DiagnosticStatus]:
        """Return what /diagnostics said since it was last forgotten."""
        return [status for array in self.received['/diagnostics'] for status in array.status]

    def status(self, task: str, condition: Callable[[DiagnosticStatus], Any]) -> DiagnosticStatus:
        """Wait for a diagnostic status of the task that meets `condition`."""
        found: list[DiagnosticStatus] = []

        def is_there() -> bool:
            found.extend(s for s in self.statuses() if s.name == f'{self._name[1:]}: {task}' and condition(s))
            self.received['/diagnostics'].clear()
            return bool(found)

        self.wait(is_there, f'a diagnostic status on {task}')
        return found[-1]

    def call(self, service_type: type, name: str, request: Any, is_repeatable: bool = True) -> Any:
        """Call a service of the node and return its response.

        The first answer to a client that has just been discovered may get lost, so that a call is repeated if it may.
        """
        if name not in self._service_clients:
            self._service_clients[name] = self.node.create_client(service_type, f'{self._name}/{name}')
        client = self._service_clients[name]
        self.wait(client.service_is_ready, f'service {name}')
        futures = [client.call_async(request)]

        def is_answered() -> bool:
            if self.spin_until(lambda: any(future.done() for future in futures), timeout_s=3.0):
                return True
            if is_repeatable:
                futures.append(client.call_async(request))
            return False

        self.wait(is_answered, f'the response of {name}')
        return next(future for future in futures if future.done()).result()

    def transition(self, label: str) -> bool:
        """Ask for a lifecycle transition; return whether it succeeded."""
        request = ChangeState.Request()
        request.transition.label = label
        return self.call(ChangeState, 'change_state', request, is_repeatable=False).success

    def restart(self, **parameters: Any) -> bool:
        """Clean the node up, set parameters, configure and activate it; return whether it could be."""
        for state, label in (('active', 'deactivate'), ('inactive', 'cleanup')):
            assert self.state() != state or self.transition(label)
        if parameters:
            result = self.set_parameters_atomically(parameters)
            assert result.successful, result.reason
        return self.transition('configure') and self.transition('activate')

    def begin_transition(self, label: str) -> None:
        """Ask for a lifecycle transition and do not wait for it."""
        client = self.node.create_client(ChangeState, f'{self._name}/change_state')
        self.wait(client.service_is_ready, 'the service change_state')
        request = ChangeState.Request()
        request.transition.label = label
        client.call_async(request)

    def state(self) -> str:
        """Return the node's lifecycle state."""
        return self.call(GetState, 'get_state', GetState.Request()).current_state.label

    def set_parameter(self, name: str, value: Any) -> SetParametersResult:
        """Set a parameter as `ros2 param set` does."""
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, 'set_parameters', request).results[0]

    def set_parameters_atomically(self, values: dict[str, Any]) -> SetParametersResult:
        """Set all or none."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        request = SetParametersAtomically.Request(parameters=parameters)
        return self.call(SetParametersAtomically, 'set_parameters_atomically', request).result


@contextmanager
def stopped(process: Any) -> Iterator[None]:
    """Hold a process still."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def stamp_of(message: Any) -> tuple[int, int]:
    """Return (sec, nanosec) of a message's header."""
    return message.header.stamp.sec, message.header.stamp.nanosec


def values_of(status: DiagnosticStatus) -> dict[str, str]:
    """Return a diagnostic status's key-value pairs."""
    return {item.key: item.value for item in status.values}


def picture(height: int = 120, width: int = 160, seed: int = 0) -> np.ndarray:
    """Return a random but smooth RGB picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 20, width // 20, 3), np.uint8)
    return np.kron(coarse, np.ones((20, 20, 1), np.uint8))


def street(seed: int = 0) -> Image:
    """Return an image message of IMAGE_HW."""
    return image_message(picture(*IMAGE_HW, seed), 'rgb8')


def image_message(pixels: np.ndarray, encoding: str, padding: int = 0, shorten: Optional[int] = None) -> Image:
    """Return an Image of (H, W, C) uint8 pixels, with `padding` bytes after each row, `shorten` bytes cut off."""
    height, width = pixels.shape[:2]
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)), constant_values=77)
    message = Image(height=height, width=width, encoding=encoding, step=rows.shape[1])
    message.data.frombytes(rows.tobytes()[: None if shorten is None else -shorten])
    return message
