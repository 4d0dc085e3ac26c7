"""A guider as Inspire's scheduled ones: it keeps its sigmas, and guidance at a sigma that is none
of them is that of the step after the last one."""

import comfy.samplers


class ScheduledGuider(comfy.samplers.CFGGuider):
    """Guidance that falls over the run's sigmas."""

    def __init__(self, model, sigmas, first, last):
        super().__init__(model)
        self.sigmas = sigmas
        steps = len(sigmas) - 1
        self.at = {float(s): (first + (last - first) * i / steps, i) for i, s in enumerate(sigmas)}
        self.by_step = dict(enumerate(self.at.values()))
        self.last = 0

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        sigma = float(timestep[0])
        if sigma not in self.at:
            self.at[sigma] = self.by_step[self.last + 1]
        self.cfg, self.last = self.at[sigma]
        return super().predict_noise(x, timestep, model_options or {}, seed)
