"""Further inputs like the example, on which a removal is checked too: what only these would show, staining missed."""

import torch
from torch import Tensor

from dpap.anatomy.pytrees import Inputs, map_tensors

SEED = 0


def further_inputs(inputs: Inputs) -> Inputs:
    """Inputs of the same shapes with other values, always the same ones for the same inputs.

    Values change places within their tensor, so that they stay of the kind that the network expects (spikes, pixels);
    what is the same everywhere gets noise. Integers (tokens, indices) change places along the last axis; on an
    accelerator they stay, for an index that is out of range there cannot be caught. Truth values (masks) stay.
    """
    generator = torch.Generator().manual_seed(SEED)

    def change(tensor: Tensor) -> Tensor:
        plain = tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_quantized
        if not plain or not tensor.numel() or tensor.dtype == torch.bool:
            return tensor
        if not (tensor.is_floating_point() or tensor.is_complex()):
            if not tensor.ndim or tensor.device.type != "cpu":
                return tensor
            return tensor[..., torch.randperm(tensor.shape[-1], generator=generator)]
        flat = tensor.detach().reshape(-1)
        if bool((flat == flat[0]).all()):
            scale = flat[0].abs() if bool(flat[0] != 0) else 1.0
            noise = torch.randn(flat.shape, generator=generator).to(flat.device, flat.dtype)
            return (flat + scale * noise / 2).view(tensor.shape)
        order = torch.randperm(len(flat), generator=generator).to(flat.device)
        return flat[order].view(tensor.shape)

    changed: Inputs = map_tensors(inputs, change)
    return changed
