"""Parts of scripts/dev.py: standard library only, so that they run before anything is installed."""


class DevError(Exception):
    """A failure whose message is a sentence for the person at the keyboard."""


def say(text: str) -> None:
    """Print one line at once, also when the output is a pipe.

    Args:
        text: The line, without its end.
    """
    print(f"[dev] {text}", flush=True)
