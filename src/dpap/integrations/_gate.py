"""Weights of a compact network that arrive before the state of its pruner: held back until that has come."""

from typing import Any

from torch import Tensor, nn

from dpap.surgery.timesteps import AXES, BUFFER


class Gate:
    """Holds back weights that do not fit a network, for frameworks that load them before anything else.

    While it stands, `root.load_state_dict` leaves the network as it is where the sizes of the weights are others than
    the network's; `release` loads them, after the pruner's state has made the network fit.

    Args:
        root: the module whose `load_state_dict` the framework calls; it may contain the network.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.held: dict[str, Any] = {}
        self._loaded = False
        self._open = False
        self._handle = root.register_load_state_dict_pre_hook(self._look)

    @classmethod
    def shut(cls, root: nn.Module) -> "Gate":
        """One that holds nothing back, without a hook."""
        gate = cls(root)
        gate.detach()
        return gate

    def release(self, *, strict: bool = True) -> None:
        """Load what was held back, if anything was."""
        held, self.held = self.held, {}
        self._loaded = False
        if held:
            self._open = True
            try:
                self.root.load_state_dict(held, strict=strict)
            finally:
                self._open = False

    def take_news(self) -> bool:
        """Whether weights were loaded since this was last asked, without a `release`."""
        loaded, self._loaded = self._loaded, False
        return loaded

    def detach(self) -> None:
        """Take the hook out, and forget what was held back."""
        self._handle.remove()
        self.held = {}

    def _look(self, module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self._open or prefix:
            return
        self._loaded = True
        own = module.state_dict()
        if not _misfits(state, own):
            return
        self.held.update(state)
        # the framework goes on as if it had loaded them: nothing changes, nothing is missing
        state.clear()
        state.update(own)


def _misfits(state: dict[str, Any], own: dict[str, Any]) -> bool:
    """Whether weights are of another structure: other sizes, or other timesteps that are silent."""
    of_timesteps = {name for name in state.keys() ^ own.keys() if name.rpartition(".")[2] in (BUFFER, AXES)}
    return bool(of_timesteps) or any(
        isinstance(value, Tensor) and isinstance(own.get(name), Tensor) and value.shape != own[name].shape
        for name, value in state.items()
    )
