"""The door to gradients: what it returns, what it refuses, and what it leaves as it was."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from flowsearch.rewards.gradient import (
    Differentiable,
    Gradient,
    gradient_of,
    holder_gradient,
    value_and_gradient,
)
from flowsearch.rewards.weights.holder import Local, backward_ready


def pictures(count=3, dtype=torch.float32):
    return torch.rand(count, 4, 5, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)


class Energy:
    """Mean square, by autograd through score."""

    spec = SimpleNamespace(name="energy", has_gradient=True)

    def score(self, images):
        return images.square().mean(dim=(1, 2, 3)).float()


class Own(Energy):
    """The same with a gradient of its own."""

    def gradient(self, images):
        return Gradient(self.score(images), 2.0 * images / 60)


def small():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(60, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Linear(8, 1)
    )


def value(network, rows):
    return network(rows.to(next(network.parameters()).dtype))[:, 0]


@pytest.mark.parametrize("reward", [Energy(), Own()], ids=["score", "own"])
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_both_kinds_of_reward_have_the_gradient_in_every_mode(reward, mode):
    with mode():
        images = pictures()
        found = gradient_of(reward, images)
        assert torch.is_grad_enabled() is (mode is torch.enable_grad)
        assert torch.is_inference_mode_enabled() is (mode is torch.inference_mode)
    assert torch.allclose(found.gradient, 2.0 * pictures() / 60, atol=1e-8)
    assert torch.equal(found.values, reward.score(pictures()))
    assert not found.gradient.is_inference()
    assert not found.gradient.requires_grad
    assert not images.requires_grad
    assert images.grad is None


def test_a_reward_that_has_a_gradient_of_its_own_is_differentiable():
    assert isinstance(Own(), Differentiable)
    assert not isinstance(Energy(), Differentiable)


def test_a_gradient_is_like_its_rows_and_in_float64_so_are_the_values():
    for dtype, of_values in ((torch.float16, torch.float32), (torch.float64, torch.float64)):
        found = value_and_gradient(lambda x: x.square().sum(dim=(1, 2, 3)), pictures(dtype=dtype))
        assert (found.gradient.dtype, found.values.dtype) == (dtype, of_values)


@pytest.mark.parametrize("reward", [Energy(), Own()], ids=["score", "own"])
def test_no_rows_have_a_gradient_of_no_rows(reward):
    found = gradient_of(reward, pictures()[:0])
    assert found.values.shape == (0,)
    assert found.gradient.shape == (0, 4, 5, 3)
    assert holder_gradient(Local(small()), value, pictures()[:0]).gradient.shape == (0, 4, 5, 3)


# ---- what is refused ----


def given(**found):
    """A reward with a gradient that is wrong in something."""
    whole = {"values": torch.zeros(3), "gradient": torch.zeros(3, 4, 5, 3), **found}
    made = type("Given", (Energy,), {"gradient": lambda self, images: Gradient(**whole)})
    return made()


ONE_NAN = torch.zeros(3, 4, 5, 3)
ONE_NAN[1, 0, 0, 0] = float("nan")


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (SimpleNamespace(spec=SimpleNamespace(name="count"), score=len), "count has no gradient"),
        (given(values=torch.zeros(2)), "shape"),
        (given(values=torch.tensor([0.0, 0.0, float("inf")])), "value of energy .* row 2 of 3"),
        (given(gradient=torch.zeros(3, 4, 5)), "has shape"),
        (given(gradient=torch.zeros(3, 4, 5, 3, dtype=torch.float64)), "has type"),
        (given(gradient=torch.zeros(3, 4, 5, 3, device="meta")), "has device"),
        (given(gradient=ONE_NAN), "gradient of energy is not finite for row 1 of 3"),
        (given(gradient={"image": ONE_NAN}), "class dict; return a tensor"),
        (type("Bare", (Energy,), {"gradient": lambda self, x: x})(), "class Tensor"),
        (
            type("Cut", (Energy,), {"score": lambda self, x: x.detach().sum((1, 2, 3))})(),
            "autograd",
        ),
    ],
)
def test_what_is_no_gradient_is_refused_in_words(reward, words):
    with pytest.raises(ValueError, match=words):
        gradient_of(reward, pictures())


def test_whole_numbers_have_no_gradient():
    with pytest.raises(ValueError, match="int64 have no gradient"):
        value_and_gradient(lambda x: x.sum(dim=1), torch.ones(2, 3, dtype=torch.int64))


class Several:
    """Rows as pictures and as latents."""

    def __len__(self):
        return 3


@pytest.mark.parametrize(
    ("gradient", "words"),
    [
        (torch.zeros(3, 1), "one by domain"),
        ({"image": torch.zeros(2, 1)}, "'image' has 2 rows for 3"),
        (
            {"image": torch.zeros(3, 1), "latent": torch.full((3, 1), float("inf"))},
            "latent.* row 0",
        ),
    ],
)
def test_of_several_domains_each_is_looked_at(gradient, words):
    with pytest.raises(ValueError, match=words):
        gradient_of(given(gradient=gradient), Several())
    found = gradient_of(given(gradient={"image": torch.ones(3, 2)}), Several())
    assert torch.equal(found.gradient["image"], torch.ones(3, 2))


# ---- networks ----


def test_batches_do_not_change_what_a_network_gives():
    network, rows = small(), pictures(5)
    whole = holder_gradient(Local(network, batch=5), value, rows)
    for batch in (1, 2):
        found = holder_gradient(Local(network, batch=batch), value, rows)
        assert torch.allclose(found.gradient, whole.gradient, atol=1e-7)
        assert torch.allclose(found.values, whole.values, atol=1e-6)


def test_the_gradient_of_a_network_is_its_slope_in_float64():
    network, rows = small().double(), pictures(dtype=torch.float64)
    holder = Local(network, batch=2)
    way = torch.randn(rows.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = holder_gradient(holder, value, rows)
    up, down = (holder_gradient(holder, value, rows + h * way).values for h in (1e-5, -1e-5))
    assert found.values.dtype is torch.float64
    assert torch.allclose((found.gradient * way).sum((1, 2, 3)), (up - down) / 2e-5, rtol=1e-7)


def inference_made():
    """A network as the host's loaders leave it, with weights that are shared."""
    with torch.inference_mode():
        network = small()
        network[2].again = network[1]
        network[4].weight.requires_grad_(False)
    return network


