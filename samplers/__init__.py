"""Mathematics of flow samplers: the conventions, in one place. Imports nothing; never the host.

Time and state
    sigma in [0, 1] is the host's sigma of a flow model: 1 is noise, 0 is data. A list of N steps
    holds N + 1 sigmas. States are kept on the linear path:

        x = (1 - sigma) x0 + sigma eps,    v = dx/dsigma = eps - x0,    score = -eps / sigma

    x0 is the clean latent and D ("denoised") its prediction E[x0 | x] = x - sigma v; eps is the
    noise and e = (x - (1 - sigma) D) / sigma its prediction. score is the gradient of the log
    density of x; signs are those of these three lines everywhere.

Interpolants (interpolant.py)
    Another path y = alpha(r) x0 + sigma(r) eps has its own time r. With c = alpha + sigma,

        y = c x,    sigma_linear = sigma(r) / c,    rho = sigma / alpha is common to both.

Two densities (paths/two_sided.py)
    Where the source is not noise but a density of its own, time t is 1 there and 0 at the target:

        x = alpha(t) x0 + beta(t) x1 + gamma(t) z,    score = -E[z | x] / gamma

    x1 is a draw of the source, S = E[x1 | x] the prediction of it beside D. With a normal x1 it is
    an interpolant again. A network of a Brownian bridge gives D, or (x - D) / t, the host's v.

Factors of two
    eps(sigma) below is a diffusion coefficient, as in the literature. With tau = 1 - sigma,

        dx = (-v + eps score) dtau + sqrt(2 eps) dW

    has the ODE's marginals for every eps >= 0. So the score's factor is eps and the variance
    grows by 2 eps per unit time; whoever writes g dW has g^2 = 2 eps. Here the strength is
    k = eps / eps_KL, with eps_KL = sigma / (1 - sigma) on the linear path; k = 1 is the DDPM
    posterior, and k does not change when the path or its time does.

Other codebases, in Python notation; every row is tested. s is our sigma, t their time; velocity is
dx/dt in their time, x0 and eps being ours and v = eps - x0; "score" is the factor of the score in
their SDE, which is our eps, and "noise" the square of its dW's factor, in their own symbol.

    | codebase           | t       | alpha     | sigma           | velocity     | score | noise |
    |--------------------|---------|-----------|-----------------|--------------|-------|-------|
    | ComfyUI CONST      | s       | 1-t       | t               | v            |       |       |
    | diffusers flow     | 1000*s  | 1-t/1000  | t/1000          | v/1000       |       |       |
    | Meta flow_matching | 1-s     | t         | 1-t             | -v           |       |       |
    | SI paper           | 1-s     | t         | 1-t             | -v           | eps   | 2*eps |
    | SiT paper          | s       | 1-t       | t               | v            | w/2   | w     |
    | SiT code           | 1-s     | t         | 1-t             | -v           | w     | 2*w   |
    | Flow-GRPO          | s       | 1-t       | t               | v            | g*g/2 | g*g   |
    | RBF paper, linear  | s       | 1-t       | t               | v            | g*g/2 | g*g   |
    | RBF paper, VP      | r(VP)   | exp(-T/2) | sqrt(1-exp(-T)) | a*x0 + b*eps | g*g/2 | g*g   |
    | score-SDE, VP      | r(VP)   | exp(-T/2) | sqrt(1-exp(-T)) | a*x0 + b*eps | g*g/2 | g*g   |
    | EDM, k-diffusion   | s/(1-s) | 1         | t               | a*x0 + b*eps | g*g/2 | g*g   |

In VP, T = 0.1 t + 9.95 t^2; a and b are the derivatives of alpha and sigma. The velocity that
diffusers' and ComfyUI's networks return is v. score-SDE's reverse SDE has g^2 = beta = T', which is
k = 1. The SI paper calls the factor of the noise alpha and that of the data beta.

Sources: Albergo, Boffi, Vanden-Eijnden 2023, arXiv:2303.08797; Ma et al. 2024, arXiv:2401.08740;
Kim et al. 2025, arXiv:2503.19385; Song et al. 2021, arXiv:2011.13456.
"""
