"""What rewards are given, by what they score: rows that differ."""

from flowsearch.rewards.testing import EXAMPLES as GIVEN
from flowsearch.rewards.testing import clips, pictures, sounds

__all__ = ["GIVEN", "clips", "pictures", "sounds"]
