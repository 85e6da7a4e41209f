"""Pruning while the Trainer of transformers trains."""

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from dpap.anatomy.pytrees import Inputs
from dpap.archive import DamagedArchive, read_archive, write_archive
from dpap.integrations._examples import LABELS, first_samples, inputs_of
from dpap.integrations._gate import Gate
from dpap.integrations._training import PrunedTraining, check_processes, missing, of_network
from dpap.pruning import Pruner, PruningConfig

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(missing("transformers", "transformers")) from error

FILE = "dpap_pruner.pt"
"""Name of the pruner's state in the folder of a checkpoint."""


class PrunerCallback(TrainerCallback):
    """Prunes the model of a transformers Trainer while it trains.

    An epoch of pruning ends with its last step, before what is evaluated and saved then. `sparsity` is added to
    `trainer.state.log_history`, and `achieved` where the target is a share of something else; callbacks that follow
    this one, such as a TensorBoardCallback, find them in their next logs. The pruner's state is a file in the folder of
    each checkpoint: `train(resume_from_checkpoint=...)` and `load_best_model_at_end` take it with the weights.

    Args:
        config: what to prune and how much.
        example_inputs: what the model's forward takes; None: the first samples of the training data, without labels.
        compact: at the end remove the dead physically.
        checkpoint: the folder that training is resumed from, where it is not in the trainer's output_dir.
        options: further arguments of `dpap.Pruner`.
    """

    def __init__(
        self,
        config: PruningConfig | None = None,
        example_inputs: Tensor | Inputs | None = None,
        *,
        compact: bool = False,
        checkpoint: str | Path | None = None,
        **options: Any,
    ) -> None:
        self.config = config
        self.example_inputs = example_inputs
        self.compact = compact
        self.checkpoint = checkpoint
        self.options = options
        self._training: PrunedTraining | None = None
        self._gate: Gate | None = None

    @property
    def pruner(self) -> Pruner | None:
        """The pruner, from the beginning of training on."""
        return None if self._training is None else self._training.pruner

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Be ready for weights of another size, which the Trainer loads before it makes an optimizer."""
        if model is not None:
            self._gate = Gate(model)

    def on_train_begin(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        optimizer: Any = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Make the pruner, and let it go on from a checkpoint."""
        check_processes(args.world_size, model, self.config)
        gate = self._gate
        if gate is None or gate.root is not model:
            gate = Gate(model)
        saved = self._resumed(args, state) if state.global_step else None
        if gate.held and saved is None:
            raise ValueError(
                "the weights that were loaded are of another size than the model, and no state of a pruner is with "
                "them: resume from a checkpoint that this callback saved"
            )
        optimizers = of_network(model, [optimizer])
        if self._training is not None and self._training.network is model:
            self._training = PrunedTraining.again(self._training, optimizers, gate, saved)
        else:
            example = self.example_inputs
            if example is None:
                labels = {*LABELS, *(args.label_names or ())}
                example = inputs_of(first_samples(train_dataloader), model, labels)
            self._training = PrunedTraining(model, example, optimizers, self.config, gate, self.options)
            if saved is not None:
                self._training.load_state_dict(saved, strict=False)
        self._gate = gate

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End an epoch of pruning with its last step, before anything is saved."""
        if float(state.epoch).is_integer():
            self._step(state)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End an epoch of pruning that was cut short."""
        self._step(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Let callbacks that follow log what is pruned too."""
        if self._training is not None and logs is not None:
            logs.update(self._training.metrics())

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the pruner's state into the folder of a checkpoint."""
        folder = _folder(args, state)
        if self._training is None or not args.should_save or not folder.is_dir():
            return
        saved = {**self._training.state_dict(), "log": _fingerprint(state)}
        write_archive(folder / FILE, saved)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the pruner's state of the best checkpoint with its weights, remove the dead if asked to, detach."""
        training = self._training
        if training is None:
            return
        best = args.load_best_model_at_end and state.best_model_checkpoint
        saved = _read(Path(best) / FILE) if best else None
        if saved is not None:
            training.load_state_dict(saved, strict=False)
        training.finish(compact=self.compact)
        training.gate.detach()
        self._gate = None

    def _step(self, state: Any) -> None:
        if self._training is not None and self._training.step(state.global_step) is not None:
            metrics = {**self._training.metrics(), "epoch": state.epoch, "step": state.global_step}
            state.log_history.append(metrics)

    def _resumed(self, args: Any, state: Any) -> dict[str, Any]:
        """The pruner's state that belongs to a trainer's."""
        folders = [self.checkpoint, args.resume_from_checkpoint, _folder(args, state)]
        tried = [Path(folder) / FILE for folder in folders if isinstance(folder, str | Path)]
        for path in tried:
            saved = _read(path)
            if saved is not None and saved["log"] == _fingerprint(state):
                return saved
        raise ValueError(
            f"training goes on after step {state.global_step}, and the pruner's state of then is not in "
            f"{', '.join(map(str, tried))}: give PrunerCallback(checkpoint=...) the folder that is resumed from, or an "
            "earlier one where saving was interrupted; to prune a model that was trained without this callback, load "
            "its weights and train without resume_from_checkpoint"
        )


def _folder(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _read(path: Path) -> dict[str, Any] | None:
    """The state of a pruner in a file; None where there is none.

    Raises:
        ValueError: where it is damaged, or holds something else.
    """
    if not path.is_file():
        return None
    try:
        saved, _ = read_archive(path)
    except DamagedArchive as error:
        raise ValueError(
            f"{path} is no readable state of a pruner: {error}; resume from an earlier checkpoint"
        ) from error
    if not isinstance(saved, dict) or "log" not in saved:
        raise ValueError(
            f"{path} is no state of a pruner that this callback saved; resume from an earlier checkpoint"
        )
    return saved


def _fingerprint(state: Any) -> str:
    """Of what a trainer has logged: another run has logged something else."""
    return hashlib.sha256(json.dumps(state.log_history, sort_keys=True).encode()).hexdigest()
