"""ModelSpec: everything that defines a model but its numbers; read from models/*.yaml."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

import yaml

from hybrid_seg_ros.files import write_text
from hybrid_seg_ros.label_space import LabelSpace
from hybrid_seg_ros.model_path import resolve_model_path

POLICIES = ('none', 'efficientnet_lite0', 'half_size', 'patch_mlp')
HEADS = ('atm', 'light', 'segvit_atm', 'segvit_atm_v2', 'linear', 'mask_transformer')
PRUNING_HEADS = ('atm', 'light')
"""Heads whose masks tokens that left earlier can be written into."""
AUXILIARY_HEADS = ('atm', 'light')
REFINEMENTS = ('none', 'image')
WINDOW_SIZES = (2, 4, 8)
"""Sides, in patches, that windows which share a token may have."""
TRUNK_CONVENTIONS = ('tensorflow', 'timm')
RESIZE_MODES = ('letterbox', 'stretch')
INFERENCE_MODES = ('whole', 'sliding')
PAPER_VARIANTS = ('dense', 'cts', 'dtop@6+8', 'dtop@8', 'hybrid@6+8', 'hybrid@8')

REFINED_STRIDE = 4
"""Pixels per cell of refined masks."""

Keep = Union[int, float]
Windows = tuple[tuple[int, Keep], ...]
"""Per window size, largest first: how many windows share a token, a count or a share of all windows of that size."""


class ModelSpecError(ValueError):
    """A model specification that cannot be used; the message names the file, the field and the legal values."""


@dataclass(frozen=True)
class Variant:
    """A row of the paper's table: does it merge tokens (CTS), and after which 1-based layers does it prune (DToP)."""

    merges: bool = False
    prune_layers: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> 'Variant':
        """Read `dense`, `cts`, `dtop@8`, `dtop@6+8`, `hybrid@8`, `hybrid@6+8` (any ascending layers are legal)."""
        match = re.fullmatch(r'(dense|cts)|(dtop|hybrid)@(\d+(?:\+\d+)*)', str(text))
        if match is None:
            raise ModelSpecError(f'unknown variant {text!r}; legal are {", ".join(PAPER_VARIANTS)}')
        if match[1]:
            return cls(merges=match[1] == 'cts')
        layers = tuple(int(layer) for layer in match[3].split('+'))
        if layers != tuple(sorted(set(layers))) or layers[0] < 1:
            raise ModelSpecError(f'variant {text!r}: expected ascending 1-based layers, as in hybrid@6+8')
        return cls(merges=match[2] == 'hybrid', prune_layers=layers)

    def __str__(self) -> str:
        if not self.prune_layers:
            return 'cts' if self.merges else 'dense'
        return ('hybrid' if self.merges else 'dtop') + '@' + '+'.join(str(layer) for layer in self.prune_layers)


