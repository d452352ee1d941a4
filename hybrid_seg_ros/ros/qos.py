"""QoS profiles: keep-last and volatile, reliable or not."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy


def reliable_qos(depth: int) -> QoSProfile:
    """Return what this package publishes with; matches any subscriber (REP-2003)."""
    return _qos(depth, QoSReliabilityPolicy.RELIABLE)


def best_effort_qos(depth: int) -> QoSProfile:
    """Return what receives from any publisher."""
    return _qos(depth, QoSReliabilityPolicy.BEST_EFFORT)


def matching_qos(node: Node, topic: str, depth: int) -> QoSProfile:
    """Return the strictest profile that every present publisher of `topic` meets; best effort where there is none yet.

    BEST_AVAILABLE turns reliable there, which then refuses a camera that offers best effort.
    """
    offered = [info.qos_profile.reliability for info in node.get_publishers_info_by_topic(topic)]
    strict = bool(offered) and all(reliability == QoSReliabilityPolicy.RELIABLE for reliability in offered)
    return reliable_qos(depth) if strict else best_effort_qos(depth)


def _qos(depth: int, reliability: QoSReliabilityPolicy) -> QoSProfile:
    return QoSProfile(
        depth=depth,
        history=QoSHistoryPolicy.KEEP_LAST,
        reliability=reliability,
        durability=QoSDurabilityPolicy.VOLATILE,
    )
