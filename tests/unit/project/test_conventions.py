"""The table of the conventions page, row by row: derivatives, and noise against score."""

import ast
import math
import operator

import pytest
import torch

from flowsearch import samplers
from flowsearch.samplers.paths.interpolant import VP, kl_diffusion, r_from_sigma, vp_beta
from flowsearch.samplers.paths.noise_law import noise_law

SIGMAS = torch.tensor([0.1, 0.35, 0.5, 0.9], dtype=torch.float64)
X0, EPS = 0.7, -1.3
OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def rows():
    lines = [line.strip() for line in samplers.__doc__.splitlines()]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    return [row for row in cells if row[0] != "codebase" and set(row[0]) != {"-"}]


def evaluate(expression, **names):
    if expression == "r(VP)":
        return r_from_sigma(VP, names["s"])
    return arithmetic(ast.parse(expression, mode="eval").body, names) + 0.0 * SIGMAS


def arithmetic(node, names):
    """Value of a parsed formula: names, numbers, + - * / **, exp and sqrt."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -arithmetic(operand, names)
        case ast.BinOp(left=left, op=sign, right=right):
            return OPERATIONS[type(sign)](arithmetic(left, names), arithmetic(right, names))
        case ast.Call(func=ast.Name(id=name), args=[argument]):
            return {"exp": torch.exp, "sqrt": torch.sqrt}[name](arithmetic(argument, names))
    raise ValueError(f"not arithmetic: {ast.unparse(node)}")


def state(row, t):
    """Return their state, its alpha and sigma at their time t."""
    T = 0.1 * t + 9.95 * t * t
    alpha, sigma = (evaluate(cell, t=t, T=T) for cell in row[2:4])
    return alpha * X0 + sigma * EPS, alpha, sigma


def velocity_error(row):
    """Largest difference between the table's velocity and the derivative of the state."""
    t = evaluate(row[1], s=SIGMAS).requires_grad_()
    x, alpha, sigma = state(row, t)
    slope, a, b = (
        torch.autograd.grad(f.sum(), t, retain_graph=True)[0]
        if f.requires_grad
        else 0.0 * t.detach()
        for f in (x, alpha, sigma)
    )
    stated = evaluate(row[4], v=EPS - X0, x0=X0, eps=EPS, a=a, b=b)
    return float((stated - slope).abs().max())


def test_the_table_has_the_codebases_it_promises():
    names = " ".join(row[0] for row in rows())
    for name in ("ComfyUI", "SiT", "Meta flow_matching", "score-SDE", "RBF"):
        assert name in names


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_their_state_is_ours_up_to_a_factor(row):
    t = evaluate(row[1], s=SIGMAS)
    x, alpha, sigma = state(row, t)
    torch.testing.assert_close(sigma / (alpha + sigma), SIGMAS)
    torch.testing.assert_close(x / (alpha + sigma), (1.0 - SIGMAS) * X0 + SIGMAS * EPS)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_their_velocity_is_the_derivative_in_their_time(row):
    assert velocity_error(row) < 1e-9


def test_a_wrong_sign_of_velocity_is_seen():
    (row,) = [r for r in rows() if r[0] == "SiT code"]
    assert velocity_error([*row[:4], "v", *row[5:]]) > 1.0


@pytest.mark.parametrize("row", [r for r in rows() if r[5]], ids=lambda row: row[0])
def test_their_noise_balances_their_score(row):
    for d in (0.3, 1.7):
        names = {"eps": d, "w": d, "g": d}
        score, noise = (evaluate(cell, **names)[0].item() for cell in row[5:7])
        assert noise == pytest.approx(2.0 * score)


def test_presets_use_their_authors_factors():
    """SiT's code has eps = sigma, Flow-GRPO std = a sqrt(s / (1 - s)), RBF g = 3 r^2."""
    s = 0.6
    assert noise_law("sit_sigma").diffusion(s) == pytest.approx(s)
    std = 0.7 * math.sqrt(s / (1.0 - s))
    assert noise_law("flow_grpo", a=0.7).diffusion(s) == pytest.approx(std**2 / 2.0)
    r = r_from_sigma(VP, s)
    g = 3.0 * r**2
    assert noise_law("rbf_reference").k(s) == pytest.approx(g**2 / 2.0 / kl_diffusion(VP, r))
    assert kl_diffusion(VP, r) == pytest.approx(vp_beta(r) / 2.0)
