"""Rollover Budget Forcing as its authors' code loops, written from its description alone."""


def published(rewards, chains, budget, pool, steps):
    """The published loop, written from its description; arXiv:2503.19385's code, batch = chains.

    Rewards are indexed [chain][draw], pool first. Returns for each chain its draws as
    (step, parent draw) and its output draw.
    """
    quota = int((budget - pool * chains) / (steps * chains))
    state = []
    for row in rewards:
        first = max(range(pool), key=lambda i, row=row: row[i])
        state.append({
            "node": first, "best": row[first], "limit": quota, "count": 1, "step": 0,
            "top": None, "draws": [(0, None)] * pool,
        })  # fmt: skip
    spent, draw = pool * chains, pool
    while spent + chains < budget:
        spent += chains
        for row, chain in zip(rewards, state, strict=True):
            value = row[draw]
            chain["draws"].append((chain["step"] + 1, chain["node"]))
            if chain["top"] is None or value > row[chain["top"]]:
                chain["top"] = draw
            better, proceed = value > chain["best"], chain["step"] < steps - 2
            full = chain["count"] % chain["limit"] == 0
            if better:
                chain["best"] = value
            if proceed and (better or full):
                left = chain["limit"] - chain["count"] if better else 0
                chain.update(
                    node=draw if better else chain["top"], limit=quota + left, count=0,
                    step=chain["step"] + 1, top=None,
                )  # fmt: skip
            chain["count"] += 1
        draw += 1
    return [(chain["draws"], chain["top"]) for chain in state]
