"""How is a step taken under guidance? Ask for the gradient, change what the method changes, step.

The gradient is taken at the prediction, at what a few ODE steps from there come to, or through the
network. A method that remembers predictions remembers those that it stepped with: guided ones are
those of another field, and that field is what is integrated.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .guidance import GUIDANCE_METHODS, GradientError, GradientSource, Guidance, linear
from .method import exact
from .step import Coefficients, step
from .whitening import like_rows, white

__all__ = ["Steering"]

Model = Callable[[Tensor, float], Tensor]


class Steering:
    """Guidance of one step of some rows.

    Attributes:
        gradients: Gradients asked for, a row.
        evaluations: Evaluations that the source took beside the calls of the model, a row.
        log_weight: Log of target over proposal density of the draw, one a row; None for none.
    """

    def __init__(
        self, guidance: Guidance, source: GradientSource, rows: Sequence[int], model: Model
    ) -> None:
        """Keep what the gradient comes from.

        Args:
            guidance: How it steers.
            source: Knows the gradient.
            rows: Rows of the caller's batch, for the source.
            model: model(x, sigma) predicts these rows.
        """
        self.gradients = 0
        self.evaluations = 0
        self.log_weight: Tensor | None = None
        self._guidance = guidance
        self._method = GUIDANCE_METHODS[guidance.method]
        self._source = source
        self._rows = [*rows]
        self._model = model

    def prepared(
        self, x: Tensor, denoised: Tensor, coefficients: Coefficients, z: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the prediction and the noise that a step is to be taken with.

        Args:
            x: States at coefficients.sigma.
            denoised: Predictions there.
            coefficients: The step; not one of an ascent.
            z: Its fresh noise, if it needs any.

        Returns:
            Both; changed where the method changes them and the step is guided.

        Raises:
            GradientError: A gradient is not finite.
            ValueError: A gradient has another shape.
        """
        guidance = self._guidance
        if guidance.ascends or not guidance.acts(coefficients):
            return denoised, z
        g = self._gradient(x, denoised, coefficients.sigma, coefficients)
        if self._method.prediction is not None:
            sigma = linear(coefficients.sigma, coefficients)
            return self._shift(denoised, g, sigma), z
        if self._method.noise is not None and z is not None:
            drawn = z.to(g)
            tilted, self.log_weight = self._method.noise(guidance, coefficients, drawn, g)
            free = self._source.free(self._rows)
            z = tilted if free is None else torch.where(free.to(g) > 0.0, tilted, drawn)
        return denoised, z

    def model(self, coefficients: Coefficients) -> Model:
        """Return what a step calls within itself: the model, its predictions guided likewise.

        Args:
            coefficients: The step.

        Returns:
            model(x, sigma). Where its last call is the picture itself, that is the model's own.
        """
        guidance = self._guidance
        if self._method.prediction is None or coefficients.via or not guidance.acts(coefficients):
            return self._model

        def guided(x: Tensor, sigma: float) -> Tensor:
            denoised = self._model(x, sigma)
            place = linear(sigma, coefficients)
            if not guidance.covers(place):
                return denoised
            return self._shift(denoised, self._gradient(x, denoised, sigma, coefficients), place)

        return guided

    def is_ascent(self, coefficients: Coefficients) -> bool:
        """Return whether a step is to be an ascent: at constant sigma, by a method of starts."""
        return self._guidance.ascends and self._guidance.acts(coefficients)

    def ascent(self, x: Tensor, denoised: Tensor, sigma: float, slope: float) -> Tensor:
        """Turn the noise of states towards the gradient, at constant sigma.

        Args:
            x: States.
            denoised: Predictions there.
            sigma: In the model's coordinates.
            slope: That of the coordinates; see Coefficients.

        Returns:
            States at the same sigma.
        """
        place = Coefficients(sigma, sigma, 1.0, slope=slope)
        if self._method.kept is None or not self._guidance.acts(place):
            return x
        dtype = torch.promote_types(x.dtype, torch.float32)
        wide, clean = x.to(dtype), denoised.to(dtype)
        g = self._gradient(x, denoised, sigma, place).to(dtype)
        e = (wide - clean * (1.0 - slope * sigma)) / sigma
        free = self._source.free(self._rows)
        moves = torch.ones_like(e, dtype=torch.bool) if free is None else free.to(e) > 0.0
        kept = torch.zeros_like(e)
        turned = torch.where(moves, self._method.kept(self._guidance, e.where(moves, kept), g), e)
        return (wide + (turned - e) * sigma).to(x.dtype)

    def _shift(self, denoised: Tensor, g: Tensor, sigma: float) -> Tensor:
        shift = self._method.prediction
        wide = denoised.to(torch.promote_types(denoised.dtype, torch.float32))
        return denoised if shift is None else shift(self._guidance, sigma, wide, g.to(wide))

    def _gradient(
        self, x: Tensor, denoised: Tensor, sigma: float, coefficients: Coefficients
    ) -> Tensor:
        """Ask for the gradient; return it white, or as it is for a method that wants it so."""
        self.gradients += 1
        if self._guidance.through == "network" and sigma > 0.0:
            self.evaluations += 1
            g = self._source.through(self._rows, x, sigma)
        else:
            g = self._source.at(self._rows, self._ahead(x, denoised, sigma, coefficients))
        if g.shape != denoised.shape:
            raise ValueError(
                f"the gradient has the shape {tuple(g.shape)}, the latents "
                f"{tuple(denoised.shape)}; a gradient is like what it is taken with respect to"
            )
        g = g.to(denoised.device)
        finite = g.flatten(1).isfinite().all(1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            raise GradientError(
                self._rows[row],
                f"the gradient of the reward holds numbers that are not finite (NaN or infinite) "
                f"in row {self._rows[row]} at sigma {sigma:.4g}; try a lower strength or another "
                "reward, run the decoder in a higher precision, or switch the guidance off",
            )
        return g if self._method.raw else self._white(g)

    def _white(self, gradient: Tensor) -> Tensor:
        """Return it white where it may move: a mask makes no number of it larger."""
        g, free = white(gradient, self._guidance.whitening), self._source.free(self._rows)
        if free is None:
            return g
        share = free.to(g).expand_as(g).flatten(1).mean(1)
        return g * like_rows(share.sqrt(), g)

    def _ahead(
        self, x: Tensor, denoised: Tensor, sigma: float, coefficients: Coefficients
    ) -> Tensor:
        """Return the prediction after a few ODE steps, evenly in linear sigma."""
        count = self._guidance.look_ahead if sigma > 0.0 else 0
        place = linear(sigma, coefficients)
        for number in range(1, count + 1):
            to = linear(sigma, coefficients) * (1.0 - number / (count + 1.0))
            row = exact(place, to, 1.0)
            if not coefficients.slope:
                row = row.exploding(place / (1.0 - place), to / (1.0 - to))
            x = step(x, denoised, row, None)
            denoised, place = self._model(x, row.sigma_next), to
        return denoised
