"""Write a folder of camera images, and one of label images, as a rosbag2 (MCAP): camera and ground truth as topics."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np

from hybrid_seg_ros.label_space import UNLABELLED
from hybrid_seg_ros.ros.bags.storage_files import in_natural_order

_NANOSECONDS = 1_000_000_000
_JPEG_SUFFIXES = ('.jpg', '.jpeg')
_IMAGE_SUFFIXES = (*_JPEG_SUFFIXES, '.png')
_COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'


class BagWriterError(ValueError):
    """Frames that cannot be written as a bag; the message names the file."""


@dataclass(frozen=True)
class WriteBagOptions:
    """What to write where.

    `images` is a folder of .jpg or .png; `labels`, if given, one of single-channel .png with the same names, ids of
    `classes` and above becoming 255 (unlabelled). `quality` None keeps JPEG files byte for byte, so nothing is lost
    by writing them; a number (1 to 100) encodes anew. Stamps start at `start_s` seconds and are 1/rate apart.
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
    start_s: int = 1_000

    def __post_init__(self) -> None:
        if not self.rate_hz > 0:
            raise BagWriterError(f'rate: expected more than 0 Hz, got {self.rate_hz}')
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise BagWriterError(f'quality: expected 1 to 100, got {self.quality}')
        if not 1 <= self.classes <= UNLABELLED:
            raise BagWriterError(f'classes: expected 1 to {UNLABELLED}, got {self.classes}')


def write_bag(options: WriteBagOptions) -> int:
    """Write the bag, whole or not at all, and return the number of frames. The same input gives the same bytes."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    if options.output.exists():
        raise BagWriterError(f'{options.output} exists already; remove it, or write elsewhere')
    images = _images(options.images)
    labels = None if options.labels is None else _labels_of(images, options.labels)
    typestore = get_typestore(Stores.ROS2_HUMBLE)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.output.parent, suffix='.partial') as folder:
        partial = Path(folder) / options.output.name
        # version 8 and not 9: 9 changes how QoS is spelt, which Humble and Iron cannot read
        with Writer(partial, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
            topics = [options.image_topic] + ([] if labels is None else [options.label_topic])
            links = [
                writer.add_connection(
                    topic, _COMPRESSED_IMAGE, typestore=typestore, offered_qos_profiles=[_reliable_qos()]
                )
                for topic in topics
            ]
            for index, image in enumerate(images):
                stamp_ns = options.start_s * _NANOSECONDS + round(index * _NANOSECONDS / options.rate_hz)
                payloads = [('jpeg', _jpeg(image, options.quality))]
                if labels is not None:
                    payloads.append(('png', _label_png(labels[index], options.classes)))
                for link, (encoding, payload) in zip(links, payloads):
                    message = _compressed_image(typestore, stamp_ns, options.frame_id, encoding, payload)
                    writer.write(link, stamp_ns, typestore.serialize_cdr(message, _COMPRESSED_IMAGE))
        partial.rename(options.output)
    return len(images)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise BagWriterError(f'{folder}: expected a folder of images')
    images = [file for file in folder.iterdir() if file.suffix.lower() in _IMAGE_SUFFIXES and file.name[0] != '.']
    images.sort(key=lambda file: in_natural_order(file.name))
    if not images:
        raise BagWriterError(f'{folder}: expected images ({", ".join(_IMAGE_SUFFIXES)}), found none')
    return images


def _labels_of(images: list[Path], folder: Path) -> list[Path]:
    labels = [folder / f'{image.stem}.png' for image in images]
    missing = [label.name for label in labels if not label.is_file()]
    if missing:
        raise BagWriterError(f'{folder}: {len(missing)} label images are missing, the first is {missing[0]}')
    return labels


def _jpeg(path: Path, quality: Optional[int]) -> np.ndarray:
    if quality is None:
        if path.suffix.lower() not in _JPEG_SUFFIXES:
            raise BagWriterError(f'{path}: only JPEG files can be kept as they are; give a quality to encode it')
        return np.frombuffer(path.read_bytes(), np.uint8)
    return _encode(path, cv2.IMREAD_COLOR, '.jpg', [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1])


def _label_png(path: Path, classes: int) -> np.ndarray:
    return _encode(path, cv2.IMREAD_UNCHANGED, '.png', [cv2.IMWRITE_PNG_COMPRESSION, 9], classes)


def _encode(path: Path, mode: int, suffix: str, settings: list[int], classes: Optional[int] = None) -> np.ndarray:
    picture = cv2.imread(str(path), mode)
    if picture is None:
        raise BagWriterError(f'{path}: cannot be decoded as an image')
    if classes is not None:
        if picture.ndim != 2 or picture.dtype != np.uint8:
            raise BagWriterError(f'{path}: expected labels (H, W) uint8, got {picture.shape} {picture.dtype}')
        picture = np.where(picture < classes, picture, UNLABELLED).astype(np.uint8)
    encoded, payload = cv2.imencode(suffix, picture, settings)
    if not encoded:
        raise BagWriterError(f'{path}: cannot be encoded as {suffix}')
    return payload.reshape(-1)


def _compressed_image(typestore: Any, stamp_ns: int, frame_id: str, encoding: str, payload: np.ndarray) -> Any:
    types = typestore.types
    stamp = types['builtin_interfaces/msg/Time'](*divmod(stamp_ns, _NANOSECONDS))
    header = types['std_msgs/msg/Header'](stamp, frame_id)
    return types[_COMPRESSED_IMAGE](header, encoding, payload)


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
    parser.add_argument('images', type=Path, help='folder of camera images, .jpg or .png, in the order of names: '
                        'frame_2 before frame_10')  # fmt: skip
    parser.add_argument('output', type=Path, help='bag folder to write; must not exist')
    parser.add_argument('--labels', type=Path, help='folder of label images: .png of class ids, named as the images')
    parser.add_argument('--classes', type=int, default=default.classes, help='ids from this on become 255, unlabelled')
    parser.add_argument('--rate', type=float, default=default.rate_hz, help='frames per second (%(default)s)')
    parser.add_argument('--quality', type=int, help='JPEG quality to encode with; default: keep JPEG files as they are')
    parser.add_argument('--image-topic', default=default.image_topic, help='default %(default)s')
    parser.add_argument('--label-topic', default=default.label_topic, help='default %(default)s')
    parser.add_argument('--frame-id', default=default.frame_id, help='default %(default)s')


def run(args: argparse.Namespace) -> int:
    """Run `hybrid_seg write-bag`."""
    options = WriteBagOptions(
        images=args.images, output=args.output, labels=args.labels, classes=args.classes, rate_hz=args.rate,
        quality=args.quality, image_topic=args.image_topic, label_topic=args.label_topic, frame_id=args.frame_id,
    )  # fmt: skip
    frames = write_bag(options)
    size_mb = sum(file.stat().st_size for file in options.output.iterdir()) / 1e6
    print(f'wrote {options.output}: {frames} frames at {options.rate_hz:g} Hz, {size_mb:.2f} MB')
    return 0
