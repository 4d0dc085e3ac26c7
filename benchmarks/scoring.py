"""What do scoring_vae and score_size save, and do they rank alike?

    python scripts/dev.py bench scoring [--size N] [--score-size N] [--reward NAME ...]
        [--evaluations N] [--rounds N] [--pictures N] [--quick] [--json FILE]

Two tables. Reward Search on latents of FLUX.2, by a small network of the host's own Flux2 class:
its seconds with the full VAE (FLUX.2's architecture as the host detects it, random weights), with
score_size, with TAEF2 as scoring_vae, and with both, in turn; ratios are of the same round. It all
runs on the CPU and seconds are the process's own (with OMP_NUM_THREADS=1 those of one core), so
that what else the machine does counts little. The network costs nearly nothing, so this is what
decoding and scoring save, not a share of a search on FLUX.2 itself.

Then how alike the cheap scores rank pictures: drawn scenes, each mixed with another one by up to a
half, as predictions on the way are averages of pictures. They are encoded and decoded by TAEF2,
shrunk, and scored; Spearman's rank correlation with the scores of the pictures themselves, which is
what a VAE without any loss would show. FLUX.2's own VAE is not at hand, so it is not what is
compared with.

It needs taef2_encoder.pth and taef2_decoder.pth (https://github.com/madebyollin/taesd) in the
folder FLOWSEARCH_TEST_WEIGHTS, by default shared/weights beside the checkout.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _exact_models import sample  # noqa: F401 - puts the host on the path, for the CPU
from _report import Report
from _reward_networks import MAKERS, ROOT, Absent
from scipy.stats import spearmanr
from torch import Tensor

STEPS = 6
TIMED = ("image_statistic:sharpness", "text_in_image")
RANKED = ("image_statistic:sharpness", "image_statistic:compressibility", "image_statistic:palette",
          "shape_fidelity")  # fmt: skip


def full_vae() -> Any:
    """FLUX.2's VAE as the host detects it, with random weights."""
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    sizes = {
        "double_z": True, "z_channels": 32, "resolution": 256, "in_channels": 3, "out_ch": 3,
        "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [],
        "dropout": 0.0, "batch_norm_latent": True,
    }  # fmt: skip
    network, generator = AutoencoderKL(ddconfig=sizes, embed_dim=32), torch.Generator()
    generator.manual_seed(0)
    for name, weights in network.named_parameters():
        wide = weights.ndim > 1
        std = weights[0].numel() ** -0.5 if wide else 0.1
        centre = 1.0 if not wide and name.endswith("weight") else 0.0
        weights.data.normal_(centre, std, generator=generator)
    vae = comfy.sd.VAE(sd=network.state_dict())
    assert vae.latent_channels == 128, "the host takes this for another VAE than FLUX.2's"
    return vae


def taef2() -> Any:
    """Load TAEF2 by the host's Load VAE node.

    Returns:
        The VAE.

    Raises:
        Absent: No weights, or a host that does not know it.
    """
    import folder_paths
    from nodes import VAELoader

    if "taef2" not in VAELoader.image_taes:
        raise Absent("this ComfyUI knows no TAEF2")
    default = ROOT.parent / "shared" / "weights"
    folder = Path(os.environ.get("FLOWSEARCH_TEST_WEIGHTS") or default)
    with tempfile.TemporaryDirectory() as place:
        for part in ("encoder", "decoder"):
            name = f"taef2_{part}.pth"
            if not (folder / name).exists():
                raise Absent(f"{name} is not in the folder FLOWSEARCH_TEST_WEIGHTS")
            shutil.copy(folder / name, place)
        kept = folder_paths.folder_names_and_paths["vae_approx"]
        folder_paths.folder_names_and_paths["vae_approx"] = ([place], kept[1])
        found = VAELoader().load_vae("taef2")[0]
        folder_paths.folder_names_and_paths["vae_approx"] = kept
    return found


class Timed:
    """A reward or a VAE that adds up the seconds of one of its methods, and its pictures.

    Args:
        inner: The reward or VAE.
        method: Which of its methods.
    """

    def __init__(self, inner: Any, method: str) -> None:
        self._inner, self._method, self.seconds, self.rows = inner, method, 0.0, 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._called if name == self._method else found

    def _called(self, rows: Tensor) -> Any:
        start = time.process_time()
        out = getattr(self._inner, self._method)(rows)
        self.seconds += time.process_time() - start
        self.rows += len(rows)
        return out