@dataclass(frozen=True)
class TokenBudget:
    """How many tokens merging and pruning leave.

    `merged_windows`: number (int) or share (float in [0, 1]) of 2x2 windows that share a token, or a mapping that has
    one for several window sizes, `{4: 12, 2: 72}` (STEP's superpatches); a share is of all windows of its size, as far
    as larger ones leave them. `keep`: if given, pruning keeps this count
    (int) or fraction (float in (0, 1]) of the tokens that enter each pruning layer, the least confident; one value for
    all layers or one per layer. If not given, tokens whose confidence passes `threshold` leave, except the
    `keep_per_class` most confident of each class (DToP, k = 5).
    """

    merged_windows: Union[Keep, Windows] = 103 / 256
    threshold: float = 0.9
    keep_per_class: int = 5
    keep: Optional[tuple[Keep, ...]] = None

    def __post_init__(self) -> None:
        if self.keep is not None:
            several = hasattr(self.keep, '__iter__') and not isinstance(self.keep, str)
            object.__setattr__(self, 'keep', tuple(self.keep) if several else (self.keep,))
            if not self.keep:
                raise ModelSpecError('keep: expected at least one value, got none')
        self._normalize_windows()
        if not 0.0 < float(self.threshold) <= 1.0:
            raise ModelSpecError(f'threshold: expected a number in (0, 1], got {self.threshold!r}')
        if isinstance(self.keep_per_class, bool) or not isinstance(self.keep_per_class, int) or self.keep_per_class < 0:
            raise ModelSpecError(f'keep_per_class: expected a count >= 0, got {self.keep_per_class!r}')
        for keep in self.keep or ():
            if not _is_count_or_share(keep, low=1) or keep == 0:
                raise ModelSpecError(f'keep: expected a count >= 1 or a fraction in (0, 1], got {keep!r}')

    @property
    def windows(self) -> Windows:
        """Return `merged_windows` per window size, largest first."""
        return self.merged_windows if isinstance(self.merged_windows, tuple) else ((2, self.merged_windows),)

    def _normalize_windows(self) -> None:
        given = self.merged_windows
        if isinstance(given, (Mapping, tuple, list)):
            if not isinstance(given, Mapping) and any(not isinstance(pair, (tuple, list)) for pair in given):
                raise ModelSpecError(f'merged_windows: expected a number for each window size, got {given!r}')
            pairs = dict(given)
            if not pairs or not set(pairs) <= set(WINDOW_SIZES):
                raise ModelSpecError(f'merged_windows: expected window sizes of {WINDOW_SIZES}, got {given!r}')
            plain = pairs[2] if set(pairs) == {2} else tuple(sorted(pairs.items(), reverse=True))
            object.__setattr__(self, 'merged_windows', plain)
        for _, count in self.windows:
            if not _is_count_or_share(count, low=0):
                raise ModelSpecError(f'merged_windows: expected a count or a share in [0, 1], got {given!r}')

    def keep_at(self, stage: int) -> Optional[Keep]:
        """Return the count or fraction kept at the `stage`-th pruning layer (0-based); None = by threshold."""
        if self.keep is None:
            return None
        if len(self.keep) == 1:
            return self.keep[0]
        if stage >= len(self.keep):
            raise ModelSpecError(f'keep: {len(self.keep)} values for at least {stage + 1} pruning layers')
        return self.keep[stage]


