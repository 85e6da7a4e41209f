import torch

from dpap.spiking import ArcTan, Sigmoid, Triangle, compiled, fused, integrate, kernel
from dpap.spiking.rule import Rule


class Current:
    """As much of a CUDA tensor as the choice of a backend reads."""

    device, dtype, is_cuda = torch.device("cuda"), torch.float32, True


class Own(ArcTan):
    """Its derivative need not be that of its base."""


def backend(current, surrogate, compile_steps=False):
    return integrate._backend(current, Rule(1.0, True, False, surrogate), compile_steps)


def test_kernels_serve_surrogates_whose_formula_they_have(unchecked, monkeypatch):
    monkeypatch.setattr(kernel, "importable", lambda: True)
    assert all(backend(Current(), surrogate) is kernel for surrogate in (ArcTan(), Sigmoid(), Triangle()))
    assert backend(Current(), Own()) is fused
    assert backend(torch.zeros(1), ArcTan()) is fused


def test_steps_are_compiled_where_that_is_wanted_and_possible(unchecked, monkeypatch):
    for possible in (True, False):
        monkeypatch.setattr(compiled, "possible", lambda device, possible=possible: possible)
        assert backend(torch.zeros(1), ArcTan(), compile_steps=True) is (compiled if possible else fused)
        assert backend(torch.zeros(1), ArcTan()) is fused
