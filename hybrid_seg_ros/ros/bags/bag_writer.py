"""Write a folder of camera images, and one of label images, as a rosbag2 (MCAP): camera and ground truth as topics."""

from __future__ import annotations

import argparse
import logging
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np

from hybrid_seg_ros.data.image_files import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    list_images,
    read_image,
    read_label_ids,
    read_picture,
    same_name,
)
from hybrid_seg_ros.files import naming
from hybrid_seg_ros.label_space import UNLABELLED
from hybrid_seg_ros.ros.bags.bag_content import COMPRESSED_IMAGE, NANOSECONDS
from hybrid_seg_ros.ros.bags.ground_truth import have_one_aspect

log = logging.getLogger(__name__)

_TURNED_QUALITY = 95
_START_S = 1_000


@dataclass(frozen=True)
class WriteBagOptions:
    """What to write where.

    `images` is a folder of image files, taken in natural order; `labels`, if given, one of label files with the same
    names, ids of `classes` and above becoming 255 (unlabelled). `quality` None keeps JPEG files byte for byte, so
    nothing is lost by writing them, but for those that EXIF turns; a number (1 to 100) encodes anew. Stamps start at
    1000 s and are 1/rate apart.
    """

    images: Path
    output: Path
    labels: Optional[Path] = None
    classes: int = UNLABELLED
    rate_hz: float = 15.0
    quality: Optional[int] = None
    image_topic: str = '/camera/image/compressed'
    label_topic: str = '/camera/labels/compressed'
    frame_id: str = 'camera'

    def __post_init__(self) -> None:
        if not self.rate_hz > 0:
            raise ValueError(f'rate: expected more than 0 Hz, got {self.rate_hz}')
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f'quality: expected 1 to 100, got {self.quality}')
        if not 1 <= self.classes <= UNLABELLED:
            raise ValueError(f'classes: expected 1 to {UNLABELLED}, got {self.classes}')


def write_bag(options: WriteBagOptions) -> int:
    """Write the bag, whole or not at all, and return the number of frames. The same input gives the same bytes."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    if options.output.exists():
        raise ValueError(f'{options.output} exists already; remove it, or write elsewhere')
    images = _images(options.images)
    labels = None if options.labels is None else _labels_of(images, options.labels)
    turned = [image for image in images if options.quality is None and read_picture(image).orientation() != 1]
    if turned:
        log.warning('%d images are encoded anew, as EXIF turns them, such as %s', len(turned), turned[0])
    typestore = get_typestore(Stores.ROS2_HUMBLE)
    parent = options.output.parent
    parent.mkdir(parents=True, exist_ok=True)
    with naming(options.output), tempfile.TemporaryDirectory(dir=parent, suffix='.partial') as folder:
        partial = Path(folder) / options.output.name
        # version 8 and not 9: 9 changes how QoS is spelt, which Humble and Iron cannot read
        with Writer(partial, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
            topics = [options.image_topic] + ([] if labels is None else [options.label_topic])
            links = [
                writer.add_connection(
                    topic, COMPRESSED_IMAGE, typestore=typestore, offered_qos_profiles=[_reliable_qos()]
                )
                for topic in topics
            ]
            for index, image in enumerate(images):
                stamp_ns = _START_S * NANOSECONDS + round(index * NANOSECONDS / options.rate_hz)
                payloads = _frame(image, None if labels is None else labels[index], options)
                for link, (encoding, payload) in zip(links, payloads):
                    message = _compressed_image(typestore, stamp_ns, options.frame_id, encoding, payload)
                    writer.write(link, stamp_ns, typestore.serialize_cdr(message, COMPRESSED_IMAGE))
        partial.rename(options.output)
    return len(images)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f'{folder}: expected a folder of images')
    images = list_images(folder)
    if not images:
        raise ValueError(f'{folder}: expected images ({", ".join(IMAGE_SUFFIXES)}), found none')
    return images


def _labels_of(images: list[Path], folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f'{folder}: expected a folder of label images')
    by_name: dict[str, Path] = {}
    for path in list_images(folder, LABEL_SUFFIXES):
        other = by_name.setdefault(same_name(path.stem), path)
        if other is not path:
            raise ValueError(f'{folder}: expected one file for {path.stem}, got {other.name} and {path.name}')
    missing = [f'{image.stem}.png' for image in images if same_name(image.stem) not in by_name]
    if missing:
        raise ValueError(f'{folder}: {len(missing)} label images are missing, the first is {missing[0]}')
    return [by_name[same_name(image.stem)] for image in images]


def _frame(image: Path, labels: Optional[Path], options: WriteBagOptions) -> list[tuple[str, np.ndarray]]:
    """Return format and bytes of a frame's messages: the image as JPEG and, where there are labels, these as PNG."""
    rgb = read_image(image)
    payloads = [('jpeg', _jpeg(image, rgb, options.quality))]
    if labels is not None:
        values = read_label_ids(labels)
        if not have_one_aspect(rgb.shape[:2], values.shape):
            raise ValueError(f'{labels}: expected labels of the aspect of {image.name}, {rgb.shape[1]}x'
                                 f'{rgb.shape[0]}, got {values.shape[1]}x{values.shape[0]}')  # fmt: skip
        values = np.where(values < options.classes, values, UNLABELLED).astype(np.uint8)
        payloads.append(('png', _encode('.png', values, cv2.IMWRITE_PNG_COMPRESSION, 9)))
    return payloads


