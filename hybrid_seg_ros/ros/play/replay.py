"""Play the images of a rosbag2 on DDS: as recorded, faster or slower, or one at a time, awaiting each answer."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from hybrid_seg_ros.files import write_json
from hybrid_seg_ros.ros.play.replay_options import DEFAULT_ANSWER_TOPIC, ReplayError, ReplayOptions, ReplayReport


def replay(options: ReplayOptions) -> ReplayReport:
    """Play a bag, a damaged one as far as it can be read. Raises BagError or ReplayError."""
    from hybrid_seg_ros.ros.bags.bag_reader import BagReader
    from hybrid_seg_ros.ros.play.frame_player import play_bag
    from hybrid_seg_ros.ros.play.session import RosSession

    with BagReader(options.bag) as bag, RosSession('hybrid_seg_replay') as session:
        return play_bag(bag, session, options)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hybrid_seg replay`."""
    default = ReplayOptions(Path())
    parser.add_argument('bag', type=Path, help='rosbag2 folder, or a single .mcap or .db3 file; a damaged one '
                        'is played as far as it can be read')  # fmt: skip
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument('--rate', type=float, default=default.rate, help='speed, 2.0 is twice as fast (%(default)s)')
    pace.add_argument('--lock-step', action='store_true', help='publish a frame only once the one before is answered')
    parser.add_argument(
        '--answer-topic', metavar='NAME',
        help=f'count and time answers on this mask topic; with --lock-step {DEFAULT_ANSWER_TOPIC} if not given',
    )  # fmt: skip
    parser.add_argument('--max-gap', type=float, dest='max_gap_s', default=default.max_gap_s, metavar='S',
                        help='shorten longer gaps of the recording to so many seconds (%(default)s)')  # fmt: skip
    parser.add_argument('--timeout', type=float, dest='timeout_s', default=default.timeout_s, metavar='TIMEOUT',
                        help='seconds for an answer (%(default)s)')  # fmt: skip
    parser.add_argument('--wait', type=float, dest='wait_s', default=default.wait_s, metavar='WAIT',
                        help='seconds for subscribers (%(default)s)')  # fmt: skip
    parser.add_argument('--topic', action='append', dest='topics', default=[], metavar='NAME',
                        help='play this one; may be repeated')  # fmt: skip
    parser.add_argument('--remap', action='append', default=[], metavar='FROM:=TO', help='publish FROM as TO')
    parser.add_argument('--labels', action='store_true', help='play ground truth, too')
    parser.add_argument('--restamp', action='store_true', help='set header stamps to the present time')
    parser.add_argument('--loop', action='store_true', help='play again and again, until Ctrl-C')
    parser.add_argument('--limit', type=int, metavar='N', help='stop after N frames')
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the report to this file')


def run(args: argparse.Namespace) -> int:
    """Run `hybrid_seg replay`; 1 if answers were asked for and none came. Ctrl-C, the end of a loop, is no error."""
    given = {each.name: getattr(args, each.name) for each in dataclasses.fields(ReplayOptions)}
    options = ReplayOptions(**{**given, 'remap': dict(map(_parse_remap, args.remap))})
    try:
        report = replay(options)
    except KeyboardInterrupt:
        print('interrupted')
        return 0
    print(report)
    if report.damage:
        print(f'DAMAGED    {report.damage}')
    if args.json is not None:
        write_json(args.json, dataclasses.asdict(report))
    return 1 if report.answered == 0 else 0


def _parse_remap(text: str) -> tuple[str, str]:
    before, separator, after = text.partition(':=')
    if not (before and separator and after):
        raise ReplayError(f'remap: expected FROM:=TO, got {text!r}')
    return '/' + before.lstrip('/'), after