@dataclass(frozen=True)
class Backbone:
    """A plain ViT: width, depth, heads, patch side in pixels, and the conventions of where its weights come from.

    A class token has a position of its own, register tokens (Darcet et al. 2024) have none.
    """

    embed_dim: int
    depth: int
    num_heads: int
    patch_size: int = 16
    layer_norm_eps: float = 1e-6
    class_token: bool = False
    register_tokens: int = 0
    final_norm: bool = False

    def __post_init__(self) -> None:
        if self.register_tokens < 0:
            raise ModelSpecError(f'backbone: expected register_tokens >= 0, got {self.register_tokens}')
        if min(self.embed_dim, self.depth, self.num_heads, self.patch_size) < 1 or self.embed_dim % self.num_heads:
            raise ModelSpecError(f'backbone: expected sizes >= 1 and embed_dim divisible by num_heads, got {self}')

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens in front of the patch tokens: the class token and the registers."""
        return int(self.class_token) + self.register_tokens

    def grid_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Return (rows, columns) of the patches that cover an image of `size_hw`; the last ones may reach past it."""
        return -(-size_hw[0] // self.patch_size), -(-size_hw[1] // self.patch_size)


BACKBONES: dict[str, Backbone] = {
    'vit_tiny': Backbone(192, 12, 3),
    'vit_small': Backbone(384, 12, 6),
    'vit_base': Backbone(768, 12, 12),
    'vit_large': Backbone(1024, 24, 16),
}


@dataclass(frozen=True)
class Decoder:
    """Shape of the heads: `dim` channels (None: half the backbone's), `layers` per decoder, attention heads."""

    dim: Optional[int] = None
    layers: int = 3
    num_heads: int = 6

    def __post_init__(self) -> None:
        if min(self.layers, self.num_heads) < 1 or (self.dim is not None and self.dim < 1):
            raise ModelSpecError(f'decoder: expected dim, layers and num_heads of at least 1, got {self}')


@dataclass(frozen=True)
class SlidingWindow:
    """The paper's sliding window: square crops of `crop` pixels, one every `stride` pixels.

    The image's short side is resized to `crop` first, its long side to at most four times that.
    """

    crop: int = 512
    stride: int = 341

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.crop:
            raise ModelSpecError(f'sliding_window: expected 0 < stride <= crop, got {self.stride} and {self.crop}')


@dataclass(frozen=True)
class ModelSpec:
    """A model: architecture, classes, input, default variant and token budget, and its weight file.

    `mean` and `std` are RGB in 0-255. `input_size_hw` is what whole-frame inference feeds the network; `inference`
    'sliding' uses `sliding_window` instead. `weights` is a path relative to the spec's own file; `sha256` is that of
    the weight file.

    The paper's form has `policy: efficientnet_lite0`, `auxiliary_head: atm` and `refinement: none`. `policy` names what
    scores the windows of each of `window_sizes` (see merge_policy.py), `auxiliary_head` what decides at pruning layers;
    `refinement: image` brings the masks to stride 4 with a few convolutions on the image.
    """

    name: str
    backbone: Backbone
    classes: LabelSpace
    input_size_hw: tuple[int, int] = (512, 512)
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)
    resize: str = 'letterbox'
    inference: str = 'whole'
    sliding_window: SlidingWindow = field(default_factory=SlidingWindow)
    policy: str = 'efficientnet_lite0'
    window_sizes: tuple[int, ...] = (2,)
    trunk_convention: str = 'tensorflow'
    head: str = 'atm'
    decoder: Decoder = field(default_factory=Decoder)
    auxiliary_head: str = 'atm'
    auxiliary_layers: tuple[int, ...] = (6, 8)
    refinement: str = 'none'
    variant: Variant = field(default_factory=Variant)
    budget: TokenBudget = field(default_factory=TokenBudget)
    weights: Optional[str] = None
    sha256: Optional[str] = None
    folder: Path = field(default=Path('.'), compare=False)

    def __post_init__(self) -> None:
        for name, legal in (
            ('policy', POLICIES), ('head', HEADS), ('auxiliary_head', AUXILIARY_HEADS),
            ('trunk_convention', TRUNK_CONVENTIONS), ('resize', RESIZE_MODES),
            ('inference', INFERENCE_MODES), ('refinement', REFINEMENTS),
        ):  # fmt: skip
            if getattr(self, name) not in legal:
                raise ModelSpecError(f'{name}: unknown value {getattr(self, name)!r}; legal are {", ".join(legal)}')
        for name in ('input_size_hw', 'mean', 'std', 'auxiliary_layers', 'window_sizes'):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.input_size_hw) != 2 or min(self.input_size_hw) < self.backbone.patch_size:
            raise ModelSpecError(f'input_size_hw: expected [height, width], a patch at least, got {self.input_size_hw}')
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ModelSpecError(f'mean, std: expected three numbers each, std > 0, got {self.mean}, {self.std}')
        if self.auxiliary_layers != tuple(sorted(set(self.auxiliary_layers))) or any(
            not 1 <= layer < self.backbone.depth for layer in self.auxiliary_layers
        ):
            raise ModelSpecError(
                f'auxiliary_layers: expected ascending layers below {self.backbone.depth}, got {self.auxiliary_layers}'
            )
        if not {2} <= set(self.window_sizes) <= set(WINDOW_SIZES):
            raise ModelSpecError(f'window_sizes: expected 2, and more of {WINDOW_SIZES}, got {self.window_sizes}')
        object.__setattr__(self, 'window_sizes', tuple(sorted(set(self.window_sizes))))
        self.check_windows(self.budget)
        if 'atm' in self.head and self.decoder_dim % self.decoder.num_heads:
            raise ModelSpecError(
                f'decoder: expected dim divisible by num_heads, got {self.decoder_dim} and {self.decoder.num_heads}'
            )
        if self.refinement != 'none' and self.head not in PRUNING_HEADS:
            raise ModelSpecError(f'refinement: expected head {" or ".join(PRUNING_HEADS)}, got {self.head}')
        if self.refinement != 'none' and self.backbone.patch_size % REFINED_STRIDE:
            raise ModelSpecError(
                f'refinement: expected a patch size divisible by {REFINED_STRIDE}, got {self.backbone.patch_size}'
            )
        self.check_variant(self.variant)

    @property
    def network_size_hw(self) -> tuple[int, int]:
        """Size of one network input: the whole frame's, or a crop of the sliding window."""
        crop = self.sliding_window.crop
        return self.input_size_hw if self.inference == 'whole' else (crop, crop)

    @property
    def decoder_dim(self) -> int:
        """Channels of the ATM decoders."""
        return self.decoder.dim or self.backbone.embed_dim // 2

    @property
    def scores_kind(self) -> str:
        """What the network's class scores are: 'probability', 'logits' or 'mask_logits' (see SegmenterOutput)."""
        if self.head in PRUNING_HEADS:
            return 'probability'
        return 'mask_logits' if self.head in ('segvit_atm', 'segvit_atm_v2') else 'logits'

    @property
    def cell_px(self) -> int:
        """Pixels per cell of the class scores: those of a patch, or 4 where the masks are refined."""
        return self.backbone.patch_size if self.refinement == 'none' else REFINED_STRIDE

    @property
    def weights_path(self) -> Optional[Path]:
        """Absolute or spec-relative path of the weight file; None where the spec names none."""
        return None if self.weights is None else self.folder / self.weights

    def with_weights_hash(self) -> 'ModelSpec':
        """Return the spec with the sha256 of its weight file, where it does not state one and the file is there."""
        if self.sha256 is not None or self.weights_path is None or not self.weights_path.is_file():
            return self
        return dataclasses.replace(self, sha256=sha256_of(self.weights_path))

    def legal_variants(self) -> tuple[str, ...]:
        """List the variants of the paper's table that this model can run."""
        return tuple(name for name in PAPER_VARIANTS if not self._variant_problem(Variant.parse(name)))

    def check_variant(self, variant: Variant) -> None:
        """Raise ModelSpecError if this model cannot run `variant`."""
        problem = self._variant_problem(variant)
        if problem:
            raise ModelSpecError(
                f'variant {variant}: {problem}; legal for {self.name} are {", ".join(self.legal_variants())}'
            )

    def check_windows(self, budget: TokenBudget) -> None:
        """Raise ModelSpecError if a budget merges windows of a size that this model's policy does not score."""
        unknown = [window for window, _ in budget.windows if window not in self.window_sizes]
        if unknown:
            raise ModelSpecError(
                f'merged_windows: expected window sizes of {self.name}, {self.window_sizes}, got {unknown[0]}'
            )

    def _variant_problem(self, variant: Variant) -> Optional[str]:
        if variant.merges and self.policy == 'none':
            return 'the model has no policy network to choose the windows to merge'
        missing = [layer for layer in variant.prune_layers if layer not in self.auxiliary_layers]
        if missing:
            return f'no auxiliary head after layer {missing[0]} (there is one after {list(self.auxiliary_layers)})'
        if variant.prune_layers and self.head not in PRUNING_HEADS:
            return f'head {self.head!r} cannot write pruned tokens back'
        return None

    @classmethod
    def load(cls, path: Union[str, Path]) -> 'ModelSpec':
        """Read a spec from a YAML file, or the one of a name in models/, '' being the default.

        Raises ModelSpecError (file and field named) or FileNotFoundError.
        """
        path = resolve_model_path(path)
        if not path.is_file():
            raise FileNotFoundError(f'model spec {path}: no such file')
        try:
            content = yaml.safe_load(path.read_text(encoding='utf-8'))
            return cls.from_dict(content, folder=path.parent)
        except (yaml.YAMLError, UnicodeDecodeError, ValueError, TypeError) as error:
            raise ModelSpecError(f'model spec {path}: {error}') from error

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], folder: Path = Path('.')) -> 'ModelSpec':
        """Build from the content of a YAML file; unknown keys are errors."""
        if not isinstance(content, Mapping):
            raise ModelSpecError(f'expected a mapping, got {type(content).__name__}')
        fields = _known(cls, content, exclude=('folder',))
        for required in ('name', 'backbone', 'classes'):
            if required not in fields:
                raise ModelSpecError(f'{required}: missing')
        fields['backbone'] = _backbone(fields['backbone'])
        fields['classes'] = LabelSpace.from_entries(fields['classes'])
        if 'decoder' in fields:
            fields['decoder'] = Decoder(**_known(Decoder, fields['decoder']))
        if 'sliding_window' in fields:
            fields['sliding_window'] = SlidingWindow(**_known(SlidingWindow, fields['sliding_window']))
        if 'variant' in fields:
            fields['variant'] = Variant.parse(fields['variant'])
        if 'budget' in fields:
            fields['budget'] = TokenBudget(**_known(TokenBudget, fields['budget']))
        return cls(**fields, folder=folder)

    def to_dict(self) -> dict[str, Any]:
        """Return plain YAML types; `from_dict` reads it back to an equal spec."""
        content = dataclasses.asdict(self)
        del content['folder']
        content.update(variant=str(self.variant), classes=self.classes.to_entries())
        if isinstance(self.budget.merged_windows, tuple):
            content['budget']['merged_windows'] = dict(self.budget.merged_windows)
        return _plain({key: value for key, value in content.items() if value is not None})

    def save(self, path: Union[str, Path]) -> None:
        """Write the spec as YAML, whole or not at all."""
        write_text(path, yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None))


