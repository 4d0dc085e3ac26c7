"""Cancels, errors and refusals: nothing is lost, and every sentence says what to do."""

from pathlib import Path

import comfy.model_management
import folder_paths
import host_models as hm
import pytest
import searching as s
import torch
from comfy.model_management import InterruptProcessingException
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_execution.utils import CurrentNodeContext
from PIL import Image
from server import PromptServer

from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.host.page import progress, remarks
from flowsearch.nodes.host.search import path, search_sampler
from flowsearch.nodes.host.search.resume import FileCheckpoint, workflow_part
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.search import DecodeError, ModelError, RewardError
from flowsearch.samplers.stepping.transition import ODE, Transition

STOCHASTIC = FlowSampler(Transition(noise_law("constant_k", k=0.5)))


def rescued() -> set[Path]:
    """Pictures that were saved because a search did not end."""
    return set(Path(folder_paths.get_temp_directory()).glob("flowsearch_best*.png"))


def cancel_at(call):
    """A reward during which the person presses cancel."""

    def act(count):
        if count == call:
            comfy.model_management.interrupt_current_processing(True)

    return s.Calling(act)


def break_at(call):
    def act(count):
        if count >= call:
            raise ZeroDivisionError("broken")

    return s.Calling(act)


@pytest.mark.parametrize("name", ["rbf", "best_of_n"])
def test_cancel_saves_the_best_finished_picture_and_goes_on_raising(name):
    before, model = rescued(), hm.scene_model()
    given = {"strategy": s.strategy(name), "evaluations": 400}
    with pytest.raises(InterruptProcessingException):
        s.reward_search(model, reward=cancel_at(9), **given)
    (saved,) = rescued() - before
    with Image.open(saved) as picture:
        assert picture.size == (64, 64)
    assert not comfy.model_management.processing_interrupted(), "the next node may run"


def test_cancel_is_obeyed_between_calls_of_the_model():
    """Not only where the reward is called: here it never is again."""
    model = hm.scene_model()
    rows = s.count_rows(model)
    best_of = s.strategy("best_of_n", width=1)
    with pytest.raises(InterruptProcessingException):
        s.search(
            hm.guider(model, 0.5),
            s.sampler(),
            reward=cancel_at(1),
            strategy=best_of,
            evaluations=600,
        )
    assert len(rows) <= s.STEPS + 1


def test_an_error_before_anything_is_finished_saves_nothing():
    before = rescued()
    with pytest.raises(RewardError, match=r"brightness raised ZeroDivisionError: broken .* key"):
        s.reward_search(hm.scene_model(), reward=break_at(1))
    assert rescued() == before


def test_an_error_later_saves_the_best_so_far():
    before = rescued()
    with pytest.raises(RewardError, match="broken"):
        s.reward_search(hm.scene_model(), reward=break_at(12), evaluations=90)
    assert len(rescued() - before) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_named(value):
    class Broken(s.Brightness):
        """A reward without a value."""

        def score(self, images):
            return torch.full((images.shape[0],), value)

    with pytest.raises(RewardError, match=r"brightness returned .* must be a finite number"):
        s.reward_search(hm.scene_model(), reward=Broken())


def test_a_reward_of_the_wrong_shape_is_named():
    class Broken(s.Brightness):
        """A reward with one value for all."""

        def score(self, images):
            return images.mean()[None, None]

    with pytest.raises(RewardError, match="one value a picture"):
        s.reward_search(hm.scene_model(), reward=Broken())


def test_a_cancelled_search_goes_on_where_it_was(monkeypatch, tmp_path):
    file = FileCheckpoint(tmp_path / "run.safetensors", torch.device("cpu"))
    given = {"evaluations": 90, "strategy": s.strategy("rbf")}
    uncut = s.reward_search(hm.scene_model(), **given)
    monkeypatch.setattr(search_sampler, "checkpoint_of_running_node", lambda *_: file)
    with pytest.raises(InterruptProcessingException):
        s.reward_search(hm.scene_model(), reward=cancel_at(14), **given)
    model = hm.scene_model()
    rows = s.count_rows(model)
    latent, image, report = s.reward_search(model, **given)
    assert 0 < sum(rows) < 80, "what was done is not done again"
    assert torch.equal(latent["samples"], uncut[0]["samples"])
    assert torch.equal(image, uncut[1])
    assert report.best(0) == uncut[2].best(0)
    assert report.trace.reward_curve(0) == uncut[2].trace.reward_curve(0)


