"""On a GPU, with networks of full size: what `bench gpu` claims, but for its seconds."""

import pytest
import torch
from gpu_claims import claims

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("case", ["memory", "eviction", "dynamic", "full", "noise", "reward"])
def test_what_is_claimed_holds(tmp_path, case):
    found = claims(tmp_path, "--only", case)
    assert found, "this machine could not run it"
    assert [text for text, holds in found.items() if not holds] == []
