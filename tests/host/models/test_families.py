"""Every family of models that the host knows, made by its own classes: what works, what is refused.

What came of it is committed in tests/data/models.json, from which the table in docs/MODELS.md is
made; `python scripts/dev.py models` writes both.
"""

import itertools
import json
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from queue import SimpleQueue

import comfy.nested_tensor
import comfy.samplers
import comfy.sd
import families as f
import host_models as hm
import pytest
import searching as s
import torch
import video_models as vm
from comfy.taesd.taehv import TAEHV
from comfy_execution.graph_utils import ExecutionBlocker
from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced
from comfyui_version import __version__ as HOST

from devtools.pins import DEFAULT_HOST
from flowsearch.nodes.host.model.field import FunctionSampler
from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.host.model.packed import packed_shapes, unpacked
from flowsearch.nodes.host.search.search_sampler import StrategyChoice
from flowsearch.nodes.rewards.latent import LatentRewardNode
from flowsearch.nodes.sampling.conversion import convert
from flowsearch.nodes.search.replay import Replay
from flowsearch.nodes.search.searcher import SearchInputs
from flowsearch.rewards.latent import LatentReward
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.search import EvolutionarySearch
from flowsearch.samplers.stepping.transition import ODE, Transition

ROOT = Path(__file__).resolve().parents[3]
RECORD = ROOT / "tests" / "data" / "models.json"
TABLE = ROOT / "docs" / "MODELS.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- models: written by dev.py models -->", "<!-- end of models -->"
COMMAND = "python scripts/dev.py models"
EULER = comfy.samplers.sampler_object("euler")
SDE = Transition(noise_law("constant_k", k=0.5))
STEPS = 4
HOST_FAILS = "ComfyUI's own euler fails with a noise mask on this model"
SEARCHED = (
    "The searches are for a reward of latents (Latent Reward). With the VAE that decodes them, "
    "latents of pictures and video can be searched for rewards of pictures and clips, and those of "
    "sound for rewards of sound."
)
WRITE = "FLOWSEARCH_WRITE_MODELS"


@dataclass(frozen=True, eq=False)
class Watched(FlowSampler):
    """Our sampler, which also keeps the noise that it draws."""

    drawn: list = field(default_factory=list)

    def noise(self, field, step):
        self.drawn.append(super().noise(field, step))
        return self.drawn[-1]


def need(name):
    """Skip a family that the host under test does not have, unless it is the record's own host."""
    try:
        f.model(name)
    except Exception as error:
        if HOST == DEFAULT_HOST:
            raise
        pytest.skip(f"ComfyUI {HOST} makes no such model: {type(error).__name__}: {error}")


def guider(family, cfg=2.0):
    prompts = f.conditioning(family, 1), f.conditioning(family, 2)
    return hm.guider(f.model(family.name), *prompts, cfg)


def sigmas_of(model, steps=STEPS):
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, "simple", steps)


def parts(samples):
    """The latents of a LATENT, or of a noise: one, or video and audio."""
    return samples.unbind() if samples.is_nested else [samples]


def flat(samples):
    """One row of numbers for each item."""
    return torch.cat([part.flatten(1) for part in parts(samples)], 1)


def run(family, sampler, latent=None, **guidance):
    model = f.model(family.name)
    latent = f.latent(family, family.rows) if latent is None else latent
    out, _ = hm.run(guider(family, **guidance), sampler, sigmas_of(model), latent)
    shapes = [part.shape for part in parts(out)]
    assert shapes == [part.shape for part in parts(latent["samples"])]
    return flat(out)