def sha256_of(path: Union[str, Path]) -> str:
    """Return the hex sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, 'rb') as stream:
        for block in iter(lambda: stream.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()


def _backbone(value: Any) -> Backbone:
    """Read `vit_tiny`, or a mapping of sizes, which may start from a preset: `{preset: vit_tiny, final_norm: true}`."""
    if isinstance(value, str):
        value = {'preset': value}
    if not isinstance(value, Mapping):
        raise ModelSpecError(f'backbone: expected a name or a mapping, got {value!r}')
    value = dict(value)
    preset = value.pop('preset', None)
    fields = _known(Backbone, value)
    if preset is None:
        return Backbone(**fields)
    if preset not in BACKBONES:
        raise ModelSpecError(f'backbone: unknown name {preset!r}; legal are {", ".join(BACKBONES)}')
    return dataclasses.replace(BACKBONES[preset], **fields)


def _known(cls: type, content: Mapping[str, Any], exclude: tuple[str, ...] = ()) -> dict[str, Any]:
    legal = [f.name for f in dataclasses.fields(cls) if f.name not in exclude]
    if not isinstance(content, Mapping):
        raise ModelSpecError(f'{cls.__name__}: expected a mapping of {", ".join(legal)}, got {content!r}')
    unknown = sorted(set(content) - set(legal))
    if unknown:
        raise ModelSpecError(f'unknown keys {unknown} for {cls.__name__}; legal are {", ".join(legal)}')
    return dict(content)


def _is_count_or_share(value: Any, low: int) -> bool:
    if isinstance(value, bool):
        return False
    return (isinstance(value, int) and value >= low) or (isinstance(value, float) and 0.0 <= value <= 1.0)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
