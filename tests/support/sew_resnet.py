"""SpikingJelly's residual networks, in a module that imports packages of which these need nothing."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest


class Anything(ModuleType):
    """A package that has every name."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


@contextmanager
def sew_resnet_module() -> Iterator[ModuleType]:
    """The module; afterwards it is not imported any more."""
    pytest.importorskip("spikingjelly")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("h5py", "torchvision", "torchvision.models", "torchvision.models.utils"):
            if name not in sys.modules:
                patch.setitem(sys.modules, name, Anything(name))
        yield importlib.import_module("spikingjelly.activation_based.model.sew_resnet")
        for name in [name for name in sys.modules if name.startswith("spikingjelly.activation_based.model")]:
            del sys.modules[name]