def search(size: int, evaluations: int, reward: Any, vae: Any, **cheap: Any) -> dict[str, float]:
    """Run one search.

    Args:
        size: Of the pictures, pixels.
        evaluations: Budget.
        reward: Scores pictures.
        vae: Decodes finished pictures.
        **cheap: scoring_vae, score_size.

    Returns:
        Seconds of all, of decoding and of scoring; pictures scored, and decoded by the full VAE.
    """
    import families

    from flowsearch.nodes.host.search.search_sampler import StrategyChoice
    from flowsearch.nodes.search.reward_search import RewardSearch
    from flowsearch.samplers.search import STRATEGIES

    family = families.BY_NAME["Flux 2"]
    conds = [families.conditioning(family, seed) for seed in (1, 2)]
    vaes = {name: Timed(each, "decode") for name, each in {"vae": vae, **cheap}.items()
            if name != "score_size"}  # fmt: skip
    timed = Timed(reward, "assess" if hasattr(reward, "assess") else "score")
    start = time.process_time()
    RewardSearch.execute(
        model=families.model("Flux 2"), positive=conds[0], negative=conds[1],
        latent_image={"samples": torch.zeros(1, 128, size // 16, size // 16)}, seed=1, steps=STEPS,
        cfg=1.0, scheduler="simple", denoise=1.0, evaluations=evaluations,
        target={"target": "never"}, checkpoint_seconds=0.0, reward=timed,
        strategy=StrategyChoice(STRATEGIES["rbf"](), rows_per_call=4), **{**cheap, **vaes},
    )  # fmt: skip
    return {
        "seconds": time.process_time() - start,
        "decoding": sum(each.seconds for each in vaes.values()),
        "scoring": timed.seconds,
        "scored": timed.rows,
        "by the full VAE": vaes["vae"].rows,
    }


def times(name_of_reward: str, options: argparse.Namespace, cheap: Any, report: Report) -> None:
    """Add a reward to the first table."""
    reward, _ = MAKERS[name_of_reward](1)
    vae, score_size = full_vae(), options.score_size
    cases: dict[str, dict[str, Any]] = {
        "nothing": {},
        "score_size": {"score_size": score_size},
        "scoring_vae": {"scoring_vae": cheap},
        "both": {"scoring_vae": cheap, "score_size": score_size},
    }
    search(options.size, STEPS, reward, vae, **cases["both"])  # what is made once
    found: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    names = [*cases]
    for number in range(options.rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            given = (options.size, options.evaluations, reward, vae)
            found[name].append(search(*given, **cases[name]))
            print(name, found[name][-1], flush=True)
    for name in cases:
        pairs = zip(found[name], found["nothing"], strict=True)
        ratio = statistics.median(one["seconds"] / all_["seconds"] for one, all_ in pairs)
        middle = {key: statistics.median(one[key] for one in found[name]) for key in found[name][0]}
        row = {"part": "times", "reward": name_of_reward, "cheap": name}
        report.rows.append({**row, **middle, "of nothing cheap": f"{ratio:.3f}"})


def pictures_on_the_way(count: int, size: int) -> Tensor:
    """Drawn scenes of the embedded model's world, enlarged, mixed by up to a half; the same each
    time."""
    from flowsearch.demo.scene import draw, random_scene

    rng = np.random.default_rng(7)
    drawn = np.stack([draw(random_scene(rng), rng) for _ in range(2 * count)])
    share = rng.uniform(0.0, 0.5, (count, 1, 1, 1)).astype(np.float32)
    mixed = torch.from_numpy((1 - share) * drawn[:count] + share * drawn[count:]).movedim(-1, 1)
    large = torch.nn.functional.interpolate(mixed, size=(size, size), mode="bicubic")
    return large.movedim(1, -1).clamp(0.0, 1.0)


def ranks(options: argparse.Namespace, cheap: Any, report: Report) -> None:
    """Fill the second table."""
    from flowsearch.nodes.host.search.views import decoded as to_pictures
    from flowsearch.nodes.host.search.views import shrink

    seen = pictures_on_the_way(options.pictures, options.size)
    decoded = torch.cat([to_pictures(cheap, cheap.encode(one[None])) for one in seen])
    cases = {
        "score_size": shrink(seen, options.score_size),
        "scoring_vae": decoded,
        "both": shrink(decoded, options.score_size),
    }
    for name in RANKED:
        reward, _ = MAKERS[name](1)
        true = reward.score(seen).cpu()
        row: dict[str, Any] = {"part": "ranks", "reward": name}
        for how, pictures in cases.items():
            row[how] = float(spearmanr(true, reward.score(pictures).cpu()).statistic)
        report.rows.append(row)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128, help="of pictures, a multiple of 16")
    parser.add_argument("--score-size", type=int, default=64)
    parser.add_argument("--reward", nargs="+", choices=MAKERS, default=TIMED, help="of the search")
    parser.add_argument("--evaluations", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=48, help="that are ranked")
    parser.add_argument("--quick", action="store_true", help="one round of few evaluations")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.evaluations, options.pictures = 1, 12, 12
    report = Report("scoring")
    try:
        cheap = taef2()
    except Absent as reason:
        raise SystemExit(f"bench scoring cannot run: {reason}\n{__doc__}") from None
    with torch.no_grad():
        for name in options.reward:
            try:
                times(name, options, cheap, report)
            except Absent as reason:
                print(f"{name} is left out: {reason}")
        ranks(options, cheap, report)
    report.finish(options.json)


if __name__ == "__main__":
    main()
