"""The segmentation node: a managed (lifecycle) node from camera topics to masks; transitions and frames, no maths."""

from __future__ import annotations

import functools
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Optional

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from hybrid_seg_ros.ros.camera import Camera, check_topics
from hybrid_seg_ros.ros.camera_topics import parse_cameras
from hybrid_seg_ros.ros.frame_worker import STUCK_S, FrameWorker, Stuck
from hybrid_seg_ros.ros.health.diagnostics import ModelState, NodeState
from hybrid_seg_ros.ros.health.reporting import DiagnosticsPublisher, LogForwarder
from hybrid_seg_ros.ros.model_loading import Load, load_configured, load_model
from hybrid_seg_ros.ros.node_parameters import (
    check_parameters,
    declare_parameters,
    read_config,
    read_live_settings,
    unknown_names,
    unused_qos_overrides,
)

_SHUTDOWN_S = 3.0
"""Launch kills a process 10 s after it was told to end."""

_CLOSE_S = 0.5
"""What a backend that is taken to hang is given to come back after all."""

_EXPECTED = (ValueError, OSError, ModuleNotFoundError, Stuck)
"""What a wrong parameter or a missing file raises: the message says it all."""

Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def reported(transition: Transition) -> Transition:
    """Let a transition that raises fail, which rclpy hides: the error is logged, and kept as the node's `failure`.

    Stuck is worse: nothing that the transition left behind can be used, so the node goes through on_error.
    """

    @functools.wraps(transition)
    def wrapper(node: Any, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            result = transition(node, state)
        except Exception as error:  # of any kind: a failed transition must leave a node that can try again
            node.failure = f'{transition.__name__} failed: {error}'
            trace = '' if isinstance(error, _EXPECTED) else f'\n{traceback.format_exc().rstrip()}'
            if isinstance(error, InterruptedError):  # as somebody asked for
                node.get_logger().info(node.failure)
            else:
                node.get_logger().error(f'{node.failure}{trace}')
            return TransitionCallbackReturn.ERROR if isinstance(error, Stuck) else TransitionCallbackReturn.FAILURE
        if transition.__name__ != 'on_error':  # which follows a failure
            node.failure = ''
        node.get_logger().info(f'{transition.__name__[3:]}: {node.lifecycle}')
        return result

    return wrapper


class SegmentationNode(LifecycleNode):
    """Subscribes to images and publishes masks and what goes with them; see docs/node.md for topics and parameters.

    `stop` is set from outside to end the process, and by the node itself where `exit_status` says why it should end.
    """

    def __init__(
        self, load: Load = load_configured, stop: Optional[threading.Event] = None, **node_options: Any
    ) -> None:
        """`load` makes the pipeline of a configuration."""
        super().__init__('segmentation_node', **node_options)
        self.failure = ''
        self.stop = stop or threading.Event()
        self.exit_status = 0
        self.has_lost_threads = False
        self._longest_failure = 0
        self.lifecycle = 'unconfigured'
        self._load = load
        self.worker: Optional[FrameWorker] = None
        self.cameras: list[Camera] = []
        self._log_forwarder = LogForwarder(self.get_logger())
        self._log_forwarder.attach()
        self._diagnostics = DiagnosticsPublisher(self, self._state)
        declare_parameters(self)
        unknown = unknown_names(self)
        if unknown:
            self.get_logger().warning(f'parameters that this node does not have: {", ".join(unknown)}')
        self.add_on_set_parameters_callback(self._check_parameters)
        self._watch_timer = self.create_timer(1.0, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._enable_service = self.create_service(SetBool, '~/enable', self._enable)

    def autostart(self) -> None:
        """Configure and activate, if the parameter `autostart` says so; a failure leaves the node as it is."""
        if self.get_parameter('autostart').value and not self.stop.is_set():
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()

    def finalize(self) -> None:
        """Go through the shutdown transition, unless somebody else saw to that."""
        if self.lifecycle != 'finalized':
            try:
                self.trigger_shutdown()
            except rclpy_implementation.RCLError as error:
                self.get_logger().error(f'shutdown: {error}')

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up the model, create the publishers. Diagnostics go on meanwhile."""
        self.lifecycle = 'configuring'
        try:
            config = read_config(self)
            topics = parse_cameras(config.cameras)
            self.worker = FrameWorker(
                self, lambda: load_model(config, self._load), len(topics) if config.schedule == 'batch' else 1,
                config.batch_wait_ms / 1e3, self._while_loading, self._failed,
            )  # fmt: skip
            pipeline = self.worker.pipeline
            self.cameras = [
                Camera(self, config, topic, pipeline.spec.classes, self.worker.request) for topic in topics
            ]
            check_topics(self.cameras)
            self.worker.cameras = self.cameras
            self._longest_failure = config.exit_after_failures
        except BaseException:
            self._release(STUCK_S)
            self.lifecycle = 'unconfigured'
            raise
        self.get_logger().info(
            f'loaded {pipeline.spec.name}: {self.worker.point.point}, {pipeline.backend_name} {pipeline.precision} on '
            f'{pipeline.device_name}, classes {", ".join(pipeline.spec.classes.names)}'
        )
        self.lifecycle = 'inactive'
        return super().on_configure(state)

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let images in."""
        super().on_activate(state)
        try:
            for camera in self.cameras:
                camera.publishers.publish_label_info()
                camera.start()
                self.get_logger().info(f'waiting for images on {camera.topic}')
        except Exception:
            self._stop(state, STUCK_S)
            raise
        unused = unused_qos_overrides(self)
        if unused:
            self.get_logger().warning(f'qos_overrides that no topic of this node takes: {", ".join(unused)}')
        self.lifecycle = 'active'
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let no more images in, and finish the one at work: nothing is published afterwards."""
        self._stop(state, STUCK_S)
        self.lifecycle = 'inactive'
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and destroy the publishers."""
        self._release(STUCK_S)
        self.lifecycle = 'unconfigured'
        return super().on_cleanup(state)

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything, from whatever state."""
        try:
            self._stop(state, _SHUTDOWN_S)
            self._release(_SHUTDOWN_S)
        except Stuck as error:
            self.get_logger().error(str(error))
            self._release(_CLOSE_S)
        self.lifecycle = 'finalized'
        return super().on_shutdown(state)

    @reported
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured with everything freed but what hangs."""
        super().on_deactivate(state)
        self._release(_CLOSE_S)
        self.lifecycle = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Free everything, in whatever state the node is."""
        self._log_forwarder.detach()
        self._diagnostics.destroy()
        self._release(STUCK_S)
        super().destroy_node()

    def _stop(self, state: LifecycleState, timeout_s: float) -> None:
        for camera in self.cameras:
            camera.stop()
        if self.worker is not None:
            self.worker.wake()
            self.worker.finish(timeout_s)
        super().on_deactivate(state)

    def _release(self, timeout_s: float) -> None:
        """Undo on_configure, as far as it came; what hangs is left behind, and publishes nothing any more."""
        cameras, self.cameras = self.cameras, []
        worker, self.worker = self.worker, None
        for camera in cameras:
            camera.stop()
        try:
            if worker is not None and not worker.close(timeout_s):
                self.has_lost_threads = True  # a preparation that takes minutes; it ends by itself
        except Stuck as error:
            self.has_lost_threads = True
            self.get_logger().error(f'{error}; its memory stays in use until this process ends')
        finally:
            for camera in cameras:
                camera.destroy()

    def _while_loading(self) -> None:
        self._diagnostics.publish_if_due()
        if self.stop.is_set():
            self.has_lost_threads = True
            raise InterruptedError('told to stop while the model was being loaded')

    def _failed(self, in_a_row: int) -> None:
        if 0 < self._longest_failure <= in_a_row:
            self._give_up(f'{in_a_row} images in a row could not be segmented')

    def _watch(self) -> None:
        """Once a second: let live parameters take effect although no image comes, and notice a backend that hangs."""
        worker = self.worker
        if worker is None:
            return
        if self._longest_failure > 0 and worker.seconds_at_work(time.monotonic()) > STUCK_S:
            self._give_up('the backend hangs')
        worker.follow()

    def _give_up(self, reason: str) -> None:
        if not self.stop.is_set():
            self.get_logger().fatal(f'{reason}: giving up')
            self.exit_status = 1
            self.stop.set()

    def _state(self) -> NodeState:
        """Return what diagnostics say of the node at this moment."""
        if self.worker is None:
            progress = self._log_forwarder.last if self.lifecycle == 'configuring' else ''
            return NodeState(ModelState(self.lifecycle, self.failure, progress))
        at_work_s = self.worker.seconds_at_work(time.monotonic())
        model = ModelState.of(
            self.worker.pipeline, self.lifecycle, self.failure, at_work_s if at_work_s > STUCK_S else 0.0
        )
        is_listening = self.lifecycle == 'active' and read_live_settings(self).enabled
        cameras = tuple(camera.state(is_listening) for camera in self.cameras)
        return NodeState(model, self.worker.point, cameras)

    def _check_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        worker = self.worker
        return check_parameters(parameters, worker is not None, worker.problem if worker else lambda changes: '')

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Answer the service `~/enable`: the same as the parameter `enabled`."""
        result = self.set_parameters([Parameter('enabled', value=request.data)])[0]
        response.success = result.successful
        response.message = result.reason or ('enabled' if read_live_settings(self).enabled else 'disabled')
        return response
