"""Search inside the host: the only place that knows the host's shapes, memory and interrupts."""
