"""How a soak runs: the real node, a bag played to it in a loop, and a look at its process every so often."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Optional

import numpy as np
from tqdm import tqdm

from hybrid_seg_ros.evaluation.benchmark.machine import describe_cpu
from hybrid_seg_ros.ros.answer_watch import AnswerWatch
from hybrid_seg_ros.ros.bags.bag_reader import COMPRESSED_IMAGE, BagReader
from hybrid_seg_ros.ros.child_process import ChildProcess
from hybrid_seg_ros.ros.frame_player import play_bag
from hybrid_seg_ros.ros.model_path import resolve_model_path
from hybrid_seg_ros.ros.node_watch import NODE, NodeError, NodeWatch, node_command
from hybrid_seg_ros.ros.replay_options import ReplayError, ReplayOptions
from hybrid_seg_ros.ros.session import RosSession
from hybrid_seg_ros.ros.trials.process_figures import process_figures
from hybrid_seg_ros.ros.trials.soak_report import Sample, SoakOptions, SoakReport

_IMAGE = '/camera/image'
_SAMPLES, _LINES = 200, 20
_GONE_S, _POLL_S = 1.0, 0.01
"""A process that dies has no memory any more a moment before it has a status."""


def run_soak(options: SoakOptions) -> SoakReport:
    """Soak the node, in the ROS network of the environment, and report; also if it dies, or by Ctrl-C.

    Raises NodeError if the node does not start, BagError for a bag that cannot be played.
    """
    with BagReader(options.bag or resolve_model_path('package://hybrid_seg_ros/bags/camvid_val')) as bag:
        camera = bag.select_camera_topic(options.topic)
        is_compressed = camera.msgtype == COMPRESSED_IMAGE
        parameters = {
            'image_transport': 'compressed' if is_compressed else 'raw',
            **({'model_path': str(options.model)} if options.model else {}),
            **options.parameters,
        }
        module = 'hybrid_seg_ros.ros.trials.idle_node' if options.idle else 'hybrid_seg_ros.ros.segmentation_node'
        command = node_command(_IMAGE, parameters, module)
        play = ReplayOptions(
            bag.path, (camera.name,), rate=options.rate or 1.0, lock_step=options.rate is None,
            answer_topic=f'{NODE}/mask', timeout_s=options.timeout_s, restamp=True, loop=True, limit=options.frames,
            remap={camera.name: f'{_IMAGE}/compressed' if is_compressed else _IMAGE},
        )  # fmt: skip
        with tempfile.TemporaryDirectory(prefix='hybrid_seg_soak_') as folder:
            log = Path(folder) / 'node.log'
            with ChildProcess(command, log, os.environ) as node, RosSession('hybrid_seg_soak') as session:
                watch = NodeWatch(session, node)
                watch.wait_until_active(options.start_s)
                recorder = _Recorder(node, watch, options.frames)
                ended = _play(bag, session, play, recorder)
                return SoakReport(
                    machine=describe_cpu(),
                    model=watch.model.removeprefix('active: '),
                    bag=str(options.bag or bag.path.name),
                    frames=options.frames,
                    max_growth_mib=options.max_growth_mib,
                    sent=recorder.sent,
                    samples=tuple(recorder.samples),
                    ended=ended,
                )


def _play(bag: BagReader, session: RosSession, options: ReplayOptions, recorder: '_Recorder') -> str:
    """Play until the end, and return why it came early; '' if it did not."""
    try:
        play_bag(bag, session, options, recorder.on_frame)
    except KeyboardInterrupt:
        return 'interrupted'
    except (NodeError, ReplayError) as error:
        return str(error)
    finally:
        recorder.finish()
    return ''


class _Recorder:
    """Looks at the node's process and at the answers, as frames are sent."""

    def __init__(self, node: ChildProcess, watch: NodeWatch, frames: int) -> None:
        self._node, self._watch, self._frames = node, watch, frames
        self._every = max(1, frames // _SAMPLES)
        self._line_every = max(1, frames // _LINES)
        self._start_s: Optional[float] = None
        self._answers: Optional[AnswerWatch] = None
        self._answered = 0
        self.sent = 0
        self.samples: list[Sample] = []

    def on_frame(self, sent: int, answers: Optional[AnswerWatch]) -> None:
        """Take note of a frame. Raises NodeError if the node has ended."""
        if self._start_s is None:
            self._start_s = time.monotonic()
        self.sent, self._answers = sent, answers
        if sent % self._every == 0:
            self._look()
        if sent % self._line_every == 0:
            tqdm.write(str(self.samples[-1]))
        self._watch.check_alive()

    def finish(self) -> None:
        """Count the answers that came after the last look, if there was one."""
        if self.samples and self._answers is not None:
            last = self.samples[-1]
            self.samples[-1] = Sample(**{**vars(last), 'lost': self.sent - self._answers.count})

    def _look(self) -> None:
        latencies_ms = self._answers.latencies_ms
        recent, self._answered = latencies_ms[self._answered :], len(latencies_ms)
        p50_ms, p95_ms = np.percentile(recent, (50, 95)) if recent else (np.nan, np.nan)
        try:
            figures = process_figures(self._node.pid)
        except OSError:
            deadline = time.monotonic() + _GONE_S
            while time.monotonic() < deadline:
                self._watch.check_alive()
                time.sleep(_POLL_S)
            raise
        self.samples.append(Sample(
            self.sent, time.monotonic() - self._start_s, self.sent - len(latencies_ms), float(p50_ms), float(p95_ms),
            figures,
        ))  # fmt: skip
