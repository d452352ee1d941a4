"""`hybrid_seg convert`: bring weights of SegViT, DToP, CTS, or of any pretrained plain ViT, into this format."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from hybrid_seg_ros.export.checkpoint_names import describe_size, encoder_size, find_encoder, other_network
from hybrid_seg_ros.export.convert_encoder import ENCODER_SOURCES, convert_encoder
from hybrid_seg_ros.export.convert_model import (
    MODEL_SOURCES,
    NORMALIZATIONS,
    convert_model,
    converted_spec,
    encoder_backbone,
)
from hybrid_seg_ros.export.weight_file import SUFFIXES, read_weights
from hybrid_seg_ros.model_spec import BACKBONES, HEADS, ModelSpec, ModelSpecError
from hybrid_seg_ros.network.checkpoint import CheckpointError, load_strictly, save_model
from hybrid_seg_ros.network.encoder_weights import save_encoder
from hybrid_seg_ros.network.segmenter import HybridSegmenter
from hybrid_seg_ros.network.vit import VisionTransformer

PRECISIONS = {'float32': torch.float32, 'float16': torch.float16}
MODEL_OPTIONS = (
    'name', 'classes', 'input_size', 'normalization', 'auxiliary_layers', 'head', 'decoder_heads', 'decoder_layers',
    'policy', 'policy_key_prefix', 'without_policy',
)  # fmt: skip
"""Options that say nothing about an encoder alone."""
ENCODER_OPTIONS = ('patch_size', 'prefix_tokens')
"""Options that only an encoder has."""


def convert_to_model(args: argparse.Namespace) -> ModelSpec:
    """Convert a segmenter; returns the spec as written."""
    _refuse_options(args, ENCODER_OPTIONS, 'gives a whole model')
    _require_suffix(args.output, '.yaml')
    _refuse_overwriting([args.output, args.output.with_suffix('.safetensors')], args.force)
    state = read_weights(args.file, args.entry, args.key_prefix)
    declared = _declared(args)
    with _named(args.file), _size_named(declared, state):
        spec = converted_spec(args.source, args.name or args.output.stem, declared, args.policy is not None)
    policy_state = None
    if args.policy is not None:
        policy_state = read_weights(args.policy, key_prefix=args.policy_key_prefix or '')
    with _named(args.file):
        converted = convert_model(args.source, state, spec, args.source_size, policy_state)
    model = HybridSegmenter(spec)
    try:
        load_strictly(model, converted, str(args.file))
    except CheckpointError as error:
        other = other_network([key for key in state if 'policy_net.' not in key])  # which is a convolutional network
        raise CheckpointError(f'{args.file}: expected a plain ViT, got {other}' if other else str(error)) from error
    _check_values(model.state_dict(), PRECISIONS[args.precision], args.file)
    return save_model(model, args.output, PRECISIONS[args.precision])


def convert_to_encoder(args: argparse.Namespace) -> str:
    """Convert a pretrained encoder; returns the sha256 of the file written."""
    _refuse_options(args, MODEL_OPTIONS, 'gives an encoder alone')
    _require_suffix(args.output, '.safetensors')
    _refuse_overwriting([args.output], args.force)
    weights = read_weights(args.file, args.entry)
    declared = _declared(args)
    with _named(args.file), _size_named(declared, weights, args.key_prefix):
        backbone = encoder_backbone(declared)
        converted = convert_encoder(
            weights, backbone, key_prefix=args.key_prefix, source_size_hw=args.source_size, patch_size=args.patch_size,
            keep_prefix_tokens=args.prefix_tokens != 'drop',
        )  # fmt: skip
    encoder = VisionTransformer(converted.backbone, converted.grid_hw)
    load_strictly(encoder, converted.state, str(args.file))
    _check_values(encoder.state_dict(), PRECISIONS[args.precision], args.file)
    return save_encoder(encoder, args.output, PRECISIONS[args.precision])


def _refuse_options(args: argparse.Namespace, names: tuple[str, ...], what: str) -> None:
    given = ', '.join('--' + name.replace('_', '-') for name in names if getattr(args, name) not in (None, False))
    if given:
        raise ValueError(f'{args.source} {what}; expected no {given}')


def _declared(args: argparse.Namespace) -> dict[str, Any]:
    """Return the spec fields that the options and the --spec file declare; options win."""
    declared = {} if args.spec is None else read_spec(args.spec)
    mean, std = NORMALIZATIONS.get(args.normalization, (None, None))
    options = {
        'backbone': args.backbone,
        'classes': None if args.classes is None else read_classes(args.classes),
        'input_size_hw': args.input_size,
        'mean': mean,
        'std': std,
        'auxiliary_layers': args.auxiliary_layers,
        'head': args.head,
        'policy': 'none' if args.without_policy else None,
    }
    declared.update({key: value for key, value in options.items() if value is not None})
    decoder = {'num_heads': args.decoder_heads, 'layers': args.decoder_layers}
    decoder = {key: value for key, value in decoder.items() if value is not None}
    if decoder:
        declared['decoder'] = {**declared.get('decoder', {}), **decoder}
    return declared


def read_spec(path: Path) -> dict[str, Any]:
    """Read a YAML file of spec fields."""
    if not path.is_file():
        raise FileNotFoundError(f'spec {path}: no such file')
    content = _yaml(path)
    if not isinstance(content, dict):
        raise ModelSpecError(f'{path}: expected a mapping, got {type(content).__name__}')
    if not isinstance(content.get('decoder', {}), dict):
        raise ModelSpecError(f'{path}: decoder: expected a mapping, got {content["decoder"]!r}')
    return content


def read_classes(path: Path) -> list[dict[str, Any]]:
    """Read the class entries of a spec: a text file with a name per line, a YAML list, or a model's YAML.

    The items of a YAML list are names, or mappings with name and color. Class ids are positions, so that an empty line
    is an error.
    """
    if not path.is_file():
        raise FileNotFoundError(f'classes {path}: no such file')
    if path.suffix in ('.yaml', '.yml'):
        entries = _yaml(path)
        entries = entries.get('classes') if isinstance(entries, dict) else entries
    else:
        entries = [line.strip() for line in path.read_text(encoding='utf-8').rstrip().splitlines()]
        if '' in entries:
            raise ModelSpecError(f'{path}: expected a class name on each line, line {entries.index("") + 1} is empty')
    if not isinstance(entries, list) or not entries:
        raise ModelSpecError(f'{path}: expected a list of classes, got {type(entries).__name__}')
    return [{'name': entry} if isinstance(entry, str) else entry for entry in entries]


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ModelSpecError(f'{path}: {error}') from error


def _require_suffix(path: Path, suffix: str) -> None:
    if path.suffix != suffix:
        raise ValueError(f'--output: expected a file that ends with {suffix}, got {path}')


def _refuse_overwriting(paths: list[Path], force: bool) -> None:
    existing = [str(path) for path in paths if path.exists()]
    if existing and not force:
        raise FileExistsError(f'{", ".join(existing)} already there; --force overwrites')


def _check_values(state: dict[str, Tensor], dtype: torch.dtype, path: Path) -> None:
    """Refuse what is not finite, or would not be in `dtype`."""
    wrong = [key for key, value in state.items() if value.is_floating_point() and not value.to(dtype).isfinite().all()]
    if wrong:
        raise CheckpointError(f'{path}: values that are not finite as {str(dtype).split(".")[1]}: {", ".join(wrong)}')


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from error


@contextmanager
def _size_named(declared: Mapping[str, Any], state: Mapping[str, Tensor], key_prefix: str = '') -> Iterator[None]:
    """Where no backbone is declared, let the error say what the weights tell of it: all but the attention heads."""
    try:
        yield
    except ModelSpecError as error:
        if declared.get('backbone') is not None:
            raise
        raise ModelSpecError(f'{error}; {describe_size(*encoder_size(*find_encoder(state, key_prefix)))}') from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('source', choices=(*MODEL_SOURCES, *ENCODER_SOURCES),
                        help=f'whose code wrote them; {", ".join(ENCODER_SOURCES)} give an encoder to train from')
    parser.add_argument('file', type=Path, help=f'the weights: {", ".join(SUFFIXES)}')
    parser.add_argument('--output', type=Path, required=True,
                        help='a .yaml, the weights go beside it; for an encoder a .safetensors')
    parser.add_argument('--spec', type=Path, help="YAML of a model's fields; the options below go before it")
    parser.add_argument('--name', help='name of the model (default: that of the output file)')
    parser.add_argument('--backbone', choices=tuple(BACKBONES))
    parser.add_argument('--classes', type=Path, help="names, one a line; or a YAML list, or a model's YAML")
    parser.add_argument('--input-size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), help='to segment at')
    parser.add_argument('--source-size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'),
                        help='image size of the position embedding; only a square one may be left out')
    parser.add_argument('--normalization', choices=tuple(NORMALIZATIONS), help='mean and std of the input')
    parser.add_argument('--auxiliary-layers', type=int, nargs='+', metavar='LAYER',
                        help='1-based layers whose tokens the heads see, the last aside: out_indices + 1')
    parser.add_argument('--head', choices=HEADS)
    parser.add_argument('--decoder-heads', type=int, metavar='N', help='attention heads of the decoders')
    parser.add_argument('--decoder-layers', type=int, metavar='N', help='layers of each decoder (default 3; cts 2)')
    parser.add_argument('--policy', type=Path, metavar='FILE', help="weights of CTS's policy network, where apart")
    parser.add_argument('--policy-key-prefix', metavar='PREFIX', help='taken off the keys of that file')
    parser.add_argument('--without-policy', action='store_true', default=None, help='leave the policy network out')
    parser.add_argument('--entry', help='entry of the file that holds the weights, where several do')
    parser.add_argument('--key-prefix', default='', metavar='PREFIX',
                        help='taken off the keys: which model or encoder, where there are several, as in teacher.')
    parser.add_argument('--patch-size', type=int, metavar='PIXELS',
                        help="of an encoder: resize its patch embedding, as 14 to 16 (default: the file's)")
    parser.add_argument('--prefix-tokens', choices=('keep', 'drop'),
                        help='of an encoder: its class and register tokens (default: keep; a model may leave them out)')
    parser.add_argument('--precision', choices=tuple(PRECISIONS), default='float32', help='of the stored weights')
    parser.add_argument('--force', action='store_true', help='overwrite what is there')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.source in ENCODER_SOURCES:
        digest = convert_to_encoder(args)
        print(f'encoder weights written to {args.output}, sha256 {digest}')
        print(f'no model yet: training starts from them, with `initial_encoder: {args.output}` in its configuration')
        return 0
    spec = convert_to_model(args)
    print(f'model written to {args.output}, weights to {spec.weights_path}, sha256 {spec.sha256}')
    print(f"it runs as {spec.variant}; of the paper's variants it can run {', '.join(spec.legal_variants())}")
    return 0
