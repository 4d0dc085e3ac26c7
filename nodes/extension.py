"""The list of nodes, in the order of the menu."""

from comfy_api.latest import ComfyExtension, io

from . import rewards
from .host.page.text import guard_log
from .host.rewards import reward_files
from .input_checks import checked
from .rewards import gate, scoring
from .sampling import conversion, demo_model, guidance, sampler
from .search import replay, report, reward_search, strategy
from .study import inspection, inversion, likelihood

__all__ = ["Extension"]

MODULES = (
    reward_search,
    strategy,
    replay,
    report,
    sampler,
    guidance,
    inversion,
    conversion,
    likelihood,
    inspection,
    rewards,
    scoring,
    gate,
    demo_model,
)


class Extension(ComfyExtension):
    """What the host asks for the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """List the node classes, whose lists need the folder of rewards.

        Returns:
            The NODES of every module, in order, each with a look at what it is given.
        """
        guard_log()
        reward_files.register()
        return [checked(node) for module in MODULES for node in module.NODES]
