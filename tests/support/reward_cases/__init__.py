"""Small instances of every reward, for the laws that all of them obey. One file a family."""

from reward_cases import (
    combined,
    detection,
    embeddings,
    faces,
    language,
    pixels,
    plain,
    preference,
    sound,
)

FAMILIES = (plain, preference, combined, embeddings, faces, language, pixels, detection, sound)

CASES = {name: make for family in FAMILIES for name, make in family.CASES.items()}
"""Name to a function without arguments that makes the reward; "name:variant" for a second one."""
OTHER = {name: make for family in FAMILIES for name, make in getattr(family, "OTHER", {}).items()}
"""The same for another prompt, of those that read one and see it in the given rows."""
