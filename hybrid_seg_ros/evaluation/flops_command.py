"""`hybrid_seg flops`: what each variant costs, everything counted, in fvcore's convention."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from hybrid_seg_ros.evaluation.flops import FlopCount, flops_table
from hybrid_seg_ros.evaluation.text_file import replace_text
from hybrid_seg_ros.model_spec import AUXILIARY_HEADS, BACKBONES, PAPER_VARIANTS, POLICIES, REFINEMENTS, STEMS, Decoder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument('--backbone', choices=sorted(BACKBONES), default='vit_tiny')
    parser.add_argument('--classes', type=int, default=150, help='number of classes (default: %(default)s)')
    parser.add_argument('--size', type=int, nargs=2, default=(512, 512), metavar=('H', 'W'), help='input size')
    parser.add_argument('--keep', type=float, default=0.6, help='fraction kept at each pruning layer (%(default)s)')
    parser.add_argument('--decoder-layers', type=int, default=3, help='layers per ATM decoder (default: %(default)s)')
    parser.add_argument('--decoder-dim', type=int, help='channels of the ATM decoders (default: half of the backbone)')
    parser.add_argument('--stem', choices=STEMS, default='patch')
    parser.add_argument('--policy', choices=[name for name in POLICIES if name != 'none'], default='efficientnet_lite0')
    parser.add_argument('--auxiliary-head', choices=AUXILIARY_HEADS, default='atm')
    parser.add_argument('--refinement', choices=REFINEMENTS, default='none')
    parser.add_argument('--json', type=Path, help='write the table here')


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    decoder = Decoder(dim=args.decoder_dim, layers=args.decoder_layers)
    table = flops_table(
        BACKBONES[args.backbone], args.classes, tuple(args.size), args.keep, decoder, args.stem, args.policy,
        auxiliary_head=args.auxiliary_head, refinement=args.refinement,
    )  # fmt: skip
    columns = [field.name for field in dataclasses.fields(FlopCount)] + ['total']
    print(f'GFLOPs (multiply-add = 1), {args.backbone}, {args.classes} classes, {args.size[0]}x{args.size[1]}, '
          f'keep {args.keep}')  # fmt: skip
    print(f'{"variant":<11}{"tokens":>7}' + ''.join(f'{column:>16}' for column in columns))
    for name in PAPER_VARIANTS:
        if name in table:
            row = table[name]
            print(f'{name:<11}{row["tokens"]:>7}' + ''.join(f'{row[column]:>16.3f}' for column in columns))
    if args.json:
        replace_text(args.json, json.dumps(table, indent=2) + '\n')
    return 0
