"""Every field from every pair of others, against a state whose parts are known."""

import itertools

import pytest
import torch
from fields import FLOAT64

from flowsearch.samplers.paths.two_sided import ENDS, GAMMAS, two_sided
from flowsearch.samplers.paths.two_sided_fields import FIELDS, convert_fields

TIMES = torch.tensor([0.1, 0.37, 0.62, 0.93], dtype=FLOAT64)
PATHS = [two_sided(ends, gamma, 1.5) for ends in ENDS for gamma in GAMMAS]


def parts(path, times=TIMES):
    """Return x and every field, (B, 2, 3), for draws of x0, x1 and z."""
    generator = torch.Generator().manual_seed(1)
    x0, x1, z = torch.randn(3, len(times), 2, 3, generator=generator, dtype=FLOAT64)
    a, b, g, a_dot, b_dot, g_dot = (
        getattr(path, name)(times).view(-1, 1, 1)
        for name in ("alpha", "beta", "gamma", "alpha_dot", "beta_dot", "gamma_dot")
    )
    drift = a_dot * x0 + b_dot * x1
    values = {"x0": x0, "x1": x1, "noise": z, "score": -z / g, "drift": drift}
    return a * x0 + b * x1 + g * z, values | {"velocity": drift + g_dot * z}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_fields_from_others_are_right_or_refused(path):
    x, values = parts(path)
    found = 0
    sets = [*itertools.combinations(FIELDS, 1), *itertools.combinations(FIELDS, 2)]
    for names, target in itertools.product(sets, FIELDS):
        known = {name: values[name] for name in names}
        try:
            field = convert_fields(known, x, TIMES, target, path)
        except ValueError:  # left open, which another test reads
            continue
        assert torch.allclose(field, values[target], rtol=1e-8, atol=1e-8), (names, target)
        found += target not in names
    # of six, two that are independent give four others; without noise or an end there are fewer
    assert found >= (44 if path.is_noisy and path.name.startswith(("linear", "trig")) else 8)


def test_a_wrong_sign_of_the_score_is_seen():
    path = two_sided("linear", "brownian")
    x, values = parts(path)
    wrong = convert_fields({"x0": values["x0"], "score": -values["score"]}, x, TIMES, "x1", path)
    assert not torch.allclose(wrong, values["x1"], atol=0.1)


def test_one_field_is_enough_where_the_path_has_no_noise():
    path = two_sided("trigonometric", "none")
    x, values = parts(path)
    for name, target in (("velocity", "x0"), ("velocity", "x1"), ("x0", "velocity")):
        assert torch.allclose(
            convert_fields({name: values[name]}, x, TIMES, target, path), values[target]
        )


def test_one_field_is_enough_for_a_mirror():
    """b = gamma' eta: the denoiser is all there is to learn."""
    path = two_sided("mirror", "sin_squared")
    x, values = parts(path)
    for target in ("x0", "velocity", "score"):
        found = convert_fields({"noise": values["noise"]}, x, TIMES, target, path)
        assert torch.allclose(found, values[target])


def test_the_published_output_of_a_brownian_bridge_network_is_the_hosts_velocity():
    """ViBT's network gives (x - x0) / t, so that D is x - t v, as in a flow from noise."""
    path = two_sided("linear", "brownian")
    x, values = parts(path)
    t = TIMES.view(-1, 1, 1)
    assert torch.allclose(x - t * ((x - values["x0"]) / t), values["x0"])


@pytest.mark.parametrize(
    ("known", "time", "target", "message"),
    [
        ({"x0"}, 0.5, "x1", "x1 cannot be had from x0 at time 0.5"),
        ({"x0", "noise"}, 0.0, "x1", "at time 0 of the path linear"),
        ({"x0", "x1"}, 0.0, "score", "open or infinite"),
        ({"x0", "x1"}, 1.0, "velocity", "open or infinite"),
        ({"x0", "eps"}, 0.5, "x1", "unknown field 'eps'"),
        ({"x0", "x1", "noise"}, 0.5, "score", "got 3"),
        (set(), 0.5, "score", "got 0: none"),
    ],
)
def test_what_a_time_leaves_open_is_refused(known, time, target, message):
    x = torch.zeros(2, 3, dtype=FLOAT64)
    fields = {name: x for name in sorted(known, reverse=True)}
    times = torch.full((2,), time, dtype=FLOAT64)
    with pytest.raises(ValueError, match=message):
        convert_fields(fields, x, times, target, two_sided("linear", "brownian"))


def test_shapes_that_differ_are_refused():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="one time a row"):
        convert_fields({"x0": x}, x, torch.zeros(3), "x1", two_sided())
    with pytest.raises(ValueError, match="must be like the state"):
        convert_fields({"x0": x[:1]}, x, torch.zeros(2), "x1", two_sided())


def test_half_precision_states_stay_half():
    path = two_sided("linear", "brownian")
    x = torch.ones(1, 2, dtype=torch.float16)
    out = convert_fields({"x0": x, "x1": x}, x, torch.tensor([0.5]), "noise", path)
    assert out.dtype == torch.float16
