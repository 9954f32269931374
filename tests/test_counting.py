"""Parameters and FLOPs against another count: torch's own of another implementation of the model, and published shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import GemmaConfig, GemmaForCausalLM

from shapelaw.counting import flops_exact, flops_per_served_token, flops_per_token, params, params_total
from shapelaw.errors import UserError
from shapelaw.feasible import feasible_shapes
from shapelaw.shapes import HEAD_SIZE, Shape, ShapeRules, check_heads, heads_share

SIZES = (50e6, 100e6, 500e6, 1e9, 2e9, 4e9, 7e9)
WIDTH, DEPTH, VOCAB, TIME = 512, 3, 1000, 256


def counted_matmuls() -> float:
    """FLOPs of the matrix products in one forward pass, per token, by torch."""
    heads = WIDTH // HEAD_SIZE
    config = GemmaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=HEAD_SIZE,
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    with torch.no_grad():
        model = GemmaForCausalLM(config)
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, TIME, dtype=torch.long), use_cache=False)
    return counter.get_total_flops() / TIME


def test_forward_is_the_matrix_products_less_the_mask_and_a_little_elementwise_work() -> None:
    heads = WIDTH / HEAD_SIZE
    masked = (
        DEPTH * heads * HEAD_SIZE * TIME
    )  # half of q k^T: rotary positions make torch count a few products of its own
    per_block = 3.5 * 1.5 * heads * HEAD_SIZE + 3 * TIME * heads + 10 * 4 * WIDTH + 2 * WIDTH + 14 * WIDTH
    elementwise = DEPTH * per_block + 7 * WIDTH
    exact = float(flops_exact(WIDTH, DEPTH, VOCAB, TIME).forward)
    assert exact == pytest.approx(counted_matmuls() - masked + elementwise, rel=1e-5)


def test_backward_is_twice_the_forward_and_the_scores_again() -> None:
    counts = flops_exact(WIDTH, DEPTH, VOCAB, TIME)
    scores = DEPTH * (3 * HEAD_SIZE + 3) * TIME * (WIDTH / HEAD_SIZE)
    assert float(counts.backward) == pytest.approx(2 * float(counts.forward) + 0.5 * scores, rel=1e-12)
    assert float(counts.total) == float(counts.forward + counts.backward)


def test_feasible_shapes_are_the_papers() -> None:
    found = feasible_shapes(ShapeRules(), 50_304, SIZES)
    assert len(found) == 386
    assert sum(int(params_total(one.width, one.depth, 50_304)) <= 2.1e9 for one in found) == 182
    trained = {"384x13", "384x36", "512x11", "512x14", "512x16", "1024x28"}
    assert not trained & {one.name for one in found}


@pytest.mark.parametrize("relaxed", [False, True])
def test_conventions(relaxed: bool) -> None:
    n = float(params_total(1024, 28, 50_304))
    assert float(flops_per_token(1024, 28, convention="6n", relaxed=relaxed)) == 6 * n
    inner = float(params(1024, 28, 50_304, "no_embedding_and_head", relaxed=relaxed))
    assert inner == n - 2 * 1024 * 50_304
    kaplan = 6 * inner + 6 * 28 * 2048 * 1024
    assert float(flops_per_token(1024, 28, convention="kaplan", relaxed=relaxed)) == kaplan
    with pytest.raises(UserError, match="allowed values are exact, 6n, kaplan"):
        flops_per_token(1024, 28, convention="7n")


def test_serving_is_a_forward_pass() -> None:
    widths, depths = np.array([256, 2048]), np.array([23, 27])
    assert np.array_equal(flops_per_served_token(widths, depths), flops_exact(widths, depths).forward)
    assert flops_per_served_token(widths, depths, convention="6n") == pytest.approx(
        2.0 * params_total(widths, depths, 50_304)
    )


def test_large_shapes_are_counted_whole() -> None:
    width, depth = 2**17, 2**20
    by_hand = depth * (15 * width**2 + 2 * width) + width + 2 * 50_304 * width
    assert by_hand > 2**53
    assert int(params_total(width, depth, 50_304)) == by_hand


def test_heads_that_cannot_share_their_keys_are_no_shape() -> None:
    """One, three and even numbers of heads can; the model of all others fails in torch."""
    assert [n for n in range(1, 10) if heads_share(n)] == [1, 2, 3, 4, 6, 8]
    with pytest.raises(UserError, match=r"shape.width=80: its 5 query heads .* nearest widths are 64 and 96$"):
        check_heads(Shape(80, 3, 16))
    assert ShapeRules(16, even_heads=False, width_min=16, width_max=100).widths() == [16, 32, 48, 64, 96]
    assert ShapeRules(16, width_min=16, width_max=100).widths() == [32, 64, 96]
