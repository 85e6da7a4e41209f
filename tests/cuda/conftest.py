"""All tests here need a GPU, and run without the checks of shapes, over which the compiler stumbles."""

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "cuda" in item.path.parts:
            item.add_marker(pytest.mark.cuda)
            item.add_marker(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


@pytest.fixture(autouse=True)
def without_checks_and_roundings(unchecked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFloat-32 would hide in convolutions what is compared."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