def test_a_larger_budget_goes_on_too(monkeypatch, tmp_path):
    file = FileCheckpoint(tmp_path / "run.safetensors", torch.device("cpu"))
    monkeypatch.setattr(search_sampler, "checkpoint_of_running_node", lambda *_: file)
    first = s.reward_search(hm.scene_model(), evaluations=60)[2]
    model = hm.scene_model()
    rows = s.count_rows(model)
    more = s.reward_search(model, evaluations=90)[2]
    assert sum(rows) < 60
    assert more.best(0) >= first.best(0)
    assert any("another budget" in note for note in more.notes)


def test_cancelled_at_once_after_going_on_it_still_shows_the_best(monkeypatch, tmp_path):
    """The picture then comes from the checkpoint, not from this process."""
    file = FileCheckpoint(tmp_path / "run.safetensors", torch.device("cpu"))
    monkeypatch.setattr(search_sampler, "checkpoint_of_running_node", lambda *_: file)
    for call in (14, 1):
        before = rescued()
        with pytest.raises(InterruptProcessingException):
            s.reward_search(hm.scene_model(), reward=cancel_at(call), evaluations=400)
        assert len(rescued() - before) == 1


def test_without_a_server_nothing_is_kept_but_the_picture():
    """A context without a running workflow, as in other programs that use the host's code."""
    with CurrentNodeContext("some prompt", "5"), pytest.raises(InterruptProcessingException):
        s.reward_search(hm.scene_model(), reward=cancel_at(9), evaluations=400)


def test_without_checkpoint_seconds_nothing_is_kept(monkeypatch):
    asked = []
    monkeypatch.setattr(search_sampler, "checkpoint_of_running_node", lambda *_: asked.append(1))
    s.reward_search(hm.scene_model(), checkpoint_seconds=0.0)
    assert not asked
    s.reward_search(hm.scene_model())
    assert asked


# ---- whose fault it is ----


class Vae:
    """The pixel VAE, until it goes wrong."""

    def __init__(self, act):
        self.vae, self.act, self.calls = s.pixel_vae(), act, 0

    def decode(self, latents):
        self.calls += 1
        pictures = self.vae.decode(latents)
        return self.act(pictures) if self.calls > 3 else pictures


def tear(_):
    raise OSError("torn")


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (tear, r"the VAE raised OSError: torn for the candidate item 0, key"),
        (lambda p: p * float("nan"), r"the VAE decoded .* not finite .* for the candidate item 0"),
        (lambda p: p[:, :, :, None], r"the VAE raised ValueError: the VAE turned latents"),
        (lambda _: None, r"the VAE returned an object of the class NoneType"),
    ],
)
def test_the_vaes_fault_is_not_the_rewards(act, sentence):
    with pytest.raises(DecodeError, match=sentence):
        s.reward_search(hm.scene_model(), vae=Vae(act), evaluations=60)


def test_a_model_that_predicts_nan_is_named():
    model, before = hm.scene_model(), rescued()
    calls = []

    def blur(module, args, out):
        calls.append(1)
        return out * float("nan") if len(calls) > 20 else out

    handle = model.model.diffusion_model.register_forward_hook(blur)
    with pytest.raises(ModelError, match="the model's prediction holds numbers that are not fin"):
        s.reward_search(model, evaluations=60)
    handle.remove()
    assert len(rescued() - before) == 1


def _nothing(*_, **__):
    return None


def _patched(model):
    model.set_model_unet_function_wrapper(_nothing)
    return hm.guider(model)


def _guider(model):
    made = hm.guider(model)
    made.predict_noise = _nothing
    return made


def _smaller(model):
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"][..., :-1])
    return hm.guider(model)


@pytest.mark.parametrize("make", [_patched, _guider, _smaller])
@pytest.mark.parametrize("inner", [STOCHASTIC, s.sampler()])
def test_a_model_that_returns_no_prediction_is_named(make, inner):
    with pytest.raises(
        (RuntimeError, ValueError), match=r"the model(, or a patch of it,)? (fail|ret)"
    ):
        s.search(make(hm.scene_model()), inner)


def test_a_reward_without_memory_is_given_fewer_pictures():
    class Small(s.Brightness):
        """Has room for two."""

        def score(self, images):
            if len(images) > 2:
                raise torch.cuda.OutOfMemoryError("CUDA error: out of memory")
            return super().score(images)

    reward = Small()
    choice = s.strategy("best_of_n", width=6, rows_per_call=6)
    found = s.reward_search(hm.scene_model(), reward=reward, strategy=choice, evaluations=60)
    expected = s.reward_search(hm.scene_model(), strategy=choice, evaluations=60)
    assert max(shape[0] for shape in reward.shapes) == 2
    assert torch.equal(found[0]["samples"], expected[0]["samples"])


