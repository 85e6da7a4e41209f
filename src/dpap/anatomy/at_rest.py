"""What a network keeps by itself from one forward to the next, and from where a presentation begins.

A membrane or the state of a hand-written recurrent block is an attribute like any other. Those are found that a forward
fills, and the next one changes again; masks and values that are made once, at the first forward, are none.
"""

import torch
from torch import nn

from dpap.anatomy.contents import alike, copied
from dpap.anatomy.frozen import frozen
from dpap.anatomy.hidden_state import Rest, left_behind, reset_state
from dpap.anatomy.neurons import neuron_kind, reset_module
from dpap.anatomy.pytrees import Inputs, examples_of, float_tensors, run
from dpap.anatomy.randomness import RandomState


def states_at_rest(
    model: nn.Module, example_inputs: Inputs, training_paths: bool = False
) -> tuple[list[Rest], bool]:
    """Where it keeps state, and whether a second forward without a reset returns something else than the first.

    Spiking neurons that are known are reset in between.

    Args:
        model: the network.
        example_inputs: what its forward takes.
        training_paths: whether paths that only training takes run.
    """
    found: list[Rest] = []
    carries = False
    with frozen(model, training_paths=training_paths):
        random = RandomState({parameter.device for parameter in model.parameters()})
        for example in examples_of(example_inputs):
            reset_state(model)
            first = [tensor.clone() for tensor in float_tensors(run(model, example))]
            left = [(one, copied(one.now, {})) for one in left_behind(model)]
            for module in model.modules():
                kind = neuron_kind(module)
                if kind is not None and kind.spikes:
                    reset_module(module)
            random.restore()
            try:
                second = list(float_tensors(run(model, example)))
            except Exception:
                # it has to be reset before each forward, and so is before those of a look
                found += [one for one, _ in left]
                continue
            found += [one for one, value in left if not alike(one.now, value)]
            carries |= not all(torch.equal(*both) for both in zip(first, second, strict=True))
    return found, carries