def _jpeg(path: Path, rgb: np.ndarray, quality: Optional[int]) -> np.ndarray:
    """Return an image as JPEG; one that EXIF turns is encoded anew, as nobody turns what comes from a camera."""
    if quality is None:
        picture = read_picture(path)
        if picture.kind != 'JPEG':
            raise ValueError(f'{path}: only JPEG files can be kept as they are; give a quality to encode it')
        if picture.orientation() == 1:
            return np.frombuffer(path.read_bytes(), np.uint8)
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    settings = cv2.IMWRITE_JPEG_QUALITY, quality or _TURNED_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1
    return _encode('.jpg', bgr, *settings)


def _encode(suffix: str, picture: np.ndarray, *settings: int) -> np.ndarray:
    return cv2.imencode(suffix, picture, settings)[1].reshape(-1)


def _compressed_image(typestore: Any, stamp_ns: int, frame_id: str, encoding: str, payload: np.ndarray) -> Any:
    types = typestore.types
    stamp = types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, NANOSECONDS))
    header = types['std_msgs/msg/Header'](stamp, frame_id)
    return types[COMPRESSED_IMAGE](header, encoding, payload)


def _reliable_qos() -> Any:
    """Return what a camera driver would have offered, so that `ros2 bag play` offers it again."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    unset = QosTime(0, 0)
    return Qos(
        QosHistory.KEEP_LAST, 10, QosReliability.RELIABLE, QosDurability.VOLATILE,
        unset, unset, QosLiveliness.AUTOMATIC, unset, False,
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `hybrid_seg write-bag`."""
    default = WriteBagOptions(Path(), Path())
    parser.add_argument('images', type=Path, help='folder of camera images, in the order of the numbers in '
                        'their names')  # fmt: skip
    parser.add_argument('output', type=Path, help='bag folder to write; must not exist')
    parser.add_argument('--labels', type=Path, help='folder of label images, class ids or palette, named as the '
                        'images')  # fmt: skip
    parser.add_argument('--classes', type=int, default=default.classes, help='ids from this on become 255, unlabelled')
    parser.add_argument('--rate', type=float, dest='rate_hz', metavar='RATE', default=default.rate_hz,
                        help='frames per second (%(default)s)')  # fmt: skip
    parser.add_argument('--quality', type=int, help='JPEG quality to encode with; default: keep JPEG files as they '
                        'are, but for those that EXIF turns')  # fmt: skip
    parser.add_argument('--image-topic', default=default.image_topic, help='default %(default)s')
    parser.add_argument('--label-topic', default=default.label_topic, help='default %(default)s')
    parser.add_argument('--frame-id', default=default.frame_id, help='default %(default)s')


def run(args: argparse.Namespace) -> int:
    """Run `hybrid_seg write-bag`."""
    options = WriteBagOptions(**{each.name: getattr(args, each.name) for each in fields(WriteBagOptions)})
    frames = write_bag(options)
    size_mb = sum(file.stat().st_size for file in options.output.iterdir()) / 1e6
    print(f'wrote {options.output}: {frames} frames at {options.rate_hz:g} Hz, {size_mb:.2f} MB')
    return 0