def sampled(family):
    """Stochastic Flow Sampler: its ODE is the host's euler to the bit, its noise each row's own."""
    host = run(family, EULER)
    assert host.std() > 0.1
    assert torch.equal(run(family, FlowSampler(ODE)), host)
    batch, alone = Watched(SDE), Watched(SDE)
    both = run(family, batch)
    assert torch.isfinite(both).all()
    assert (both - host).abs().max() > 0.1
    if family.rows == 1:
        return
    assert (host[0] - host[1]).abs().max() > 0.1
    one = run(family, alone, {**f.latent(family), "batch_index": [1]})
    assert len(batch.drawn) == STEPS - 1
    for in_batch, by_itself in zip(batch.drawn, alone.drawn, strict=True):
        assert torch.equal(in_batch[1:], by_itself)
        assert not torch.equal(in_batch[:1], by_itself)
    if family.alone:
        assert (both[1] - one[0]).abs().max() < 1e-3 * float(both.std())


def mask(family, rows=1):
    """A noise_mask: the left half of every latent is sampled."""
    halves = [torch.zeros(rows, 1, *shape[1:]) for shape in family.latents]
    for half in halves:
        half[..., : half.shape[-1] // 2] = 1.0
    return comfy.nested_tensor.NestedTensor(halves) if family.nested else halves[0]


def masked(family):
    """The sampler and the usual search with a noise mask over a latent that is not empty."""
    start = {**f.latent(family, family.rows, empty=False), "noise_mask": mask(family)}
    shapes = [(family.rows, *shape) for shape in family.latents]
    halves = zip(parts(mask(family)), shapes, strict=True)
    kept = torch.cat([half.expand(shape).flatten(1) for half, shape in halves], 1) == 0.0
    before = flat(start["samples"])
    try:
        host = run(family, EULER, start)
    except RuntimeError as error:
        raise ValueError(HOST_FAILS) from error
    assert (host - before)[~kept].abs().max() > 0.1
    assert torch.equal(run(family, FlowSampler(ODE), start), host)
    samplers = [FlowSampler(SDE)]
    if outcome(family.name, "search") == "yes":
        given = {"vae": None, "reward": LatentReward("mean"), "strategy": strategy_of(family)}
        samplers.append(
            SearchInputs(evaluations=8, target=s.NEVER, **given).search(FlowSampler(SDE))
        )
    for sampler in samplers:
        out = run(family, sampler, start)
        assert (out - before)[kept].abs().max() < 1e-5
        assert torch.isfinite(out).all()
        assert (out - host)[~kept].abs().max() > 0.1


def converted(family):
    """Interpolant Conversion: euler on the converted model gives what it gives on the model."""
    model = f.model(family.name)
    prompts = f.conditioning(family, 1), f.conditioning(family, 2)
    shown = convert(model, "vp")
    t = torch.tensor([0.99, 0.8, 0.5, 0.2, 0.0])
    own = shown.get_model_object("model_sampling").s_from_t(t.double()).float()
    native, found = (
        flat(hm.run(hm.guider(each, *prompts, 2.0), EULER, sigmas, f.latent(family))[0])
        for each, sigmas in ((model, t), (shown, own))
    )
    assert native.std() > 0.1
    assert (native - found).abs().max() < 1e-4 * float(native.std())


def strategy_of(family, name=None, **settings):
    """A strategy, the usual one by default, with as many rows in a call as the model takes."""
    rows = 1 if family.rows == 1 else 0
    if name is None:
        return StrategyChoice(EvolutionarySearch(), rows_per_call=rows)
    return s.strategy(name, rows_per_call=rows, **settings)


@cache
def plain(name):
    """What the sampler gives without a search, as the reward sees it."""
    family = f.BY_NAME[name]
    return float(run(family, FlowSampler(SDE), f.latent(family), cfg=1.0).mean())


def searched(family, *strategy, **of_it):
    """A search finds what the sampler gives, or better, in every form; what it says is so."""
    reward = LatentReward("mean")
    chosen = strategy_of(family, *strategy, **of_it)
    evaluations = (4 if strategy else 5) * STEPS
    settings = {"evaluations": evaluations, "target": s.NEVER, "strategy": chosen}
    model = f.model(family.name)
    latent, _, report = s.search(
        guider(family, 1.0), FlowSampler(SDE), f.latent(family), seed=0, sigmas=sigmas_of(model),
        vae=None, reward=reward, **settings,
    )  # fmt: skip
    found = flat(latent["samples"])
    shapes = [part.shape for part in parts(f.latent(family)["samples"])]
    assert [part.shape for part in parts(latent["samples"])] == shapes
    assert float(found.mean()) == pytest.approx(report.best(0), rel=1e-3, abs=1e-5)
    assert report.best(0) >= report.plain(0)
    scores = [row["scores"] for row in report.trace.record["evaluated"]]
    assert len({score["value"] for score in scores if score}) >= STEPS
    assert plain(family.name) == pytest.approx(report.plain(0), rel=1e-3, abs=1e-5)
    if strategy:
        return
    as_sampler = SearchInputs(vae=None, reward=reward, **settings).search(FlowSampler(SDE))
    again = run(family, as_sampler, f.latent(family), cfg=1.0)
    # some processors' products differ in a last bit from call to call (HiDream O1)
    assert (again - found).abs().max() < 1e-5


def by_default(family):
    """A search with its usual strategy, which also mixes pictures, for the mean of the latent."""
    searched(family)


def by_rbf(family):
    """The same with Rollover Budget Forcing."""
    searched(family, "rbf")


def by_smc(family):
    """The same with Sequential Monte Carlo."""
    searched(family, "smc", particles=4, score_below=0.95)


TRIED = {
    "sampler": sampled,
    "noise mask": masked,
    "conversion": converted,
    "search": by_default,
    "RBF": by_rbf,
    "SMC": by_smc,
}


@cache
def outcome(name, what):
    """What came of trying a part of the pack on a family: "yes", or our refusal's own words."""
    try:
        TRIED[what](f.BY_NAME[name])
    except ValueError as refusal:
        return str(refusal)
    return "yes"


def entry(name):
    """What is recorded of a family."""
    family = f.BY_NAME[name]
    shapes = ["x".join(str(size) for size in shape) for shape in family.latents]
    made = {"class": family.kind, "of": family.of, "latents": " and ".join(shapes)}
    return {**made, **{what: outcome(name, what) for what in TRIED}}


def table(record):
    """The record for people: one row a family, reasons below."""
    reasons = list(dict.fromkeys(
        row[what] for row in record.values() for what in TRIED if row[what] != "yes"
    ))  # fmt: skip
    lines = [
        "# Models",
        "",
        "Families of models, each made small by ComfyUI's own classes with random weights, and",
        f"what was tried on it. Written by `{COMMAND}`; the tests hold it to what happens.",
        "",
        f"| model | latents are | {' | '.join(TRIED)} |",
        "|---" * (2 + len(TRIED)) + "|",
    ]
    for name, row in record.items():
        said = [
            "yes" if row[what] == "yes" else f"no [{reasons.index(row[what]) + 1}]"
            for what in TRIED
        ]
        lines.append(f"| {name} | {row['of']} | {' | '.join(said)} |")
    lines += ["", SEARCHED]
    lines += ["", *(f"{number}. {reason}." for number, reason in enumerate(reasons, 1))]
    lines += ["", *(f"* {what}: {' '.join(test.__doc__.split())}" for what, test in TRIED.items())]
    return "\n".join(lines) + "\n"


def summary(record):
    """The record in a few lines, for the README: models that can do the same, together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, row in record.items():
        lacks = tuple(what for what in TRIED if row[what] != "yes")
        groups.setdefault(lacks, []).append(name)
    lines = ["| what works | models |", "|---|---|"]
    for lacks, names in sorted(groups.items(), key=lambda group: len(group[0])):
        said = f"all but {', '.join(lacks)}" if lacks else f"all: {', '.join(TRIED)}"
        lines.append(f"| {'nothing' if len(lacks) == len(TRIED) else said} | {'; '.join(names)} |")
    return "\n".join(lines)


def readme(record):
    """The README with the summary in its place."""
    before, _, after = README.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = after.partition(END)
    assert end, f"{README.name} has no place for the table of models"
    return f"{before}{BEGIN}\n{summary(record)}\n{END}{after}"


def test_a_model_of_one_row_a_call_is_told_the_remedy():
    need("MiniMax H3")
    family = f.BY_NAME["MiniMax H3"]
    with pytest.raises(RuntimeError, match=r"call of \d candidates.*batch size 1.*rows_per_call"):
        s.search(
            guider(family), FlowSampler(SDE), f.latent(family), vae=None,
            reward=LatentReward("mean"), strategy=s.strategy("rbf", rows_per_call=2),
            sigmas=sigmas_of(f.model(family.name)),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "what"),
    [("Wan 2.1, 2.2 14B", "a video"), ("LTX 2", "a video"), ("Stable Audio", "sound")],
)
def test_what_its_vae_cannot_decode_is_refused_to_a_reward_of_pictures(name, what):
    family = f.BY_NAME[name]
    best = SearchInputs(
        vae=s.pixel_vae(), reward=s.Brightness(), evaluations=8, target=s.NEVER
    ).search(FlowSampler(SDE))
    with pytest.raises(ValueError, match=rf"which is {what}, and the VAE .* single pictures"):
        run(family, best, f.latent(family))


def test_video_and_sound_come_back_from_a_search_as_they_went_in():
    """top_k rows of both, a mask that is dropped when its rows no longer fit, and the replay."""
    family = f.BY_NAME["LTX 2"]
    start = {**f.latent(family, 2, empty=False), "noise_mask": mask(family, 2)}
    sigmas = sigmas_of(f.model(family.name))
    latent, picture, report = s.search(
        guider(family), FlowSampler(SDE), start, vae=None, reward=LatentReward("mean"),
        sigmas=sigmas, evaluations=12, top_k=2, strategy=s.strategy("best_of_n"),
    )  # fmt: skip
    shapes = [tuple(part.shape) for part in parts(latent["samples"])]
    assert shapes == [(4, *shape) for shape in family.latents]
    assert "noise_mask" not in latent
    assert isinstance(picture, ExecutionBlocker)
    for row in range(4):
        noise, rest, begin, sampler = Replay.execute(report, row, 1.0).result
        of_mask = [tuple(part.shape) for part in parts(begin["noise_mask"])]
        assert of_mask == [(1, 1, *shape[1:]) for shape in family.latents]
        again, _ = SamplerCustomAdvanced.execute(
            noise=noise, guider=guider(family), sampler=sampler, sigmas=rest, latent_image=begin
        ).result
        found = flat(again["samples"])[0]
        assert (found - flat(latent["samples"])[row]).abs().max() < 1e-4


@pytest.mark.parametrize("evaluations", [3, 2 * STEPS], ids=["thinned", "full"])
def test_a_network_that_reads_the_sigmas_reads_those_of_its_run(evaluations):
    family = f.BY_NAME["HunyuanVideo MeanFlow"]
    # a list or deque would be put back after each picture, as what a patch remembers
    model, queue = f.model(family.name).clone(), SimpleQueue()

    def look(apply, args):
        options = args["c"]["transformer_options"]
        run, sigma = options["sample_sigmas"].tolist(), float(options["sigmas"][0])
        queue.put((sigma, run[run.index(sigma) + 1]))
        return apply(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(look)
    s.search(
        hm.guider(model, f.conditioning(family)), EULER, f.latent(family), vae=None,
        evaluations=evaluations, reward=LatentReward("mean"), sigmas=sigmas_of(model),
    )  # fmt: skip
    calls = [queue.get() for _ in range(queue.qsize())]
    assert len(calls) == evaluations
    for (_, goes_to), (sigma, _) in itertools.pairwise(calls):
        assert goes_to in (sigma, 0.0)
    assert calls[-1][1] == 0.0


def test_the_parts_of_a_row_are_known_to_a_search():
    for name, expected in (("LTX 2", f.BY_NAME["LTX 2"].latents), ("Wan 2.1, 2.2 14B", ())):
        seen = []

        def look(field, seen=seen):
            seen.append(packed_shapes(field.guider))
            shapes = seen[-1] or [field.noise.shape[1:]]
            back = unpacked(field.noise, seen[-1])
            assert [tuple(part.shape[1:]) for part in parts(back)] == [tuple(s) for s in shapes]
            packed = [part.flatten(1) for part in parts(back)]
            assert torch.equal(torch.cat(packed, 1), field.noise.flatten(1))
            return field.noise

        run(f.BY_NAME[name], FunctionSampler(look))
        assert tuple(seen[0]) == expected


def test_a_video_found_by_its_latent_is_shown_by_its_frames():
    family = f.BY_NAME["Wan 2.1, 2.2 14B"]
    vae = comfy.sd.VAE(sd=vm.seeded(TAEHV(latent_channels=16)))
    _, picture, _ = s.search(
        guider(family), FlowSampler(ODE), f.latent(family, 2), vae=vae, evaluations=4,
        reward=LatentReward("mean"), sigmas=sigmas_of(f.model(family.name)),
    )  # fmt: skip
    assert picture.shape == (2 * 9, 64, 64, 3)  # each latent frame but the first makes four


def test_what_a_vae_decodes_to_sound_is_no_picture():
    family = f.BY_NAME["Stable Audio"]
    vae = comfy.sd.VAE(sd={"decoder.layers.1.layers.0.beta": torch.zeros(2048)})  # has no weights
    start = {"samples": torch.zeros(1, 64, 2)}
    _, picture, _ = s.search(
        guider(family), FlowSampler(ODE), start, vae=vae, evaluations=4,
        reward=LatentReward("mean"), sigmas=sigmas_of(f.model(family.name)),
    )  # fmt: skip
    assert isinstance(picture, ExecutionBlocker)
    assert "VAE Decode Audio" in picture.message


def test_video_and_sound_can_be_like_a_reference():
    family = f.BY_NAME["LTX 2"]
    like = f.latent(family, empty=False)
    reward = LatentRewardNode.execute({"statistic": "cosine", "reference": like}).result[0]
    latent, _, report = s.search(
        guider(family, 1.0), FlowSampler(SDE), f.latent(family), vae=None, reward=reward,
        evaluations=8, sigmas=sigmas_of(f.model(family.name)),
    )  # fmt: skip
    found, wanted = flat(latent["samples"]), flat(like["samples"])
    cosine = torch.nn.functional.cosine_similarity(found, wanted)
    assert float(cosine) == pytest.approx(report.best(0), abs=1e-4)


@pytest.mark.parametrize("name", f.BY_NAME)
def test_the_host_recognises_it(name):
    need(name)
    assert type(f.detect(name)).__name__ == f.BY_NAME[name].kind


@pytest.mark.parametrize("what", TRIED)
@pytest.mark.parametrize("name", f.BY_NAME)
def test_it_does_what_the_record_says(name, what):
    """The laws are in the functions above; what breaks one of them raises AssertionError."""
    need(name)
    found = outcome(name, what)
    if not os.environ.get(WRITE):
        assert found == json.loads(RECORD.read_text(encoding="utf-8"))[name][what], COMMAND


def test_the_record_and_the_table_are_the_runs():
    if os.environ.get(WRITE):
        record = {name: entry(name) for name in f.BY_NAME}
        RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        TABLE.write_text(table(record), encoding="utf-8")
        README.write_text(readme(record), encoding="utf-8")
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert list(record) == list(f.BY_NAME), COMMAND
    assert TABLE.read_text(encoding="utf-8") == table(record), COMMAND
    assert README.read_text(encoding="utf-8") == readme(record), COMMAND
