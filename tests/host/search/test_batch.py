"""Each row of a batch is searched as if it were alone: prompt, mask, hint, noise."""

import comfy.controlnet
import host_models as hm
import pytest
import searching as s
import torch
from torch import Tensor

from flowsearch.demo.network import FEATURES
from flowsearch.nodes.host.model import batch_row
from flowsearch.nodes.host.model.conditioning import guider_of_row
from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.transition import Transition

STOCHASTIC = FlowSampler(Transition(noise_law("constant_k", k=0.5)))


def rows(*values: float) -> list:
    """CONDITIONING with one row a value."""
    tensor = torch.stack([torch.full((3, FEATURES), float(value)) for value in values])
    return hm.conditioning(tensor)


def half_masks() -> Tensor:
    """Masks of two rows: the upper half, and the lower half."""
    masks = torch.zeros(2, 1, hm.SIZE, hm.SIZE)
    masks[0, :, : hm.SIZE // 2] = 1.0
    masks[1, :, hm.SIZE // 2 :] = 1.0
    return masks


def opposite(both: bool, row: int = 0):
    """Two rows with opposite prompts and masks, or one of them alone."""
    values, latent = (2.0, -2.0), hm.picture_latent(2)
    if both:
        return rows(*values), {**latent, "noise_mask": half_masks()}
    alone = {
        "samples": latent["samples"][row : row + 1],
        "noise_mask": half_masks()[row : row + 1],
        "batch_index": [row],
    }
    return rows(values[row]), alone


def searched(positive, latent, inner=STOCHASTIC, **given):
    guider = hm.guider(hm.scene_model(), positive, rows(0.3), cfg=3.0)
    found, _, report = s.search(guider, inner, latent, evaluations=48, **given)
    return found["samples"], [report.best(item) for item in report.trace.items()]


@pytest.mark.parametrize("inner", [STOCHASTIC, s.sampler("heun")], ids=["rbf", "best_of_n"])
def test_a_row_is_searched_as_it_would_be_alone(inner):
    together, scores = searched(*opposite(both=True), inner)
    for row in range(2):
        alone, score = searched(*opposite(both=False, row=row), inner)
        assert (together[row] - alone[0]).abs().max() < 1e-4
        assert scores[row] == pytest.approx(score[0], abs=1e-5)


def test_without_slicing_rows_would_get_the_first_rows_prompt(monkeypatch):
    """The mutant: what the host does by itself. If this does not fail, the test above is blind."""
    monkeypatch.setattr(batch_row, "guider_of_row", lambda guider, row: guider)
    together, _ = searched(*opposite(both=True))
    alone, _ = searched(*opposite(both=False, row=1))
    assert (together[1] - alone[0]).abs().max() > 1e-2


def test_masks_of_conditionings_are_the_rows_own():
    """Conditionings limited to a region by a mask with one row an item."""
    masks = half_masks()[:, 0]
    both = [*rows(2.0, -2.0), *rows(0.0)]
    both[0][1]["mask"] = masks
    both[0][1]["mask_strength"] = 1.0
    together, _ = searched(both, hm.empty_latent(2))
    alone = [*rows(-2.0), *rows(0.0)]
    alone[0][1] |= {"mask": masks[1:], "mask_strength": 1.0}
    latent = {**hm.empty_latent(), "batch_index": [1]}
    assert (together[1] - searched(alone, latent)[0][0]).abs().max() < 1e-4


def test_more_prompts_than_pictures():
    """The host cuts surplus rows of conditioning; so do the candidates."""
    surplus, _ = searched(rows(2.0, -2.0, 0.5), hm.empty_latent())
    first, _ = searched(rows(2.0), hm.empty_latent())
    assert (surplus - first).abs().max() < 1e-4


def test_hints_of_a_chain_of_controlnets_are_the_rows_own():
    first, second = (comfy.controlnet.ControlNet() for _ in range(2))
    for index, control in enumerate((first, second)):
        hint = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 3, 8, 8) + 10 * index
        control.set_cond_hint(hint, 0.7, (0.1, 0.9), extra_concat=[hint[:2]])
        control.cond_hint = hint  # as the host leaves it after another row
    second.set_previous_controlnet(first)
    guider = hm.guider(hm.scene_model())
    shared = {"control": second, "model_conds": {}}
    guider.conds = {"positive": [{**shared}], "negative": [{**shared}]}
    ours = guider_of_row(guider, 4)
    control = ours.conds["positive"][0]["control"]
    assert control is ours.conds["negative"][0]["control"], "shared ones stay shared"
    assert control is not second
    assert control.previous_controlnet is not first
    assert float(control.cond_hint_original.mean()) == 11.0, "row 4 of 3 repeated rows is row 1"
    assert float(control.previous_controlnet.cond_hint_original.mean()) == 1.0
    assert float(control.extra_concat_orig[0].mean()) == 10.0
    assert control.cond_hint is None
    assert second.cond_hint_original.shape[0] == 3, "the original is left alone"


def test_copies_of_one_latent_are_different_candidates():
    """Same noise twice (batch_index [0, 0]): still two searches with draws of their own."""
    latent = {**hm.empty_latent(2), "batch_index": [0, 0]}
    found, _ = searched(rows(0.5), latent)
    assert not torch.equal(found[0], found[1])


def test_top_k_rows_and_what_belongs_to_them():
    latent = {**hm.picture_latent(2), "noise_mask": half_masks()[:, 0], "batch_index": [3, 5]}
    guider = hm.guider(hm.scene_model(), 0.5)
    best = s.strategy("best_of_n")
    found, image, report = s.search(guider, s.sampler(), latent, strategy=best, top_k=3)
    assert found["samples"].shape[0] == image.shape[0] == 6
    assert "batch_index" not in found
    assert found["noise_mask"].shape[0] == 6
    assert torch.equal(found["noise_mask"][2], latent["noise_mask"][0])
    values = s.Brightness().score(image).reshape(2, 3)
    assert (values.diff(dim=1) <= 0).all(), "best first"
    assert values[0, 0] == pytest.approx(report.best(0), abs=1e-6)
    one, _, _ = s.search(guider, s.sampler(), latent, strategy=best)
    assert one["batch_index"] == [3, 5]
    assert one["noise_mask"] is latent["noise_mask"]


@pytest.mark.parametrize("name", ["evolutionary", "rbf"])
def test_what_the_mask_keeps_is_kept(name):
    """Also where a search goes back up from a picture, and where pictures are mixed."""
    latent = {**hm.picture_latent(2), "noise_mask": half_masks()}
    found, _, report = s.search(
        hm.guider(hm.scene_model(), 0.5), STOCHASTIC, latent, strategy=s.strategy(name),
        evaluations=100,
    )  # fmt: skip
    kept = (half_masks() == 0.0).expand_as(latent["samples"])
    assert (found["samples"] - latent["samples"])[kept].abs().max() < 1e-5
    assert (found["samples"] - latent["samples"])[~kept].abs().max() > 1e-2
    mixed = [row for row in report.trace.record["evaluated"] if row["donor"] is not None]
    assert bool(mixed) == (name == "evolutionary")
