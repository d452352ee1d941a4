"""`replay` and `evaluate-bag` agree on what a bag holds, and on what is wrong with it."""

import pytest
import torch
from odd_bags import DAMAGED, FRAMES, USELESS, WHOLE
from tiny_model import write_tiny_model

from hybrid_seg_ros.cli import main
from hybrid_seg_ros.model_spec import Variant
from hybrid_seg_ros.ros.bags.bag_content import BagError
from hybrid_seg_ros.ros.play.bag_evaluation import EvaluateBagOptions, evaluate_bag
from hybrid_seg_ros.ros.play.replay import replay
from hybrid_seg_ros.ros.play.replay_options import ReplayOptions

SOME_WHOLE = ['SQLITE3 MESSAGE metadata missing', 'split, each with each second frame', 'MCAP with foreign channels']


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    torch.set_num_threads(1)
    return write_tiny_model(tmp_path_factory.mktemp('model'))


@pytest.mark.parametrize('name', [*SOME_WHOLE, *DAMAGED])
def test_they_agree(tmp_path, model, name):
    bag = (DAMAGED.get(name) or WHOLE[name])(tmp_path)
    sent = replay(ReplayOptions(bag, rate=50.0, wait_s=0.0))
    report, _ = evaluate_bag(EvaluateBagOptions(bag, model, variants=(Variant(),), with_labels=False))
    assert (sent.sent, sent.damage) == (report.frames, report.damage)
    assert (report.damage is not None) is (name in DAMAGED)
    assert sent.sent == FRAMES or name in DAMAGED


@pytest.mark.parametrize('name', USELESS)
def test_without_an_image_both_are_errors(tmp_path, model, name):
    """Also in a loop, which would never end."""
    bag = USELESS[name][0](tmp_path)
    with pytest.raises(BagError):
        replay(ReplayOptions(bag, loop=True, wait_s=0.0))
    with pytest.raises(BagError):
        evaluate_bag(EvaluateBagOptions(bag, model))


def test_the_commands_say_so(tmp_path, model, capsys):
    commands = {
        'replay': ['--wait', '0', '--rate', '50'],
        'evaluate-bag': ['--model', str(model), '--output', str(tmp_path / 'out'), '--no-labels'],
    }
    for name, status, said in (
        ('MCAP with a bad chunk', 0, 'DAMAGED    drive.mcap has 1 damaged chunk'),
        ('frames that are all garbage', 1, '6 messages are damaged and left out'),
    ):
        (tmp_path / name).mkdir()
        bag = (DAMAGED.get(name) or USELESS[name][0])(tmp_path / name)
        for command, arguments in commands.items():
            assert main([command, str(bag), *arguments]) == status
            printed = capsys.readouterr()
            assert said in (printed.err if status else printed.out)
