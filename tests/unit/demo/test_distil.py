"""Distilling the embedded model: its paths, its inputs, and the checkpoint that came of it."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch

from flowsearch.demo import distil, trajectories
from flowsearch.demo.network import CHECKPOINTS, SceneNet
from flowsearch.demo.trajectories import TIMES, Trajectories
from flowsearch.demo.weights import read_weights
from flowsearch.samplers.stepping.transition import ODE, step

CHUNK = 4  # paths; of the real 32 each chunk takes ten seconds
SMALL = {"channels": (16, 32, 32), "blocks": (1, 1, 1), "width": 32}
FEW = CHECKPOINTS["few_step"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Iterator[Trajectories]:
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        for module in (trajectories, distil):
            patch.setattr(module, "CHUNK", CHUNK)
        yield Trajectories(SceneNet(**SMALL).eval(), tmp_path_factory.mktemp("paths"), seed=3)


@pytest.fixture(scope="module")
def card() -> str:
    text = CHECKPOINTS["base"].with_name("MODEL_CARD.md").read_text(encoding="utf-8")
    return text[text.index("## The few-step checkpoint") :]


# ---- paths ----


def test_a_chunk_is_a_function_of_seed_and_index(source):
    contexts, states = source.chunk(1)
    again = source.make(1)
    assert torch.equal(contexts, again[0])
    assert torch.equal(states, again[1])
    assert source.path(1).is_file()
    assert not torch.equal(states, source.make(2)[1])


def test_a_path_starts_at_noise_and_ends_where_the_ode_ends(source):
    contexts, states = source.chunk(1)
    assert states.shape == (len(TIMES), CHUNK, 3, 64, 64)
    assert (TIMES[0], TIMES[-1]) == (1.0, 0.0)
    start = states[0].float()
    assert abs(float(start.mean())) < 0.02
    assert abs(float(start.std()) - 1.0) < 0.02
    fine = np.linspace(1.0, 0.0, 25).tolist()
    x = start[:4]
    for fr, to in pairwise(fine):
        with torch.inference_mode():
            denoised = source.net.denoise(x, torch.full((4,), fr), contexts[:4])
        x = step(x, denoised, ODE.coefficients(fr, to), None)
    apart = (states[-1][:4].float() - x).square().mean().sqrt()
    assert float(apart) < 0.1 * float((start[:4] - x).square().mean().sqrt())


def test_states_are_those_of_the_path_or_of_the_line_between_its_ends(source):
    paths = source.chunk(1)[1][:, [i % CHUNK for i in range(len(TIMES))]].float()  # one a time
    t = torch.tensor(TIMES)
    no, rows = torch.zeros(len(TIMES), dtype=torch.bool), torch.arange(len(TIMES))
    assert torch.allclose(distil.states_at(paths, t, no), paths[rows, rows], atol=1e-6)
    line = distil.states_at(paths, t, ~no)
    t4 = t.view(-1, 1, 1, 1)
    assert torch.allclose(line, t4 * paths[0, rows] + (1 - t4) * paths[-1, rows], atol=1e-5)
    between = distil.states_at(paths, torch.full((len(TIMES),), 0.5), no)
    i = next(i for i, time in enumerate(TIMES) if time < 0.5)
    low, high = TIMES[i], TIMES[i - 1]
    share = (0.5 - low) / (high - low)
    assert torch.allclose(between, paths[i] + share * (paths[i - 1] - paths[i]), atol=1e-5)


def test_which_paths_there_are_depends_on_the_step_alone(source):
    def drawn(steps):
        buffer = distil.Buffer(source, first=1, every=2, total=3)
        rng = np.random.default_rng(0)
        batches = [buffer.batch(step, rng, 4) for step in steps]
        return len(buffer.chunks), batches[-1]

    assert [drawn(range(n + 1))[0] for n in (0, 1, 2, 4, 9)] == [1, 1, 2, 3, 3]
    (_, (paths, contexts)), (_, (other, _)) = drawn([0, 3]), drawn([0, 3])
    assert torch.equal(paths, other)
    assert contexts.shape[0] == paths.shape[1] == 4


def test_half_of_the_paths_are_mirrored_whole(source):
    buffer = distil.Buffer(source, first=1, every=1, total=1)
    paths, _ = buffer.batch(0, np.random.default_rng(0), 64)
    own = source.chunk(0)[1].float()
    as_is = [bool((p[:, None] == own).all(dim=(0, 2, 3, 4)).any()) for p in paths.unbind(1)]
    mirrored = [
        bool((p.flip(-1)[:, None] == own).all(dim=(0, 2, 3, 4)).any()) for p in paths.unbind(1)
    ]
    assert all(a != b for a, b in zip(as_is, mirrored, strict=True))
    assert 16 < sum(mirrored) < 48


def test_the_distance_turns_from_squares_to_absolute_values():
    net = SceneNet(**SMALL).eval()
    x, t = torch.randn(2, 3, 64, 64), torch.ones(2)
    context = torch.zeros(2, 3, 14)
    with torch.no_grad():
        ends = net.denoise(x, t, context)

        def loss(by: float, huber: float) -> float:
            return distil.loss_of(net, x, t, context, ends + by, huber).item()

        assert loss(0.0, 0.1) == pytest.approx(0.0, abs=1e-4)
        assert loss(0.02, 1.0) / loss(0.01, 1.0) == pytest.approx(4.0, rel=0.05)
        assert loss(0.8, 0.01) / loss(0.4, 0.01) == pytest.approx(2.0, rel=0.05)


def test_training_times_hold_pure_noise_and_are_mostly_high():
    t = distil.times(np.random.default_rng(0), 20_000)
    assert 0.31 < float((t == 1.0).float().mean()) < 0.35
    assert float((t >= 0.7).float().mean()) > 0.8
    assert float(t.min()) < 0.1


# ---- the checkpoint ----


def test_the_checkpoint_fits_the_network():
    net = SceneNet()
    net.load_state_dict(read_weights(FEW))
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())


def test_the_card_says_what_the_log_says(card):
    log = json.loads(FEW.with_suffix(".json").read_text(encoding="utf-8"))
    steps = int(re.search(r"([\d,]+) steps of \d+", card)[1].replace(",", ""))
    minutes = int(re.search(r"(\d+) minutes", card)[1])
    loss = float(re.search(r"last 50 steps (\.\d+)", card)[1])
    assert steps == log[-1]["step"]
    assert minutes == round(log[-1]["seconds"] / 60)
    assert loss == pytest.approx(log[-1]["loss"], abs=5e-5)
    assert float(re.search(r"([\d.]+) MB", card)[1]) == round(FEW.stat().st_size / 1e6, 1)
