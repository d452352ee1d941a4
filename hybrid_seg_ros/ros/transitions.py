"""Lifecycle transitions that say what went wrong: rclpy hides what they raise."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from hybrid_seg_ros.ros.frame_worker import Stuck

_EXPECTED = (ValueError, OSError, ModuleNotFoundError, Stuck)
"""What a wrong parameter or a missing file raises: the message says it all."""

Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def reported(transition: Transition) -> Transition:
    """Let a transition that raises fail: the error is logged, and kept as the node's `failure` for diagnostics.

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
