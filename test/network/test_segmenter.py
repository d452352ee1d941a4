"""The whole method: variants, sizes, batches, and what must be equal to what."""

import numpy as np
import pytest
import torch
from tiny_model import tiny_spec

from hybrid_seg_ros.model_spec import PAPER_VARIANTS, Backbone, ModelSpecError, TokenBudget, Variant
from hybrid_seg_ros.network.merge_policy import window_scores
from hybrid_seg_ros.network.segmenter import HybridSegmenter, pad_to_multiple, to_grid
from hybrid_seg_ros.network.token_layout import TokenLayout
from hybrid_seg_ros.network.token_merging import choose_windows, count_entering, count_merged_windows

SIZES = {'96x128': (96, 128), 'odd 100x77': (100, 77)}
DENSE = Variant()


def build(**overrides):
    """Return a tiny model whose heads are unlike each other's and unsure enough that thresholds split the tokens."""
    torch.manual_seed(0)
    model = HybridSegmenter(tiny_spec(**overrides)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and not name.startswith('policy.'):
                parameter.mul_(6.0)
    return model


@pytest.fixture(scope='module')
def model():
    return build()


def images(batch, size_hw, seed=1):
    """Return normalised images, each brighter than the one before, so that they keep different numbers of tokens."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, 3, *size_hw, generator=generator)
    return noise * torch.linspace(0.2, 2.0, batch)[:, None, None, None] if batch > 1 else noise


def check_merged(output, windows):
    """All cells of a window have the same scores, and there are as many such windows as were to merge."""
    for image in range(len(output.scores)):
        cells = output.layout.token_of_cell[image]
        for window, count in windows.items():
            tokens = torch.nonzero(output.layout.window_sizes()[image] == window)[:, 0]
            assert len(tokens) == count
            for token in tokens:
                scores = output.scores[image].flatten(1)[:, cells == token]
                assert scores.shape[1] == window**2 and torch.equal(scores, scores[:, :1].expand_as(scores))


def grid_of(size_hw):
    return tuple(-(-side // 16) for side in size_hw)


def median_threshold(model, image, variant):
    """Return a threshold that a third of the tokens pass at least, from what the first pruning head says."""
    with torch.no_grad():
        stage = model(image, variant, TokenBudget(threshold=1.0)).stages[0]
        present = stage.class_logits.softmax(-1)[..., 0]
        confidence = (present[:, :, None] * stage.mask_logits.sigmoid()).amax(1).flatten().sort().values
        middle = confidence[len(confidence) // 3 : 2 * len(confidence) // 3]
        widest = int(middle.diff().argmax())  # between two tokens, far from both: rounding must not decide
        return float(middle[widest : widest + 2].mean())


@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('size_hw', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('name', PAPER_VARIANTS)
@torch.no_grad()
def test_every_variant(model, name, size_hw, batch):
    variant, grid_hw = Variant.parse(name), grid_of(size_hw)
    output = model(images(batch, size_hw), variant, TokenBudget(threshold=0.3))
    assert output.scores.shape == (batch, 11, *grid_hw) and output.scores.dtype == torch.float32
    assert output.kind == 'probability' and 0 <= output.scores.min() and output.scores.max() <= 1
    windows = round(103 / 256 * (grid_hw[0] // 2) * (grid_hw[1] // 2)) if variant.merges else 0
    assert output.layout.num_tokens == grid_hw[0] * grid_hw[1] - 3 * windows
    assert [stage.layer for stage in output.stages] == [*variant.prune_layers, 12]
    assert set(output.pruned_after_layer.unique().tolist()) <= {0, *variant.prune_layers}
    for stage in output.stages[:-1]:
        left = (output.pruned_after_layer > 0) & (output.pruned_after_layer <= stage.layer)
        assert torch.equal(stage.alive.counts(), (~left).sum(1))
    assert output.scores.isfinite().all()


@pytest.mark.parametrize('size_hw', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('name', PAPER_VARIANTS)
@torch.no_grad()
def test_a_batch_gives_what_its_images_give_alone(model, name, size_hw):
    variant, batch = Variant.parse(name), images(4, size_hw)
    batch[3] = batch[0] * 0.01
    budget = TokenBudget(threshold=median_threshold(model, batch, variant), keep_per_class=1)
    together = model(batch, variant, budget)
    if variant.prune_layers:
        assert len(set(together.stages[0].alive.counts().tolist())) > 1, 'the case must have padding'
        assert together.stages[0].alive.counts().min() < together.layout.num_tokens
    for index in range(len(batch)):
        alone = model(batch[index : index + 1], variant, budget)
        assert torch.equal(alone.pruned_after_layer[0], together.pruned_after_layer[index])
        torch.testing.assert_close(alone.scores[0], together.scores[index], atol=1e-5, rtol=1e-4)
        for one, all_ in zip(alone.stages, together.stages):
            assert one.alive.counts()[0] == all_.alive.counts()[index]
            torch.testing.assert_close(one.mask_logits[0], all_.mask_logits[index], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_one_image_prunes_and_another_does_not(model):
    """Each image keeps its own count also where one of the batch keeps every token."""
    variant, batch = Variant.parse('dtop@6+8'), images(4, (96, 128))
    stage = model(batch, variant, TokenBudget(threshold=1.0)).stages[0]
    highest = (stage.class_logits.softmax(-1)[:, :, :1] * stage.mask_logits.sigmoid()).amax((1, 2)).sort().values
    budget = TokenBudget(threshold=float(highest[:2].mean()), keep_per_class=0)
    together = model(batch, variant, budget)
    counts = together.stages[0].alive.counts()
    assert counts.max() == 48 > counts.min()
    for index in range(4):
        alone = model(batch[index : index + 1], variant, budget)
        torch.testing.assert_close(alone.scores[0], together.scores[index], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('size_hw', SIZES.values(), ids=SIZES)
@torch.no_grad()
def test_identities(model, size_hw):
    """Nothing to merge and nothing to prune is the dense model."""
    batch = images(2, size_hw)
    dense = model(batch, DENSE, TokenBudget()).scores
    for name, budget in [
        ('dtop@6+8', TokenBudget(threshold=1.0)),
        ('dtop@8', TokenBudget(keep=1.0)),
        ('dtop@6+8', TokenBudget(keep=(1.0, 10_000))),
        ('cts', TokenBudget(merged_windows=0)),
        ('hybrid@6+8', TokenBudget(merged_windows=0, threshold=1.0)),
        ('hybrid@8', TokenBudget(merged_windows=0.0, keep=1.0)),
    ]:
        torch.testing.assert_close(model(batch, Variant.parse(name), budget).scores, dense, atol=1e-6, rtol=1e-5)
    hybrid = model(batch, Variant.parse('hybrid@6+8'), TokenBudget(threshold=1.0)).scores
    torch.testing.assert_close(hybrid, model(batch, Variant.parse('cts'), TokenBudget()).scores, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(('keep', 'kept'), [((0.5,), (24, 12)), ((20,), (20, 20)), ((0.5, 5), (24, 5)), ((1,), (1, 1))])
@torch.no_grad()
def test_a_fixed_keep(model, keep, kept):
    output = model(images(3, (96, 128)), Variant.parse('dtop@6+8'), TokenBudget(keep=keep))
    assert [stage.alive.counts().tolist() for stage in output.stages[:-1]] == [[count] * 3 for count in kept]
    assert (output.pruned_after_layer == 0).sum(1).tolist() == [kept[-1]] * 3
    assert all(stage.alive.valid is None for stage in output.stages)


@torch.no_grad()
def test_tokens_that_left_keep_their_mask_logits(model):
    """The canvas: columns of pruned tokens are frozen where they left, the last head's class score counts for all."""
    batch = images(3, (96, 128))
    output = model(batch, Variant.parse('hybrid@6+8'), TokenBudget(keep=0.5))
    left = (output.pruned_after_layer == 6)[:, None].expand(-1, 11, -1)
    first, second, last = output.stages
    for later in (second, last):
        assert torch.equal(first.mask_logits[left], later.mask_logits[left])
    assert not torch.equal(first.mask_logits[~left], last.mask_logits[~left])
    scores = last.class_logits.softmax(-1)[..., :1] * last.mask_logits.sigmoid()
    expected = to_grid(output.layout.unmerge(scores.transpose(1, 2)), output.layout.grid_hw)
    torch.testing.assert_close(output.scores, expected)


@torch.no_grad()
def test_merged_windows_share_one_score(model):
    output = model(images(2, (100, 77)), Variant.parse('cts'), TokenBudget(merged_windows=4))
    check_merged(output, {2: 4})


@torch.no_grad()
def test_merging_a_flat_image_changes_little_but_position():
    """Where all four patches and position embeddings are equal, the merged token is each of them."""
    model = build()
    model.encoder.pos_embed.zero_()
    flat = torch.full((2, 3, 96, 128), 0.3)
    features = model.encoder.embed(flat, model(flat, Variant.parse('cts'), TokenBudget(merged_windows=3)).layout)
    torch.testing.assert_close(features, features[:, :1].expand_as(features))


@torch.no_grad()
def test_a_given_layout_decides(model):
    scores = np.zeros((2, 3, 4))
    scores[0, 0, 1], scores[1, 2, 3] = 5.0, 5.0
    layout = TokenLayout.of(choose_windows({2: scores}, {2: 1}, (6, 8)), torch.device('cpu'))
    batch = images(2, (96, 128))
    output = model(batch, Variant.parse('cts'), TokenBudget(merged_windows=4), layout=layout)
    assert output.layout is layout and output.policy_logits is None
    check_merged(output, {2: 1})
    logits = model.window_logits(batch)
    assert not torch.equal(model(batch, Variant.parse('cts'), TokenBudget(merged_windows=1)).scores, output.scores)
    chosen = choose_windows({w: s.detach().numpy() for w, s in window_scores(logits, (6, 8)).items()}, {2: 4}, (6, 8))
    own, given = (
        model(batch, Variant.parse('cts'), TokenBudget(merged_windows=4), layout=each)
        for each in (None, TokenLayout.of(chosen, torch.device('cpu')))
    )
    assert torch.equal(own.scores, given.scores)


def test_supervision_runs_every_head(model):
    output = model(images(2, (96, 128)), Variant.parse('hybrid@8'), TokenBudget(keep=0.5), supervise=True)
    assert [stage.layer for stage in output.stages] == [6, 8, 12]
    assert output.stages[0].alive.index.shape[1] == output.layout.num_tokens, 'layer 6 does not prune in hybrid@8'
    assert output.policy_logits is not None
    torch.testing.assert_close(
        output.scores, model(images(2, (96, 128)), Variant.parse('hybrid@8'), TokenBudget(keep=0.5)).scores
    )


def test_later_losses_reach_earlier_heads_through_the_frozen_columns():
    model = build()
    output = model(images(2, (96, 128)), Variant.parse('dtop@6+8'), TokenBudget(keep=0.5))
    assert not output.pruned_after_layer.requires_grad
    left = (output.pruned_after_layer == 6)[:, None].expand(-1, 11, -1)
    output.stages[-1].mask_logits[left].sum().backward()
    first, second = model.auxiliary_heads.values()
    assert first.decoder.layers[-1].mask_attention.k.weight.grad.abs().sum() > 0
    assert second.decoder.input_proj.weight.grad is None or second.decoder.input_proj.weight.grad.abs().sum() == 0
    assert model.head.decoder.input_proj.weight.grad is None or model.head.decoder.input_proj.weight.grad.sum() == 0
    assert first.class_embed.weight.grad is None, 'the decision itself carries no gradient'
    assert model.encoder.blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    later = model.encoder.blocks[7].attn.qkv.weight.grad
    assert later is None or not later.any()


PREFIXES = {
    'class token': {'class_token': True}, 'registers': {'register_tokens': 2},
    'class token, registers, final norm': {'class_token': True, 'register_tokens': 4, 'final_norm': True},
}  # fmt: skip


@pytest.fixture(scope='module', params=PREFIXES.values(), ids=PREFIXES)
def prefixed(request):
    """A model with tokens in front of the patch tokens, all of them unlike each other."""
    model = build(backbone=Backbone(24, 12, 3, **request.param))
    with torch.no_grad():
        for name in ('cls_token', 'register_tokens'):
            if getattr(model.encoder, name) is not None:
                getattr(model.encoder, name).normal_(std=3.0)
    return model


@pytest.mark.parametrize('size_hw', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('budget', [TokenBudget(keep=(0.5, 5)), None], ids=['keep', 'threshold'])
@torch.no_grad()
def test_prefix_tokens_go_to_the_end_and_heads_do_not_see_them(prefixed, budget, size_hw):
    """Whatever leaves, the first tokens of each layer are the prefix; images of a batch do what they do alone."""
    prefix, variant, batch = prefixed.encoder.num_prefix_tokens, Variant.parse('hybrid@6+8'), images(3, size_hw)
    budget = budget or TokenBudget(threshold=median_threshold(prefixed, batch, variant), keep_per_class=1)
    before, after, seen = [], [], []
    blocks = prefixed.encoder.blocks
    hooks = [block.register_forward_pre_hook(lambda _, args: before.append(args[0])) for block in blocks]
    hooks += [block.register_forward_hook(lambda _, args, result: after.append(result)) for block in blocks]
    heads = (*prefixed.auxiliary_heads.values(), prefixed.head)
    hooks += [head.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1])) for head in heads]
    output = prefixed(batch, variant, budget)
    for hook in hooks:
        hook.remove()
    counts = [output.layout.num_tokens, *(int(stage.alive.counts().max()) for stage in output.stages[:-1])]
    assert seen == counts and output.stages[0].alive.counts().min() < counts[0]
    assert [tokens.shape[1] - prefix for tokens in before] == [counts[0]] * 6 + [counts[1]] * 2 + [counts[2]] * 4
    for layer in range(1, 12):
        assert torch.equal(before[layer][:, :prefix], after[layer - 1][:, :prefix])
    if budget.keep is None:
        assert output.stages[0].alive.valid is not None, 'the case must have padding'
    for index in range(3):
        alone = prefixed(batch[index : index + 1], variant, budget)
        assert torch.equal(alone.pruned_after_layer[0], output.pruned_after_layer[index])
        torch.testing.assert_close(alone.scores[0], output.scores[index], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_prefix_tokens_matter_and_pruning_nothing_is_dense(prefixed):
    batch = images(2, (96, 128))
    dense = prefixed(batch, DENSE, TokenBudget()).scores
    for name, budget in [('dtop@6+8', TokenBudget(keep=1.0)), ('dtop@8', TokenBudget(threshold=1.0)),
                         ('hybrid@6+8', TokenBudget(merged_windows=0, keep=1.0))]:  # fmt: skip
        torch.testing.assert_close(prefixed(batch, Variant.parse(name), budget).scores, dense, atol=1e-6, rtol=1e-5)
    for name in ('cls_token', 'register_tokens'):
        given = getattr(prefixed.encoder, name)
        if given is not None:
            kept = given.clone()
            given.neg_()
            assert (prefixed(batch, DENSE, TokenBudget()).scores - dense).abs().max() > 1e-3, name
            given.copy_(kept)


@pytest.mark.parametrize('windows', [{4: 1, 2: 3}, {4: 1}, {8: 0, 4: 0.5, 2: 0.25}], ids=str)
@pytest.mark.parametrize('size_hw', [(96, 128), (144, 205)], ids=str)
@torch.no_grad()
def test_windows_of_several_sizes_through_the_network(windows, size_hw):
    model, variant = build(policy='patch_mlp', window_sizes=(2, 4, 8)), Variant.parse('hybrid@6+8')
    batch, budget = images(3, size_hw), TokenBudget(merged_windows=windows, keep=0.5)
    output = model(batch, variant, budget)
    assert output.layout.num_tokens == count_entering(grid_of(size_hw), budget.windows)
    check_merged(output, count_merged_windows(grid_of(size_hw), budget.windows))
    for index in range(3):
        alone = model(batch[index : index + 1], variant, budget)
        torch.testing.assert_close(alone.scores[0], output.scores[index], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('head', ['linear', 'mask_transformer', 'segvit_atm', 'segvit_atm_v2'])
@pytest.mark.parametrize('size_hw', SIZES.values(), ids=SIZES)
@torch.no_grad()
def test_heads_without_pruning(head, size_hw):
    model = build(head=head, variant=DENSE)
    batch = images(3, size_hw)
    for name in ('dense', 'cts'):
        output = model(batch, Variant.parse(name), TokenBudget())
        assert output.scores.shape == (3, 11, *grid_of(size_hw))
        assert output.kind == ('mask_logits' if head.startswith('segvit') else 'logits')
        assert (output.class_mix is not None) == head.startswith('segvit')
        alone = model(batch[1:2], Variant.parse(name), TokenBudget())
        torch.testing.assert_close(alone.scores[0], output.scores[1], atol=1e-4, rtol=1e-4)
    with pytest.raises(ModelSpecError, match='legal for tiny are dense, cts'):
        model(batch, Variant.parse('dtop@8'), TokenBudget())


@torch.no_grad()
def test_normalize(model):
    pixels = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    torch.testing.assert_close(model.normalize(pixels), (pixels.permute(0, 3, 1, 2).float() - 127.5) / 127.5)


@pytest.mark.parametrize(('size_hw', 'padded'), [((32, 48), (32, 48)), ((33, 47), (48, 48)), ((1, 16), (16, 16))])
def test_pad_to_multiple(size_hw, padded):
    image = torch.ones(2, 3, *size_hw)
    result = pad_to_multiple(image, 16)
    assert result.shape == (2, 3, *padded)
    assert result[:, :, : size_hw[0], : size_hw[1]].eq(1).all() and result.sum() == image.sum()


def test_to_grid():
    cells = torch.arange(2 * 6 * 4.0).view(2, 6, 4)
    grid = to_grid(cells, (2, 3))
    assert grid.shape == (2, 4, 2, 3) and grid.is_contiguous()
    assert torch.equal(grid[1, :, 1, 2], cells[1, 5])
