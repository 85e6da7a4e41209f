"""Pruning while Lightning trains."""

from typing import Any

from torch import Tensor, nn

from dpap.anatomy.pytrees import Inputs
from dpap.integrations._examples import inputs_of
from dpap.integrations._gate import Gate
from dpap.integrations._training import PrunedTraining, check_processes, missing, of_network
from dpap.pruning import Pruner, PruningConfig

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(missing("Lightning", "lightning")) from error


class PrunerCallback(Callback):
    """Prunes a LightningModule, or a network in it, while `Trainer.fit` trains it.

    An epoch of pruning ends with the last training batch, before validation, so that what is measured and saved is
    the pruned network. `sparsity` is logged at every epoch's end, and `achieved` where the target is a share of
    something else. The pruner's state is part of every checkpoint that is not `weights_only`; with it `fit`,
    `validate`, `test` and `predict` also take a `ckpt_path` of a network that is smaller, or larger, than this one.

    Args:
        config: what to prune and how much.
        example_inputs: what the network's forward takes. None: `example_input_array` of the LightningModule, or else
            the inputs of the first training batch, whole.
        network: name of the attribute of the LightningModule that is pruned; None: all of it, by its own forward.
        load_best: at the end take the best checkpoint of the trainer's ModelCheckpoint, weights and pruner.
        compact: at the end remove the dead physically.
        options: further arguments of `dpap.Pruner`.

    Attributes:
        pruner: from the first batch on, or from the beginning where there are example inputs; None before.
    """

    def __init__(
        self,
        config: PruningConfig | None = None,
        example_inputs: Tensor | Inputs | None = None,
        *,
        network: str | None = None,
        load_best: bool = False,
        compact: bool = False,
        **options: Any,
    ) -> None:
        self.config = config
        self.example_inputs = example_inputs
        self.network = network
        self.load_best = load_best
        self.compact = compact
        self.options = options
        self._training: PrunedTraining | None = None
        self._gate: Gate | None = None
        self._state: dict[str, Any] | None = None
        self._running = False

    @property
    def pruner(self) -> Pruner | None:
        """The pruner, once there is one."""
        return None if self._training is None else self._training.pruner

    @property
    def state_key(self) -> str:
        """What the state is called in a checkpoint; callbacks of several networks differ."""
        return self._generate_state_key(network=self.network)

    def state_dict(self) -> dict[str, Any]:
        """The pruner's state, which Lightning puts into its checkpoint."""
        return {} if self._training is None else self._training.state_dict()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Be ready for weights of another size, which Lightning loads before anything else."""
        if self._gate is not None:
            self._gate.detach()
        self._gate = Gate(pl_module)
        self._state = None
        if self._training is not None and self._training.network is not self._network(pl_module):
            self._training = None
        self._running = False

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the pruner's state until there is a pruner; outside of training take its structure at once."""
        self._state = checkpoint.get("callbacks", {}).get(self.state_key) or None
        gate = self._gate
        if self._state is None or gate is None or not gate.held or trainer.state.fn == "fit":
            return
        if self._training is None:
            example = self._example(pl_module)
            if example is None:
                raise ValueError(
                    "this checkpoint is of a network of another size, which takes the network's example inputs to "
                    "find: give example_inputs to the callback, or example_input_array to the LightningModule"
                )
            self._training = PrunedTraining(
                self._network(pl_module), example, [], self.config, gate, self.options
            )
        self._training.gate = gate
        self._training.load_state_dict(self._state, strict=pl_module.strict_loading)
        self._training.detach()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the pruner, before Lightning loads the optimizers' state."""
        self._check_gate()
        example = self._example(pl_module)
        if example is not None or self._training is not None:
            self._begin(trainer, pl_module, example)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the weights are those that were asked for."""
        if trainer.state.fn != "fit":
            self._check_gate()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the weights are those that were asked for."""
        self._check_gate()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the weights are those that were asked for."""
        self._check_gate()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Make the pruner of the first batch, where there are no other example inputs."""
        if not self._running:
            self._begin(trainer, pl_module, inputs_of(batch, self._network(pl_module)))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End an epoch of pruning with the last batch, before validation."""
        if trainer.is_last_batch and self._training is not None:
            self._training.step(trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End an epoch of pruning that was cut short, and log what is pruned."""
        if self._training is not None:
            self._training.step(trainer.global_step)
            for name, value in self._training.metrics().items():
                pl_module.log(self._logged(name), value)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the best checkpoint and remove the dead, if asked to; take the hooks out."""
        if self._training is None:
            return
        if self.load_best:
            self._load_best(trainer, pl_module, self._training)
        self._training.finish(compact=self.compact)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hook in the network."""
        self._detach()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no hook in the network."""
        self._detach()

    def _detach(self) -> None:
        for part in (self._training, self._gate):
            if part is not None:
                part.detach()

    def _network(self, pl_module: LightningModule) -> nn.Module:
        return pl_module if self.network is None else pl_module.get_submodule(self.network)

    def _logged(self, name: str) -> str:
        return name if self.network is None else f"{self.network}/{name}"

    def _example(self, pl_module: LightningModule) -> Any:
        """The example inputs that are known before the first batch, on the network's device."""
        found: Any = self.example_inputs
        if found is None and self.network is None:
            array = pl_module.example_input_array
            found = tuple(array) if isinstance(array, list) else array
        return None if found is None else pl_module.transfer_batch_to_device(found, pl_module.device, 0)

    def _begin(self, trainer: Trainer, pl_module: LightningModule, example: Any) -> None:
        network = self._network(pl_module)
        check_processes(trainer.world_size, network, self.config)
        optimizers = of_network(network, trainer.optimizers)
        gate = self._gate or Gate(pl_module)
        if self._training is None:
            self._training = PrunedTraining(network, example, optimizers, self.config, gate, self.options)
            if self._state is not None:
                self._training.load_state_dict(self._state, strict=pl_module.strict_loading)
        else:
            self._training = PrunedTraining.again(self._training, optimizers, gate, self._state)
        self._gate, self._state, self._running = gate, None, True

    def _check_gate(self) -> None:
        if self._gate is not None and self._gate.held and self._state is None:
            raise ValueError(
                "the weights of this checkpoint are of another size than the network, and no state of a pruner is with "
                "them: save checkpoints with this callback and without save_weights_only"
            )

    def _load_best(self, trainer: Trainer, pl_module: LightningModule, training: PrunedTraining) -> None:
        path = getattr(trainer.checkpoint_callback, "best_model_path", "")
        if not path:
            raise ValueError(
                "load_best expects a ModelCheckpoint in the trainer that has saved a checkpoint; got none"
            )
        checkpoint = trainer.strategy.load_checkpoint(path)
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if not state:
            raise ValueError(
                f"load_best expects the pruner's state in {path}: give ModelCheckpoint no save_weights_only"
            )
        pl_module.load_state_dict(checkpoint["state_dict"], strict=pl_module.strict_loading)
        training.load_state_dict(state, strict=pl_module.strict_loading)
