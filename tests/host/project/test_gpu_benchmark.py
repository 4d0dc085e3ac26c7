"""`bench gpu` runs where there is no GPU, on small networks, by the same code."""

from gpu_claims import claims


def test_eviction_and_weights_of_eight_bits_change_no_bit_of_a_search(tmp_path):
    found = claims(tmp_path, "--small", "--only", "eviction", "noise")
    eviction = [text for text in found if "eviction" in text]
    assert len(eviction) == 4  # two models in two types
    assert [text for text, holds in found.items() if not holds] == []
