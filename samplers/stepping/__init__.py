"""From one sigma to the next: the transition, its methods, keyed noise and the one loop."""
