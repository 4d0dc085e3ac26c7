"""FlowSearch: test-time search for flow models. Nothing is imported until ComfyUI asks."""

WEB_DIRECTORY = "web"


async def comfy_entrypoint():  # noqa: ANN201 - the type is the host's
    """Hand the host the pack's extension.

    Returns:
        The ComfyExtension that lists the nodes.
    """
    try:
        from .nodes.extension import Extension
    except Exception:
        import logging

        # The host reports an exception here as one line without its place.
        logging.getLogger("flowsearch").exception("flowsearch could not load")
        raise
    return Extension()
