"""Pruning in a loop of one's own whose state Accelerate saves and loads."""

from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from dpap.anatomy.pytrees import Inputs
from dpap.integrations._gate import Gate
from dpap.integrations._training import PrunedTraining, check_processes, missing
from dpap.pruning import Pruner, PruningConfig
from dpap.pruning.arguments import as_optimizers

try:
    from accelerate import Accelerator
except ImportError as error:
    raise ImportError(missing("Accelerate", "accelerate")) from error


def prepare_pruner(
    accelerator: Accelerator,
    model: nn.Module,
    example_inputs: Tensor | Inputs,
    optimizer: Optimizer,
    config: PruningConfig | None = None,
    **options: Any,
) -> Pruner:
    """A pruner whose state Accelerate saves and loads with the rest, also of networks that have become smaller.

    Args:
        accelerator: that has prepared the two.
        model: as `accelerator.prepare` returned it.
        example_inputs: what its forward takes, on its device.
        optimizer: as `accelerator.prepare` returned it.
        config: what to prune and how much.
        options: further arguments of `dpap.Pruner`.

    Returns:
        The pruner; `accelerator.load_state` expects the networks as they are built, dense.

    Raises:
        ValueError: where the network is to become smaller in several processes without DistributedDataParallel.
    """
    network = accelerator.unwrap_model(model)
    check_processes(accelerator.num_processes, network, config)
    training = PrunedTraining(
        network, example_inputs, as_optimizers(optimizer), config, Gate.shut(model), options
    )
    accelerator.register_for_checkpointing(_Saved(training))
    return training.pruner


class _Saved:
    """The pruner as Accelerate saves it, which loads it after networks and optimizers."""

    def __init__(self, training: PrunedTraining) -> None:
        self.training = training

    def state_dict(self) -> dict[str, Any]:
        return self.training.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.training.load_state_dict(state, rebuild=False)
