"""The list of nodes, in the order of the menu."""

from comfy_api.latest import ComfyExtension, io

from . import (
    conversion,
    demo,
    gate,
    inspection,
    inversion,
    likelihood,
    replay,
    report,
    rewards,
    sampling,
    scoring,
    search,
    strategy,
)
from .host import reward_files
from .host.given import checked
from .host.text import guard_log

__all__ = ["Extension"]

MODULES = (
    search,
    strategy,
    replay,
    report,
    sampling,
    inversion,
    conversion,
    likelihood,
    inspection,
    rewards,
    scoring,
    gate,
    demo,
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
