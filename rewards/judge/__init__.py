"""A language model behind a server as the reward: what it may cost, is asked and answers."""
