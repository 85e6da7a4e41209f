"""Pruning while skorch trains."""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from dpap.anatomy.pytrees import Inputs
from dpap.integrations._examples import first_samples, inputs_of
from dpap.integrations._gate import Gate
from dpap.integrations._training import PrunedTraining, missing, of_network
from dpap.pruning import Pruner, PruningConfig

try:
    from skorch.callbacks import Callback, Checkpoint, EarlyStopping, LoadInitState, TrainEndCheckpoint
except ImportError as error:
    raise ImportError(missing("skorch", "skorch")) from error

END = "end_of_pruning"
"""Name of the callback that ends the pruning after all others have ended."""


class PrunerCallback(Callback):
    """Prunes the module of a skorch net while it learns.

    It stands before the callbacks that save, load and stop, and an epoch of pruning ends before validation, so that
    what is measured and saved is the pruned network. `sparsity` is a column of the history, and `achieved` where the
    target is a share of something else. While it trains the pruner is `net.pruner_`: `Checkpoint(f_pruner=...)`
    saves its state, and `LoadInitState` and `load_best` load it.

    Args:
        config: what to prune and how much.
        example_inputs: what the module's forward takes; None: the first samples of the training data.
        module: name of the net's module that is pruned.
        compact: at the end remove the dead physically.
        options: further arguments of `dpap.Pruner`, by name.

    Raises:
        ValueError: where another callback cannot work with it; the message says what to change.
    """

    def __init__(
        self,
        config: PruningConfig | None = None,
        example_inputs: Tensor | Inputs | None = None,
        module: str = "module",
        compact: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.example_inputs = example_inputs
        self.module = module
        self.compact = compact
        self.options = options

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Make the pruner, before other callbacks load anything."""
        self._check_others(net)
        network = getattr(net, f"{self.module}_")
        example = self.example_inputs
        if example is None:
            loader = net.get_iterator(net.get_split_datasets(X, y)[0], training=False)
            example = inputs_of(first_samples(loader), network)
        optimizers = of_network(network, (one for one in vars(net).values() if isinstance(one, Optimizer)))
        gate = Gate(network)
        earlier = getattr(net, "pruner_", None)
        if isinstance(earlier, SavedPruner) and earlier.training and earlier.training.network is network:
            training = PrunedTraining.again(earlier.training, optimizers, gate)
        else:
            training = PrunedTraining(
                network, example, optimizers, self.config, gate, dict(self.options or {})
            )
        net.pruner_ = SavedPruner(training)
        self.trained_ = False
        others = [(name, one) for name, one in net.callbacks_ if not isinstance(one, _End)]
        net.callbacks_ = [*others, (END, _End(self.compact))]

    def on_batch_begin(self, net: Any, batch: Any = None, training: Any = None, **kwargs: Any) -> None:
        """End an epoch of pruning where validation begins."""
        if not training:
            self._step(net)

    def on_batch_end(self, net: Any, batch: Any = None, training: Any = None, **kwargs: Any) -> None:
        """Note that there was training."""
        self.trained_ = self.trained_ or bool(training)

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Check that everything is there that was loaded."""
        if net.pruner_.training.gate.held:
            raise ValueError(
                "the weights that were loaded are of another size than the module, and no state of a pruner came with "
                "them: save with Checkpoint(f_pruner=...), and load all files of one checkpoint"
            )

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """End an epoch of pruning that no validation ended, and record what is pruned."""
        self._step(net)
        for name, value in net.pruner_.training.metrics().items():
            net.history.record(name, value)

    def _step(self, net: Any) -> None:
        if self.trained_:
            self.trained_ = False
            net.pruner_.training.step()

    def _check_others(self, net: Any) -> None:
        before = True
        for _, one in net.callbacks_:
            if one is self:
                before = False
            elif isinstance(one, Checkpoint | TrainEndCheckpoint | LoadInitState | EarlyStopping) and before:
                raise ValueError(
                    f"{type(one).__name__} stands before PrunerCallback, and would save, load or stop without the last "
                    "deaths: put PrunerCallback first in callbacks"
                )
            if (
                isinstance(one, Checkpoint | TrainEndCheckpoint)
                and one.f_params
                and not hasattr(one, "f_pruner")
            ):
                raise ValueError(
                    f"{type(one).__name__} saves the weights without the state of the pruner: give it a file for that, "
                    f"{type(one).__name__}(..., f_pruner='pruner.pt')"
                )
            if (
                isinstance(one, EarlyStopping)
                and one.load_best
                and self.config
                and self.config.compact == "auto"
            ):
                raise ValueError(
                    "EarlyStopping(load_best=True) keeps weights alone, and their sizes change with compact='auto': "
                    "use Checkpoint(load_best=True, f_pruner='pruner.pt') instead"
                )


class SavedPruner:
    """The pruner of a net as skorch saves and loads it, as `net.pruner_`.

    Attributes:
        training: the pruner in its run; None in a copy of the net.
    """

    def __init__(self, training: PrunedTraining | None) -> None:
        self.training = training
        self.ended = False

    @property
    def pruner(self) -> Pruner:
        """The pruner itself."""
        return self._there().pruner

    def state_dict(self) -> dict[str, Any]:
        """The state to be saved with the weights."""
        return self._there().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, and let in weights that came before it."""
        self._there().load_state_dict(state)
        if self.ended:
            self._there().detach()

    def __getstate__(self) -> dict[str, Any]:
        return {"training": None, "ended": True}

    def _there(self) -> PrunedTraining:
        if self.training is None:
            raise ValueError(
                "this net is a copy, which has no pruner: fit it with PrunerCallback in its callbacks"
            )
        return self.training


class _End(Callback):
    """Ends the pruning when all other callbacks have taken the weights that they want."""

    def __init__(self, compact: bool) -> None:
        self.compact = compact

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Remove the dead if asked to, and take the hooks out."""
        net.pruner_.training.finish(compact=self.compact)
        net.pruner_.training.gate.detach()
        net.pruner_.ended = True
