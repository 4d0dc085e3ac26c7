"""Names that the nodes share: sockets of our own and menu categories."""

from comfy_api.latest import io

__all__ = [
    "CATEGORY_ANALYSIS",
    "CATEGORY_DEMO",
    "CATEGORY_REWARDS",
    "CATEGORY_SAMPLING",
    "CATEGORY_SEARCH",
    "FlowEncoder",
    "FlowGuidance",
    "FlowLanguageModel",
    "FlowNoiseLaw",
    "FlowReport",
    "FlowReward",
    "FlowStrategy",
]

FlowReward = io.Custom("FLOW_REWARD")
FlowEncoder = io.Custom("FLOW_ENCODER")
FlowLanguageModel = io.Custom("FLOW_LANGUAGE_MODEL")
FlowNoiseLaw = io.Custom("FLOW_NOISE_LAW")
FlowStrategy = io.Custom("FLOW_STRATEGY")
FlowGuidance = io.Custom("FLOW_GUIDANCE")
FlowReport = io.Custom("FLOW_REPORT")

CATEGORY_SAMPLING = "FlowSearch/sampling"
CATEGORY_SEARCH = "FlowSearch/search"
CATEGORY_REWARDS = "FlowSearch/rewards"
CATEGORY_ANALYSIS = "FlowSearch/analysis"
CATEGORY_DEMO = "FlowSearch/demo"