def test_an_error_in_one_row_of_a_batch_loses_no_other():
    """Row 1's reward breaks; row 0 is searched to its end, and both best pictures are shown."""
    seen = []

    class Picky(s.Brightness):
        """Breaks for the second picture of the batch, when it has been finished."""

        def score(self, images):
            seen.append(images)
            if len(seen) > 16 and len(seen) % 2 == 0 and not broken:
                broken.append(len(seen))
                raise ValueError("not this one")
            return super().score(images)

    broken, before = [], rescued()
    model = hm.scene_model()
    rows = s.count_rows(model)
    with pytest.raises(RewardError, match=r"not this one .* item [01], key"):
        s.reward_search(model, hm.empty_latent(2), reward=Picky(), evaluations=60)
    assert len(rescued() - before) == 2
    assert broken[0] < len(seen) - 10
    assert sum(rows) > 60


def test_a_runs_name_depends_on_all_but_the_budget():
    prompt = {
        "1": {"class_type": "LoadDemo", "inputs": {}},
        "2": {
            "class_type": "FlowSearchRewardSearch",
            "inputs": {"model": ["1", 0], "seed": 1, "evaluations": 5, "target": "value",
                       "target.value": 1.0, "target.percent": 2.0, "seconds": 3.0, "rows": 7,
                       "reward_calls": 4, "checkpoint_seconds": 1.0},
        },
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 1]}},
    }  # fmt: skip
    part = workflow_part(prompt, "2")
    assert set(part) == {"1", "2"}
    assert part["2"]["inputs"] == {"model": ["1", 0], "seed": 1}
    assert set(workflow_part(prompt, "made while it runs")) == {"1", "2", "3"}


REFUSALS = {
    "states that are no mixture": (
        lambda: s.search(
            hm.guider(hm.gaussian_model("IMG_TO_IMG_FLOW")), STOCHASTIC, sigmas=s.SIGMAS
        ),
        "IMG_TO_IMG_FLOW, whose states are no mixture of picture and noise",
    ),
    "video for a VAE of pictures": (
        lambda: s.search(
            hm.guider(hm.scene_model()), STOCHASTIC, {"samples": torch.zeros(1, 3, 5, 64, 64)}
        ),
        "which is a video, and the VAE connected to vae decodes single pictures",
    ),
    "sound for a VAE of pictures": (
        lambda: s.search(
            hm.guider(hm.scene_model()), STOCHASTIC, {"samples": torch.zeros(1, 3, 64)}
        ),
        "which is sound, and the VAE connected to vae decodes single pictures",
    ),
    "sigmas that stop early": (
        lambda: s.search(hm.guider(hm.scene_model()), STOCHASTIC, sigmas=s.SIGMAS[:-1]),
        "end at 0",
    ),
    "no steps": (lambda: s.reward_search(hm.scene_model(), denoise=0.0), "raise denoise"),
    "per-step search of a stock sampler": (
        lambda: s.search(hm.guider(hm.scene_model()), s.sampler("dpmpp_2m"),
                         strategy=s.strategy("rbf")),
        "decides at every step, and dpmpp_2m can only be run whole",
    ),
    "search of a search": (
        lambda: s.search(
            hm.guider(hm.scene_model()),
            search_sampler.SearchSampler(STOCHASTIC, None, None),
        ),
        "Search Sampler was given to a search",
    ),
    "variations of an ODE": (
        lambda: s.search(hm.guider(hm.scene_model()), FlowSampler(ODE),
                         strategy=s.strategy("rbf", q=0.0, draws=4)),
        "q = 1",
    ),
    "a q that is none": (lambda: s.strategy("rbf", q=1.5), "q must be between 0 and 1"),
}  # fmt: skip


