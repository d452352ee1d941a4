"""docs/node.md says what the node has: topics, encodings, and what diagnostics say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode

from hybrid_seg_ros.inference.point_keeper import PointState
from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.ros.health.camera_monitor import CameraHealth
from hybrid_seg_ros.ros.health.diagnostics import (
    InputState,
    ModelState,
    image_verdict,
    model_verdict,
    point_verdict,
    segmentation_verdict,
)
from hybrid_seg_ros.ros.health.machine_state import machine_verdict
from hybrid_seg_ros.ros.image_decoding import IMAGE_ENCODINGS
from hybrid_seg_ros.ros.publishers import Publishers

PAGE = (Path(__file__).parents[1] / 'docs' / 'node.md').read_text(encoding='utf-8')
TOPIC = '/camera/image'
SPACE = LabelSpace(('road', 'sky'), ((1, 2, 3), (4, 5, 6)))
LEVELS = {'OK': DiagnosticStatus.OK, 'WARN': DiagnosticStatus.WARN, 'ERROR': DiagnosticStatus.ERROR}


def table(header: str) -> list[list[str]]:
    """Return the cells of the table with this first line."""
    lines = PAGE[PAGE.index(header) :].splitlines()[2:]
    rows = lines[: next(i for i, line in enumerate(lines) if not line.startswith('|'))]
    return [[cell.strip() for cell in row.strip('|').split('|')] for row in rows]


def quoted(cell: str) -> list[str]:
    return re.findall(r'`([^`]+)`', cell)


def test_every_output_is_listed():
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    try:
        node = LifecycleNode('page', context=context)
        before = {name for name, _ in node.get_publisher_names_and_types_by_node('page', '/')}
        Publishers(node, SPACE)
        topics = {name for name, _ in node.get_publisher_names_and_types_by_node('page', '/')} - before
        node.destroy_node()
    finally:
        context.try_shutdown()
    listed = {name for row in table('| out | type | |') for name in quoted(row[0])}
    assert listed == {topic.replace('/page', '~') for topic in topics} | {'~/label_info', '/diagnostics'}


def test_every_encoding_is_listed():
    listed = {name for row in table('| Image | |') for name in quoted(row[0])} - {'16'}
    wide = {
        name[:-1] + '16'
        for row in table('| Image | |')
        if 'also with `16`' in row[0]
        for name in quoted(row[0])
        if name.endswith('8')
    }
    assert listed | wide == set(IMAGE_ENCODINGS)


def said() -> list[tuple[str, bytes, str]]:
    """Return what the node can say: (status, level, message)."""
    point = PointState('cts merged 0.6', 'as set, without a latency budget')
    loaded = {'name': 'tiny', 'variant': 'cts', 'backend': 'pytorch', 'device': 'cpu'}
    lossy = {'since_image_s': 0.1, 'fps_in': 9.0, 'image_bytes': 2764800}
    other = ('sensor_msgs/msg/CompressedImage',)

    def images(health=None, **source):
        source = {'publishers': 1, 'dropped': 0, 'is_listening': True, 'timeout_s': 1.0, **source}
        return image_verdict(InputState(TOPIC, **source), CameraHealth(**(health or {})))

    verdicts = {
        'model': [
            model_verdict(ModelState('active', **loaded)),
            model_verdict(ModelState('inactive', **loaded)),
            model_verdict(ModelState('active', at_work_s=12.0, **loaded)),
            model_verdict(ModelState('unconfigured')),
            model_verdict(ModelState('configuring', progress='exporting')),
            model_verdict(ModelState('unconfigured', 'on_configure failed: no such file')),
            model_verdict(ModelState('unconfigured', 'on_deactivate failed: it is not done: the backend hangs')),
        ],
        'operating point': [
            point_verdict(point),
            point_verdict(PointState('cts', 'as set, without a latency budget', preparing='dense')),
            point_verdict(PointState('cts', 'first choice', '5 ms', is_missed=True)),
            point_verdict(PointState('cts', problem='cannot run dense: no memory')),
        ],
        'images': [
            images({'since_image_s': 0.1, 'fps_in': 30.0}),
            images(is_listening=False),
            *(images({'since_image_s': s}, publishers=0) for s in (2.0, 9.0)),
            *(images({'since_image_s': s}) for s in (2.0, 9.0)),
            *(images({'since_image_s': s}, publishers=0, other_types=other) for s in (2.0, 9.0)),
            *(images({'since_image_s': s, 'since_info_s': 0.03}) for s in (2.0, 9.0)),
            images({'incompatible_qos': f'a publisher of {TOPIC} offers an incompatible QoS (RELIABILITY)'}),
            images({'recent_bad_frame': 'too short'}),
            images({**lossy, 'info_fps': 30.0}),
            images({**lossy, 'stamp_age_s': 3.0}),
            images({**lossy, 'stamp_age_s': -3.0}),
            images({'since_image_s': 0.1, 'fps_in': 30.0}, is_without_clock=True),
        ],
        'segmentation': [
            segmentation_verdict(CameraHealth(segmented=1, latency_ms={'total': (50.0, 60.0)})),
            segmentation_verdict(CameraHealth(failure='out of memory: RuntimeError: CUDA')),
            segmentation_verdict(CameraHealth(failure='RuntimeError: out of order')),
            segmentation_verdict(CameraHealth(
                incompatible_subscriber='a subscriber of ~/mask asks for an incompatible QoS (DURABILITY) and receives '
                'nothing; change it there')),
        ],
        'machine': [
            machine_verdict({'temperature_cpu_c': 95.0}),
            machine_verdict({'ram_used_mb': 990.0, 'ram_total_mb': 1000.0}),
        ],
    }
    return [(status, *verdict) for status, each in verdicts.items() for verdict in each]


def diagnostics_rows() -> list[tuple[str, list[bytes], re.Pattern[str], str]]:
    """Return (status, levels, pattern of the message, its text) of each message in the page's table."""
    rows, status = [], ''
    for first, levels, messages, _ in table('| status | level | what it says | what to do |'):
        status = quoted(first)[0] if first else status
        for text in quoted(messages):
            pattern = re.escape(text).replace(re.escape('...'), '.*').replace('TOPIC', re.escape(TOPIC))
            pattern = re.sub('NAME|VARIANT|BACKEND|DEVICE|POINT', '.+', pattern)
            rows.append((status, [LEVELS[level] for level in levels.split(', ')], re.compile(pattern), text))
    return [row for row in rows if row[0] != 'tokens']


@pytest.mark.parametrize('row', diagnostics_rows(), ids=lambda row: f'{row[0]}: {row[3]}')
def test_what_the_page_says_of_diagnostics_is_what_they_say(row):
    status, levels, pattern, _ = row
    found = {level for name, level, message in said() if name == status and pattern.fullmatch(message)}
    assert found >= set(levels)


def test_what_diagnostics_say_is_on_the_page():
    rows = diagnostics_rows()
    missing = [
        (status, message)
        for status, level, message in said()
        if not any(status == name and level in levels and text.fullmatch(message) for name, levels, text, _ in rows)
    ]
    assert not missing
