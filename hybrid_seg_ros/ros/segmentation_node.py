"""The segmentation node: a managed (lifecycle) node from a camera topic to masks; transitions and frames, no maths."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Optional

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from hybrid_seg_ros.inference import SegmentationPipeline, load_pipeline
from hybrid_seg_ros.inference.process_memory import keep_freed_memory
from hybrid_seg_ros.ros.camera import Camera
from hybrid_seg_ros.ros.diagnostics import Diagnostics, ModelState
from hybrid_seg_ros.ros.frame_worker import FrameWorker
from hybrid_seg_ros.ros.live_settings import model_problem
from hybrid_seg_ros.ros.log_forwarder import LogForwarder
from hybrid_seg_ros.ros.model_path import resolve_model_path
from hybrid_seg_ros.ros.parameters import (
    NodeConfig,
    check_parameters,
    declare_parameters,
    read_config,
    read_live_settings,
)
from hybrid_seg_ros.ros.process import limit_threads, stop_event, wait_passively
from hybrid_seg_ros.ros.transitions import reported

Load = Callable[[NodeConfig], SegmentationPipeline]

_SIGNAL_PERIOD_S = 0.2
"""Python runs signal handlers only between two calls of spin_once."""


class SegmentationNode(LifecycleNode):
    """Subscribes to `image` and publishes masks and what goes with them; see the README for topics and parameters."""

    def __init__(self, load: Optional[Load] = None, **node_options: Any) -> None:
        """`load` makes the pipeline of a configuration; by default that of the model that the parameters name."""
        super().__init__('segmentation_node', **node_options)
        self.failure = ''
        self._load = load or load_configured
        self._lifecycle = 'unconfigured'
        self._worker: Optional[FrameWorker] = None
        self._cameras: list[Camera] = []
        self._log_forwarder = LogForwarder(self.get_logger())
        self._log_forwarder.attach()
        declare_parameters(self)
        self.add_on_set_parameters_callback(self._check_parameters)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, '/diagnostics', 5)
        self._diagnostics_timer = self.create_timer(1.0, self._publish_diagnostics)

    def autostart(self) -> None:
        """Configure and activate, if the parameter `autostart` says so; a failure leaves the node as it is."""
        if self.get_parameter('autostart').value:
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
                self.trigger_activate()

    def finalize(self) -> None:
        """Go through the shutdown transition, unless somebody else saw to that."""
        if self._lifecycle != 'finalized':
            self.trigger_shutdown()

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up the model, create the publishers."""
        try:
            config = read_config(self)
            self._worker = FrameWorker(self, lambda: self._load(config))
            pipeline = self._worker.pipeline
            self._cameras = [Camera(self, config, pipeline.spec.classes, self._worker.request)]
        except Exception:
            self._release()
            raise
        self.get_logger().info(
            f'loaded {pipeline.spec.name}: {pipeline.variant}, {pipeline.backend_name} {pipeline.precision} on '
            f'{pipeline.device_name}, classes {", ".join(pipeline.spec.classes.names)}'
        )
        self._lifecycle = 'inactive'
        return super().on_configure(state)

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let images in."""
        super().on_activate(state)
        try:
            for camera in self._cameras:
                camera.publishers.publish_label_info()
                camera.input.start()
                self.get_logger().info(f'waiting for images on {camera.input.topic}')
        except Exception:
            self._stop(state)
            raise
        self._lifecycle = 'active'
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let no more images in, and finish the one at work: nothing is published afterwards."""
        self._stop(state)
        self._lifecycle = 'inactive'
        return TransitionCallbackReturn.SUCCESS

    @reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model and destroy the publishers."""
        self._release()
        self._lifecycle = 'unconfigured'
        return super().on_cleanup(state)

    @reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and free everything, from whatever state."""
        self._stop(state)
        self._release()
        self._lifecycle = 'finalized'
        return super().on_shutdown(state)

    @reported
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured with everything freed."""
        self._stop(state)
        self._release()
        self._lifecycle = 'unconfigured'
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Free everything, in whatever state the node is."""
        self._log_forwarder.detach()
        self._release()
        super().destroy_node()

    def _stop(self, state: LifecycleState) -> None:
        for camera in self._cameras:
            camera.input.stop()
        if self._worker is not None:
            self._worker.finish()
        super().on_deactivate(state)

    def _release(self) -> None:
        """Undo on_configure, as far as it came."""
        cameras, self._cameras = self._cameras, []
        worker, self._worker = self._worker, None
        for camera in cameras:
            camera.input.stop()
        try:
            if worker is not None:
                worker.close()
        finally:
            for camera in cameras:
                camera.destroy()

    def _check_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        worker = self._worker

        def live_problem(name: str, value: Any) -> str:
            if worker is None:
                return ''
            return model_problem(worker.pipeline, read_live_settings(self), name, value)

        return check_parameters(parameters, worker is not None, live_problem)

    def _publish_diagnostics(self) -> None:
        if self._worker is None:
            model = ModelState(self._lifecycle, self.failure)
        else:
            model = ModelState.of(self._worker.pipeline, self._lifecycle, self.failure)
        is_listening = self._lifecycle == 'active' and read_live_settings(self).enabled
        name = self.get_fully_qualified_name().lstrip('/')  # with the namespace: one node per camera, say
        diagnostics = Diagnostics(name, f'{socket.gethostname()}:{model.device or "none"}')
        message = DiagnosticArray(status=diagnostics.model_statuses(model))
        for camera in self._cameras:
            message.status += diagnostics.camera_statuses(camera.input_state(is_listening), camera.health())
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics_publisher.publish(message)


def load_configured(config: NodeConfig) -> SegmentationPipeline:
    """Load the model that the parameters name. Raises what load_pipeline raises."""
    limit_threads(config.num_threads)
    pipeline = load_pipeline(
        resolve_model_path(config.model_path), backend=config.backend, device=config.device,
        precision=config.precision, output_size=config.mask_size, graph=config.engine_path or None,
    )  # fmt: skip
    limit_threads(config.num_threads)
    return pipeline


def spin(node: SegmentationNode, stop: threading.Event) -> None:
    """Run the node's callbacks until `stop` is set or the context is shut down."""
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    while not stop.is_set() and node.context.ok():
        try:
            executor.spin_once(timeout_sec=_SIGNAL_PERIOD_S)
        except rclpy_implementation.RCLError as error:
            # up to Humble an invalid lifecycle transition raises here (rclpy#1209): a client's mistake, not the end
            node.get_logger().error(f'a callback failed: {error}')
        except ExternalShutdownException:
            break
    executor.remove_node(node)
    executor.shutdown(timeout_sec=1.0)


def main(args: Optional[Sequence[str]] = None, load: Optional[Load] = None) -> int:
    """Run the node until SIGINT or SIGTERM; return 0, or 1 if it could not be made from its parameters."""
    keep_freed_memory()
    wait_passively()
    stop = stop_event()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = SegmentationNode(load)
    except ParameterException as error:
        print(f'segmentation_node: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    try:
        node.autostart()
        spin(node, stop)
    finally:
        node.finalize()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