def objects(network):
    return [
        (name, id(held)) for name, held in (*network.named_parameters(), *network.named_buffers())
    ]


def test_weights_made_in_inference_mode_are_gone_through_and_put_back():
    network = inference_made()
    plain = small().eval()
    holder, before = Local(network), objects(network)
    asked = [held.requires_grad for held in network.parameters()]
    with torch.inference_mode():
        found = holder_gradient(holder, value, pictures())
    wanted = value_and_gradient(lambda x: plain(x)[:, 0], pictures())
    assert torch.allclose(found.gradient, wanted.gradient, atol=1e-7)
    assert objects(network) == before
    assert [held.requires_grad for held in network.parameters()] == asked
    assert all(held.grad is None for held in network.parameters())


def test_what_stands_in_shares_its_memory_and_is_shared_alike():
    network = inference_made()
    places = [held.data_ptr() for held in network.parameters()]
    with torch.inference_mode(False), backward_ready(network):
        assert [held.data_ptr() for held in network.parameters()] == places
        assert not any(held.is_inference() for held in network.state_dict().values())
        assert network[2].again.weight is network[1].weight


def test_weights_are_put_back_after_an_error():
    network = inference_made()
    before = objects(network)

    def fails(network, rows):
        raise KeyError("planted")

    with pytest.raises(KeyError, match="planted"):
        holder_gradient(Local(network), fails, pictures())
    assert objects(network) == before


def test_what_a_network_writes_over_is_copied_where_that_is_said():
    """The host's layers add in place to what a norm before them has kept."""
    norm = nn.LayerNorm(60)

    def adds(network, rows):
        x = rows.flatten(1) * 2.0
        y = network(x).square()
        x += y
        return (x * y).sum(dim=1)

    def apart(rows):
        x = rows.flatten(1) * 2.0
        y = norm(x).square()
        return ((x + y) * y).sum(dim=1)

    with pytest.raises(RuntimeError, match="inplace"):
        holder_gradient(Local(norm), adds, pictures())
    found = holder_gradient(Local(norm), adds, pictures(), mutates=True)
    assert torch.allclose(found.gradient, value_and_gradient(apart, pictures()).gradient, rtol=1e-4)


def test_weights_that_are_asked_for_gradients_get_none():
    network = small()
    holder = Local(network)
    network.requires_grad_(True)
    holder_gradient(holder, value, pictures())
    assert all(held.requires_grad and held.grad is None for held in network.parameters())


@pytest.mark.parametrize("size", [1e-6, 1.0, 3e3], ids=["small", "usual", "large"])
def test_in_float16_small_slopes_are_kept_and_large_ones_do_not_overflow(size):
    """A slope of 1e-6 would be 0 or 17 times 6e-8 without a scale, and 3e3 overflows with one."""
    network = nn.Linear(60, 1).half()
    nn.init.constant_(network.weight, 0.03)
    found = holder_gradient(
        Local(network), lambda net, x: size * net(x.flatten(1).half())[:, 0].float(), pictures()
    )
    wanted = size * float(network.weight[0, 0])
    assert torch.allclose(found.gradient, torch.full_like(found.gradient, wanted), rtol=2e-3)
