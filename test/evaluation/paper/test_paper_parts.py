"""The parts of `hybrid_seg paper`: what is drawn black, which images are chosen, what the verdict says."""

import numpy as np
import pytest
from tiny_model import tiny_spec

from hybrid_seg_ros.data.registry import open_dataset
from hybrid_seg_ros.evaluation.benchmark.plan import RowKey
from hybrid_seg_ros.evaluation.benchmark.results import Violation
from hybrid_seg_ros.evaluation.paper.command import mean_budget
from hybrid_seg_ros.evaluation.paper.layers import LayerCosts, StepCost, layer_costs, parts_of_steps, steps_by_place
from hybrid_seg_ros.evaluation.paper.page import make_page
from hybrid_seg_ros.evaluation.paper.tables import PaperRow, PaperSetup, PaperTables
from hybrid_seg_ros.evaluation.paper.token_figures import (
    TokenFigures,
    choose_apart,
    easy_and_hard,
    pruning_variant,
    rank_by_tokens,
    spread,
)
from hybrid_seg_ros.inference.pipeline import load_pipeline
from hybrid_seg_ros.model_spec import SlidingWindow, TokenBudget, Variant
from hybrid_seg_ros.segmentation import TokenReport
from hybrid_seg_ros.visualization import draw_pruned

PRUNED = np.array([[6, 0, 8], [0, 0, 0]], np.uint8)
WHITE = np.full((20, 30, 3), 255, np.uint8)


def report(pruned=PRUNED, **fields):
    grid_hw = pruned.shape
    kept = ((6, pruned.size - 1), (8, pruned.size - 2))
    return TokenReport(grid_hw, np.ones(grid_hw, np.uint8), pruned, pruned.size, kept, **fields)


@pytest.mark.parametrize('layer, black', [(6, PRUNED == 6), (8, PRUNED > 0)])
def test_pruned_tokens_are_black_stage_by_stage(layer, black):
    picture = draw_pruned(WHITE, report(), layer, (40, 60))
    assert picture.shape == (40, 60, 3) and (WHITE == 255).all()
    expected = np.where(np.kron(black, np.ones((20, 20), bool)), 0, 255)
    assert (picture == expected[:, :, None]).all()


def test_a_grid_that_reaches_past_the_image():
    """Twice as large as the image: only the first row of cells, and of these two, lie on it."""
    picture = draw_pruned(WHITE, report(areas=((0.0, 0.0, 40.0, 45.0),)), 8, (20, 30))
    assert (picture[:, :15] == 0).all() and (picture[:, 15:] == 255).all()


def test_the_crops_of_a_sliding_window():
    tokens = report(np.array([[6, 0], [0, 0]], np.uint8), areas=((0.0, 0.0, 20.0, 20.0), (0.0, 10.0, 20.0, 20.0)))
    picture = draw_pruned(WHITE, tokens, 6, (20, 30))
    assert (picture[:, :10] == 0).all() and (picture[:, 10:] == 255).all()


@pytest.mark.parametrize('ranked, count, apart, chosen', [
    ([3, 4, 9, 1], 2, 1, [3, 4]),
    ([3, 4, 9, 1], 2, 3, [3, 9]),
    ([3, 4], 2, 5, [3]),
    ([], 2, 1, []),
])  # fmt: skip
def test_images_that_are_not_neighbours(ranked, count, apart, chosen):
    assert choose_apart(ranked, count, apart) == chosen


@pytest.mark.parametrize('frames, indices', [(1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3]), (100, [12, 37, 62, 87])])
def test_images_spread_over_the_data(frames, indices):
    assert spread(frames, 4) == indices


def test_images_by_the_tokens_that_are_left(tiny_model, camvid_root):
    dataset = open_dataset('camvid', camvid_root, 'val')
    pipeline = load_pipeline(tiny_model, 'pytorch', 'cpu', variant='dtop@6+8', threshold=0.3)
    left = [pipeline(dataset[index].image).tokens.kept[-1][1] for index in range(2)]
    ranked = rank_by_tokens(pipeline, dataset, 2)
    assert sorted(ranked) == [0, 1] and left[ranked[0]] <= left[ranked[1]]
    assert easy_and_hard(pipeline, dataset, 2, 5) == (ranked[:1], ranked[1:])
    assert easy_and_hard(pipeline, dataset, 1, 5) == ([0], [])


@pytest.mark.parametrize('overrides, variant', [
    ({}, 'hybrid@6+8'),
    ({'policy': 'none', 'variant': Variant()}, 'dtop@6+8'),
    ({'auxiliary_layers': (8,), 'variant': Variant()}, 'hybrid@8'),
    ({'auxiliary_layers': (), 'variant': Variant()}, 'None'),
])  # fmt: skip
def test_variant_that_shows_pruning(overrides, variant):
    assert str(pruning_variant(tiny_spec(**overrides))) == variant


