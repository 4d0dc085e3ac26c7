"""A ControlNet as Advanced-ControlNet makes them: methods of the instance as attributes, super()
kept, keyframes that only advance, read by the time of the call."""

import comfy.controlnet


class KeyframedControl(comfy.controlnet.ControlNet):
    """A ControlNet whose strength follows keyframes (start percent, strength)."""

    def __init__(self, *args, keyframes=((0.0, 1.0), (0.3, 0.2), (0.6, 2.0)), **kwargs):
        super().__init__(*args, **kwargs)
        self.keyframes = keyframes
        self.starts = ()
        self.base = super(KeyframedControl, self)  # noqa: UP008 - it is kept, as that pack does
        self.get_control = self.get_control_inject
        self.pre_run = self.pre_run_inject
        self.cleanup = self.cleanup_inject
        self.forget()

    def forget(self):
        """A run begins."""
        self.index, self.prev_t = -1, None

    def copy(self):
        """As the host copies a ControlNet when a picture is applied to it."""
        ours = KeyframedControl(None, load_device=self.load_device, keyframes=self.keyframes)
        ours.control_model, ours.control_model_wrapped = (
            self.control_model, self.control_model_wrapped,
        )  # fmt: skip
        self.copy_to(ours)
        return ours

    def pre_run_inject(self, model, percent_to_timestep):
        self.base.pre_run(model, percent_to_timestep)
        self.starts = [percent_to_timestep(percent) for percent, _ in self.keyframes]
        self.forget()

    def cleanup_inject(self):
        self.base.cleanup()
        self.forget()

    def prepare_current_timestep(self, t, transformer_options):
        """Advance, where the time has come."""
        now = float(t[0])
        if now == self.prev_t:
            return
        while self.index + 1 < len(self.starts) and self.starts[self.index + 1] >= now:
            self.index += 1
        self.prev_t = now

    def get_control_inject(self, x_noisy, t, cond, batched_number, transformer_options):
        self.prepare_current_timestep(t, transformer_options)
        own, self.strength = self.strength, self.strength * self.keyframes[self.index][1]
        try:
            return self.base.get_control(x_noisy, t, cond, batched_number, transformer_options)
        finally:
            self.strength = own
