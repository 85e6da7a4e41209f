"""What stands for a weight layer where a module is none by itself, or where a unit of it is more than a row.

A view owns nothing and is never called.
"""

from torch import Tensor, nn

from dpap.anatomy.parametrized import read


class MatrixView(nn.Module):
    """A matrix of a module with several, in the place of a weight layer.

    Args:
        owner: the module.
        weight, bias: names of its parameters; it may lack the bias.
        gates: rows of the weight that each unit has: first come the first rows of all units, then the second.
    """

    def __init__(self, owner: nn.Module, weight: str, bias: str, gates: int = 1) -> None:
        super().__init__()
        self._owner = (owner,)  # in a tuple, so that it is no child
        self.names = (weight, bias)
        self.gates = gates

    @property
    def owner(self) -> nn.Module:
        """The module."""
        return self._owner[0]

    @property
    def weight(self) -> Tensor:
        """Its weight [gates * unit, feature]."""
        return read(self.owner, self.names[0])

    @property
    def bias(self) -> nn.Parameter | None:
        """Its bias [gates * unit], if it has one."""
        return self.owner._parameters.get(self.names[1])


class JointView(nn.Module):
    """Several matrices with the same units, in the place of one weight layer that reads the features of all.

    Args:
        matrices: of one module.
        outer: whether the first reads what that module is given.
    """

    def __init__(self, *matrices: MatrixView, outer: bool) -> None:
        super().__init__()
        self.matrices = matrices
        self.outer = outer

    @property
    def owner(self) -> nn.Module:
        """The module that they belong to."""
        return self.matrices[0].owner

    @property
    def weight(self) -> Tensor:
        """The first of the weights."""
        return self.matrices[0].weight


class FusedView(nn.Module):
    """A weight layer each unit of which has several rows of its weight, in the place of that layer.

    So it is where one layer computes the gates and the values of gated linear units: unit k is a row of each half.

    Args:
        owner: the layer.
        gates: rows that each unit has.
        interleaved: whether the rows of a unit follow each other; else first come the first rows of all units, then
            the second.
    """

    def __init__(self, owner: nn.Module, gates: int, interleaved: bool) -> None:
        super().__init__()
        self._owner = (owner,)  # in a tuple, so that it is no child
        self.gates = gates
        self.interleaved = interleaved

    @property
    def owner(self) -> nn.Module:
        """The layer."""
        return self._owner[0]

    def of(self, other: nn.Module) -> "FusedView":
        """The same of another layer, of a copy of the network."""
        return FusedView(other, self.gates, self.interleaved)