def test_budget_of_mean_tokens():
    spec, variant = tiny_spec(), Variant.parse('hybrid@6+8')
    tokens = {'total': 48.0, 'merged': 33.0, 'kept@6': 20.4, 'kept@8': 0.2}
    assert mean_budget(spec, variant, TokenBudget(), tokens).keep == (20, 1)
    assert mean_budget(spec, Variant(), TokenBudget(), {'total': 48.0, 'merged': 48.0}).keep is None
    crops = tiny_spec(inference='sliding', sliding_window=SlidingWindow(64, 48))
    twice = {'total': 32.0, 'merged': 20.0, 'kept@6': 14.0, 'kept@8': 6.0}
    assert mean_budget(crops, variant, TokenBudget(), twice).keep == (7, 3)


def test_costs_of_steps_from_those_of_parts():
    spec, variant, budget = tiny_spec(refinement='image'), Variant.parse('dtop@8'), TokenBudget(keep=12)
    parts = parts_of_steps(spec, variant, budget)
    assert parts['layer 8'] == 'block, 48 tokens' and parts['layer 9'] == 'block, 12 tokens'
    assert parts['auxiliary head 8'] == 'auxiliary head, 48 tokens' and parts['head'] == 'head, 12 tokens'
    assert 'policy' not in parts and 'policy' in parts_of_steps(spec, Variant(merges=True), budget)
    costs = layer_costs(spec, variant, budget, {**dict.fromkeys(parts.values(), 2.0), 'whole network, dtop@8': 40.0})
    assert costs.tokens == (48, 12) and costs.network_ms == 40
    assert costs.parts_ms == 2 * len(parts) == 2 * (12 + 4)  # embedding, auxiliary head, head, refinement
    assert [step.name for step in costs.steps if step.ms is None] == ['upsampling']
    assert costs.steps[-1].fps_up_to_here == pytest.approx(1000 / costs.parts_ms)


def test_places_of_steps():
    names = ['embedding', 'policy', 'layer 1', 'layer 6', 'auxiliary head 6', 'layer 7', 'head', 'upsampling']
    places = steps_by_place(LayerCosts('x', (), tuple(StepCost(name, 1.0, None, None) for name in names), 1.0))
    assert {place: [step.name for step in steps] for place, steps in places.items()} == {
        'in': names[:2], '1': ['layer 1'], '6': ['layer 6'], 'h6': ['auxiliary head 6'], '7': ['layer 7'],
        'out': names[-2:]}  # fmt: skip


def row(variant, gflops_change, speed):
    return PaperRow(variant, False, (), 50.0, 60.0, 1.0, 1.0, {'total': 4.0, 'merged': 4.0}, 10.0, 100.0, 110.0, 90.0,
                    0.0, gflops_change, speed, speed)  # fmt: skip


def tables(rows, rounds, slower=()):
    subject = PaperSetup('m', 'random', (96, 128), False, 11, 'camvid', 'val', 2, 'pytorch', 'float32', 'cpu', 'cpu',
                      rounds, 'none', 0.9)  # fmt: skip
    made = (row('dense', 0.0, 1.0), *(row(*each) for each in rows))
    return PaperTables(subject, made, (LayerCosts('dense', (48,), (), 1.0),), {}, slower)


@pytest.mark.parametrize('rows, rounds, says', [
    ([('cts', -40.0, 1.2), ('dtop@8', -20.0, 1.01)], 30, 'Every variant that takes fewer GFLOPs than the dense one is'),
    ([('cts', -40.0, 0.9), ('dtop@8', -20.0, 1.1)], 30, 'Not faster than the dense one, though of fewer GFLOPs: cts ('),
    ([('dtop@8', 3.0, 0.9)], 30, 'No variant takes fewer GFLOPs'),
    ([('cts', -40.0, 1.2)], 4, 'it takes at least 5 rounds to tell from chance'),
])  # fmt: skip
def test_verdict(rows, rounds, says):
    verdict = tables(rows, rounds).verdict()
    assert says in verdict and ('chance' in verdict) == (rounds < 5)


def test_page_warns_of_what_saves_gflops_and_no_time():
    keys = [RowKey('m', (96, 128), name, 'pytorch', 'float32') for name in ('cts', 'dense')]
    slower = Violation(*keys, (1.0, 2.0), 1.25, 9, 10)
    page = make_page(tables([('cts', -40.0, 0.8)], 10, (slower,)), b'', TokenFigures())
    assert any('Fewer GFLOPs but slower' in each and '1.25 times as long' in each for each in page.warnings)
    assert any('weights are random' in warning for warning in page.warnings)
    assert 'slower though of fewer GFLOPs: cts than dense' in tables([('cts', -40.0, 0.8)], 10, (slower,)).verdict()