@pytest.mark.parametrize(("act", "sentence"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals_say_why(act, sentence):
    with pytest.raises(ValueError, match=sentence):
        act()


def test_disabled_noise_has_only_one_start():
    """A second stage has its noise in the latent: a pool of other starts would not fit it."""
    guider = hm.guider(hm.scene_model(), 0.5)
    first, _ = hm.run(guider, s.sampler(), s.SIGMAS[:3], hm.empty_latent(), seed=3)
    whole, _ = hm.run(guider, s.sampler(), s.SIGMAS, hm.empty_latent(), seed=3)
    second = search_sampler.SearchSampler(
        FlowSampler(ODE), s.judge(), s.budget(4), s.strategy("rbf")
    )
    latent, _ = hm.run(guider, second, s.SIGMAS[2:], {"samples": first}, seed=None)
    assert (latent - whole).abs().max() < 1e-5
    pool = search_sampler.SearchSampler(
        FlowSampler(ODE), s.judge(), s.budget(40), s.strategy("best_of_n")
    )
    with pytest.raises(ValueError, match="initial noise is disabled"):
        hm.run(guider, pool, s.SIGMAS[2:], {"samples": first}, seed=None)


# ---- nothing after the search may lose it ----


class Late:
    """The pixel VAE, which goes wrong when the output is decoded: after the last score."""

    def __init__(self, act):
        self.vae, self.act, self.ended = s.pixel_vae(), act, False

    def decode(self, latents):
        pictures = self.vae.decode(latents)
        return self.act(pictures) if self.ended else pictures


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (tear, "no pictures to put out, because torn"),
        (lambda p: p * float("nan"), "not finite"),
        (lambda p: p / 0.0, "not finite"),
        (lambda _: None, "an object of the class NoneType"),
    ],
)
def test_a_vae_that_fails_on_the_output_loses_neither_latent_nor_report(monkeypatch, act, sentence):
    vae, whole = Late(act), search_sampler.Progress.finish

    def finish(progress):
        vae.ended = True
        whole(progress)

    monkeypatch.setattr(search_sampler.Progress, "finish", finish)
    latent, image, report = s.reward_search(hm.scene_model(), vae=vae)
    expected = s.reward_search(hm.scene_model())
    assert torch.equal(latent["samples"], expected[0]["samples"])
    assert report.score == expected[2].score
    assert isinstance(image, ExecutionBlocker)
    assert sentence in image.message


def test_a_path_that_cannot_be_worked_out_loses_nothing_else(monkeypatch):
    def broken(*_):
        raise OverflowError("too large")

    monkeypatch.setattr(path, "winner_path", broken)
    latent, _, report = s.reward_search(hm.scene_model())
    assert latent["samples"].isfinite().all()
    assert report.paths == [None]


def test_words_that_cannot_be_said_lose_nothing(monkeypatch):
    def broken(*_):
        raise OverflowError("too large")

    monkeypatch.setattr(search_sampler.Report, "sentences", broken)
    latent, image, report = s.reward_search(hm.scene_model())[:3]
    assert latent["samples"].isfinite().all()
    assert len(image) == 1
    assert report.score > float("-inf")


# ---- what is shown beside ----


class OlderCancel(Exception):
    """The host's, as it is in 0.18.2: an Exception like any."""


def test_a_cancel_is_no_failure_of_what_is_shown_in_older_hosts_either(monkeypatch):
    monkeypatch.setattr(comfy.model_management, "InterruptProcessingException", OlderCancel)

    def cancelled():
        raise OlderCancel

    with pytest.raises(OlderCancel), progress.logged():
        cancelled()
    with pytest.raises(OlderCancel):
        progress.first_that_works(cancelled, torch.zeros(2, 2, 3))()


@pytest.mark.parametrize(("client", "told"), [(None, []), ("page", [("5", "page")] * 2)])
def test_only_the_page_that_queued_a_workflow_is_told(monkeypatch, client, told):
    sent = []

    class Server:
        client_id = client

        def send_sync(self, event, data, sid):
            assert event == "executed"
            sent.append((data["display_node"], sid))

        def send_progress_text(self, text, node, sid):
            assert text == "a word"
            sent.append((node, sid))

    monkeypatch.setattr(PromptServer, "instance", Server(), raising=False)
    with CurrentNodeContext("a run", "5"):
        progress.show({"text": ("a word",)})
        progress.say("a word")
    assert sent == told


def test_a_node_shows_all_remarks_of_its_run_and_none_of_another(monkeypatch):
    said = []
    monkeypatch.setattr(remarks, "say", said.append)
    for node, sentences in (("5", ["one", "", "two"]), ("6", ["three"]), ("5", ["four"])):
        with CurrentNodeContext("a run", node):
            for sentence in sentences:
                remarks.remark(sentence)
    assert said == ["one", "one\ntwo", "three", "four"]
