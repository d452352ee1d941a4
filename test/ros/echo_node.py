"""A stand-in for a segmenter, run as a process by the replay tests: answers an image by a mask of its stamp."""

import argparse

from sensor_msgs.msg import CompressedImage, Image

from hybrid_seg_ros.ros.play.session import RosSession
from hybrid_seg_ros.ros.qos import reliable_qos

parser = argparse.ArgumentParser()
parser.add_argument('--image', default='/camera/image/compressed')
parser.add_argument('--mask', default='/segmentation_node/mask')
parser.add_argument('--raw', action='store_true', help='subscribe to sensor_msgs/Image')
parser.add_argument('--deaf-after', type=int, default=1_000_000, help='stop answering after this many images')
args = parser.parse_args()
received = 0

with RosSession('echo_node') as session:
    masks = session.node.create_publisher(Image, args.mask, reliable_qos(10))

    def answer(image: CompressedImage) -> None:
        global received
        received += 1
        if received <= args.deaf_after:
            masks.publish(Image(header=image.header, height=1, width=1, encoding='mono8', step=1, data=b'\0'))

    session.node.create_subscription(
        Image if args.raw else CompressedImage, args.image, answer, reliable_qos(10)
    )
    print('ready', flush=True)
    while True:
        session.spin_for(1.0)
