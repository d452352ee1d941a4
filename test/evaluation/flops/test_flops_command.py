"""`hybrid_seg flops`: what it counts, its tables and JSON, what it refuses, and the page that shows its tables."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest
from tiny_model import tiny_spec

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.evaluation.flops.count import COMPONENTS, count_flops, expected_tokens
from hybrid_seg_ros.model_spec import BACKBONES, SlidingWindow, TokenBudget, Variant

ROOT = Path(__file__).parents[3]
PAGE = ROOT / 'docs' / 'flops.md'


def flops(tmp_path, *options):
    """Run the command and return its JSON."""
    out = tmp_path / 'flops.json'
    assert main(['flops', *options, '--json', str(out)]) == 0
    return json.loads(out.read_text())


@pytest.fixture
def model(tmp_path):
    """Write a spec whose weights are not there."""
    path = tmp_path / 'tiny.yaml'
    spec = tiny_spec(auxiliary_head='light', refinement='image')
    dataclasses.replace(spec, weights='gone.safetensors').save(path)
    return path


def test_a_model_is_counted_as_its_spec_has_it(model, tmp_path, capsys):
    table = flops(tmp_path, '--model', str(model), '--keep', '0.5')
    spec = tiny_spec(auxiliary_head='light', refinement='image')
    assert list(table) == list(spec.legal_variants())
    for name, row in table.items():
        variant = Variant.parse(name)
        counted = expected_tokens(spec, (96, 128), variant, dataclasses.replace(spec.budget, keep=(0.5,)))
        assert row['total'] == count_flops(spec, (96, 128), variant, *counted).gflops
        assert row['total'] == pytest.approx(sum(row[component] for component in COMPONENTS))
    assert 'tiny: 11 classes, 96x128, 40.2 % of the windows merged, keep 0.5' in capsys.readouterr().out


def test_a_model_that_prunes_by_threshold_says_what_is_counted_instead(model, capsys):
    assert main(['flops', '--model', str(model), '--variants', 'hybrid@8']) == 0
    assert "keep 0.6 instead of the model's threshold" in capsys.readouterr().out


def test_values_without_effect_are_said_of_all_variants_that_are_counted(model, caplog):
    assert main(['flops', '--model', str(model), '--keep', '0.6', '0.5', '0.4']) == 0
    assert 'of 3 values only 2 have an effect' in caplog.text


def test_one_crop_of_a_sliding_window_or_the_size_that_is_given(tmp_path, capsys):
    path = tmp_path / 'sliding.yaml'
    tiny_spec(inference='sliding', sliding_window=SlidingWindow(64, 48), budget=TokenBudget(keep=(0.5,))).save(path)
    assert flops(tmp_path, '--model', str(path))['dense']['tokens'] == 16
    assert 'one crop' in capsys.readouterr().out
    assert flops(tmp_path, '--model', str(path), '--size', '90', '130')['dense']['tokens'] == 6 * 9  # padded
    assert 'one crop' not in capsys.readouterr().out


def test_several_backbones_make_one_more_level(tmp_path, capsys):
    tables = flops(tmp_path, '--backbone', 'all', '--classes', '19', '--size', '360', '640')
    assert list(tables) == list(BACKBONES)
    printed = capsys.readouterr().out
    for name, table in tables.items():
        assert table['dense']['tokens'] == 23 * 40
        assert f'{name}: 19 classes, 360x640' in printed
    assert tables['vit_large']['dense']['total'] > tables['vit_base']['dense']['total']


def test_operating_points_are_those_of_the_options(tmp_path):
    options = ('--variants', 'cts,hybrid@4+9', 'dtop@5', '--merged-windows', '100', '--keep', '400', '0.5')
    table = flops(tmp_path, *options)
    assert list(table) == ['cts', 'hybrid@4+9', 'dtop@5']
    assert table['cts']['tokens'] == 724
    assert [table['hybrid@4+9'][key] for key in ('kept@4', 'kept@9')] == [400, 200]
    assert table['dtop@5']['kept@5'] == 400


@pytest.mark.parametrize(('windows', 'tokens', 'words'), [
    ('4:12,2:100', 1024 - 180 - 300, '12 of the 4x4 windows and 100 of the 2x2 windows merged'),
    ('2:0.25,8:2', 1024 - 126 - 192, '2 of the 8x8 windows and 25 % of the 2x2 windows merged'),
    ('2:103', 1024 - 309, '103 of the windows merged'), ('0.5', 640, '50 % of the windows merged'),
])  # fmt: skip
def test_windows_of_several_sizes(tmp_path, capsys, windows, tokens, words):
    table = flops(tmp_path, '--variants', 'cts', '--merged-windows', windows)
    assert table['cts']['tokens'] == tokens and words in capsys.readouterr().out


@pytest.mark.parametrize('windows', ['4:1,4:2', 'x', '4:', '4:1;2:3', ':3', '-1', '1.5', '4:-1'])
def test_windows_that_cannot_be_read(windows, capsys):
    with pytest.raises(SystemExit, match='2'):
        main(['flops', f'--merged-windows={windows}'])
    assert f"0 to 1, or one of them for each size, as in 4:12,2:72, got '{windows}'" in capsys.readouterr().err


def test_layers_sum_up_to_the_total(tmp_path, capsys):
    for row in flops(tmp_path, '--layers').values():
        assert sum(row['layers'].values()) == pytest.approx(row['total'])
    printed = capsys.readouterr().out
    steps = re.findall(r'^(layer 5|layer 6|auxiliary head 6|layer 7|policy|embedding)\b', printed, re.MULTILINE)
    assert steps == ['embedding', 'policy', 'layer 5', 'layer 6', 'auxiliary head 6', 'layer 7']


def test_beside_the_paper(tmp_path):
    compared = flops(tmp_path, '--paper', '--keep', '0.8')
    assert list(compared) == ['vit_tiny', 'vit_base']
    for backbone, rows in compared.items():
        ours = flops(tmp_path, '--backbone', backbone, '--keep', '0.8')
        without = rows["ours in the paper's form, without the policy network"]
        runs = rows["ours in the paper's form, everything that runs"]
        assert runs == {name: ours[name]['total'] for name in runs}
        assert runs['cts'] - without['cts'] == pytest.approx(1.971, abs=1e-3) and runs['dense'] == without['dense']
    assert compared['vit_tiny']['the paper']['cts'] == 7.6


def test_the_keep_that_gives_the_paper_s_total_gives_it(tmp_path):
    keeps = flops(tmp_path, '--paper', '--backbone', 'vit_base')['vit_base']['keep']
    for name, reported in (('hybrid@8', 68.3), ('dtop@6+8', 86.3)):
        row = flops(tmp_path, '--backbone', 'vit_base', '--keep', str(keeps[name]), '--variants', name)[name]
        assert row['total'] - row['policy'] == pytest.approx(reported, abs=0.05)  # whole tokens


def test_no_keep_gives_a_total_above_that_of_all_tokens(tmp_path):
    assert flops(tmp_path, '--paper', '--backbone', 'vit_tiny')['vit_tiny']['keep']['hybrid@8'] is None


@pytest.mark.parametrize(
    ('options', 'complaint'),
    [
        ('--classes 0', 'expected 1 to 255 classes, got 0'),
        ('--size 8 512', 'expected [height, width], a patch at least'),
        ('--keep 0', 'keep: expected a count >= 1 or a fraction in (0, 1], got 0'),
        ('--keep 0.5 0.6 --variants dense,dtop@4+6+8', '2 values for at least 3 pruning layers'),
        ('--merged-windows 300', 'expected at most 256'),
        ('--merged-windows 4:65', 'expected at most 64 of 4x4'),
        ('--merged-windows 4:64,2:1', 'expected at most 0 of 2x2'),
        ('--merged-windows 3:1', 'expected 2, and more of (2, 4, 8)'),
        ('--decoder-layers 0', 'expected dim, layers and num_heads of at least 1'),
        ('--variants fast', "unknown variant 'fast'; legal are dense, cts"),
        ('--variants dtop@12', 'expected ascending layers below 12'),
        ('--variants cts --policy none', 'no policy network to choose the windows'),
        ('--head linear --variants dtop@8', 'cannot write pruned tokens back'),
        ('--refinement image --head linear', 'refinement: expected head atm or light, got linear'),
        ('--model none.yaml', 'none.yaml: no such file'),
        ('--model none.yaml --backbone vit_base --head atm', 'expected it without --backbone, --head'),
        ('--paper --size 64 64', '--paper counts 150 classes, 512x512, in two forms: expected it without --size'),
        ('--paper --backbone vit_small', 'no figures of vit_small; expected vit_base, vit_tiny'),
        ('--paper --keep 0.5 0.6', 'expected one --keep for all pruning layers, got 2'),
        ('--picture no_folder/x.png/y.png', 'no_folder/x.png'),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(options, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'no_folder').mkdir()
    (tmp_path / 'no_folder' / 'x.png').touch()
    assert main(['flops', *options.split(), '--json', 'out.json']) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / 'out.json').exists()


def test_a_picture_is_drawn_of_what_was_counted(tmp_path):
    path = tmp_path / 'flops.png'
    flops(tmp_path, '--backbone', 'vit_tiny', 'vit_base', '--refinement', 'image', '--picture', str(path))
    assert path.read_bytes().startswith(b'\x89PNG')


def page_commands():
    found = re.findall(r'^hybrid_seg (flops .*--markdown)$', PAGE.read_text(encoding='utf-8'), re.MULTILINE)
    assert len(found) == 2
    return found


@pytest.mark.parametrize('command', page_commands())
def test_the_page_shows_what_the_command_prints(command, capsys):
    assert main(shlex.split(command)) == 0
    printed = capsys.readouterr().out.strip()
    assert '| dense |' in printed
    assert ' '.join(printed.split()) in ' '.join(PAGE.read_text(encoding='utf-8').split())


def test_the_page_s_nearest_choice_of_heads_is_what_the_command_prints(tmp_path):
    text = ' '.join(PAGE.read_text(encoding='utf-8').split())
    found = re.findall(r'`(--paper [^`]*--backbone (\w+))`(?: gives)? ([\d.]+) and ([\d.]*\d)', text)
    assert [backbone for _, backbone, *_ in found] == ['vit_base', 'vit_tiny']
    for options, backbone, *expected in found:
        rows = flops(tmp_path, *options.split())[backbone]
        row = rows['the same, both auxiliary heads counted although nothing prunes']
        assert [f'{row[name]:.2f}' for name in ('dense', 'cts')] == expected
