"""The embedded model's network, weights and training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flowsearch.demo import train
from flowsearch.demo.network import MEAN, SceneNet
from flowsearch.demo.prompt import GROUPS, encode, parse
from flowsearch.demo.weights import read_weights

WEIGHTS = Path(train.__file__).with_name("weights.safetensors")


@pytest.fixture(scope="module")
def net() -> SceneNet:
    net = SceneNet().eval()
    net.load_state_dict(read_weights(WEIGHTS))
    return net


def context(text: str, rows: int = 1) -> torch.Tensor:
    return encode(parse(text))[None].expand(rows, -1, -1)


def test_weights_fit_the_network(net):
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())


@torch.no_grad()
def test_prediction_is_the_state_itself_where_there_is_no_noise(net):
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    near = net.denoise(x, torch.tensor([1e-3, 1e-3]), context("two red circles", 2))
    assert (near - x).abs().max() < 0.02


@torch.no_grad()
def test_velocity_is_what_the_host_expects(net):
    x, t = torch.randn(3, 3, 64, 64), torch.tensor([1.0, 0.5, 0.2])
    c = context("two red circles", 3)
    velocity = net(x, t * 1000, c)
    assert torch.allclose(x - t.view(-1, 1, 1, 1) * velocity, net.denoise(x, t, c), atol=1e-5)


@torch.no_grad()
def test_prompt_matters_and_the_order_of_groups_does_not(net):
    x, t = torch.randn(1, 3, 64, 64), torch.tensor([0.9])
    one = net.denoise(x, t, context("two red circles and one blue square"))
    other = net.denoise(x, t, context("one blue square and two red circles"))
    assert torch.allclose(one, other, atol=1e-4)
    assert (one - net.denoise(x, t, context("six green triangles"))).abs().max() > 0.05
    assert (one - net.denoise(x, t, torch.zeros(1, GROUPS, 14))).abs().max() > 0.05


@torch.no_grad()
def test_a_row_does_not_depend_on_its_neighbours(net):
    x, t = torch.randn(3, 3, 64, 64), torch.full((3,), 0.7)
    c = torch.stack([encode(parse(s)) for s in ("a red circle", "", "two blue squares")])
    together = net.denoise(x, t, c)
    for row in range(3):
        alone = net.denoise(x[row : row + 1], t[:1], c[row : row + 1])
        assert torch.allclose(together[row : row + 1], alone, atol=1e-4)


@torch.no_grad()
def test_one_step_from_pure_noise_is_close_to_the_mean(net):
    """At t = 1 the best prediction is the mean of the data; a network that ignored t is not."""
    x = torch.randn(8, 3, 64, 64)
    far = net.denoise(x, torch.ones(8), torch.zeros(8, GROUPS, 14))
    assert abs(float(far.mean()) - MEAN) < 0.1
    assert float(far.std()) < 0.35
    wrong_time = net.denoise(x, torch.full((8,), 0.1), torch.zeros(8, GROUPS, 14))
    assert float(wrong_time.std()) > 0.35


def test_training_is_a_function_of_its_seed():
    def losses(seed: int) -> list[float]:
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        net = SceneNet(channels=(16, 32, 32), blocks=(1, 1, 1), width=32)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        values = []
        for _ in range(3):
            x0, c = train.batch(rng, 4)
            loss = train.loss_of(net, x0, c, train.times(rng, 4), torch.randn(x0.shape))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
        return values

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def test_times_reach_both_ends():
    t = train.times(np.random.default_rng(0), 20_000)
    assert t.min() >= 1e-3
    assert t.max() <= 1.0
    assert 0.55 < float((t > 0.6).float().mean()) < 0.75
