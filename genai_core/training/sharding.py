"""Weights, gradients and optimizer state in parts, one on each rank, for a model that no single device trains.

By PyTorch's `fully_shard` (FSDP2; Zhao et al. 2023): the weights of a block are gathered when it computes and let go of
afterwards. The model is made whole on each device first and shared out then.
"""

import copy

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor, init_device_mesh


def shard(root: nn.Module, device_type: str, compiled: bool) -> None:
    """Share the parameters of `root` out over all ranks, in place; those of each block of a list called `layers` are
    gathered on their own. `compiled`: whether each block is compiled, since what gathers cannot be."""
    mesh = init_device_mesh(device_type, (dist.get_world_size(),))
    lists = [part for name, part in root.named_modules()
             if name.rpartition(".")[2] == "layers" and isinstance(part, nn.ModuleList)]
    for block in (block for blocks in lists for block in blocks):
        if compiled:
            block.compile(dynamic=False)
        fully_shard(block, mesh=mesh)
    fully_shard(root, mesh=mesh)


def blank_of(model: nn.Module) -> nn.Module:
    """A copy of a model without its parameters' values, to be filled by `put_together`."""
    nothing = {id(parameter): nn.Parameter(parameter.to("meta"), parameter.requires_grad)
               for parameter in model.parameters()}
    return copy.deepcopy(model, nothing)


def put_together(model: nn.Module, blank: nn.Module) -> None:
    """Give a model that was shared out its whole parameters again, in place; its parts become those of `blank`."""
    whole = {id(empty): nn.Parameter(whole_of(parameter.detach()), parameter.requires_grad)
             for empty, parameter in zip(blank.parameters(), model.parameters(), strict=True)}
    for part in blank.modules():
        for name, empty in part._parameters.items():
            if empty is not None:      # two names of one parameter stay two names of one
                part._parameters[name] = whole[id(empty)]
    for buffer, trained in zip(blank.buffers(), model.buffers(), strict=True):
        buffer.copy_(trained)
    model.__dict__ = blank.__dict__


def is_sharded(model: nn.Module) -> bool:
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole_of(tensor: Tensor) -> Tensor:
    """All of a tensor that may be in parts. Every rank must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor, which all have, in the layout of another one."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def beside(scalar: Tensor, like: Tensor) -> Tensor:
    """A scalar that all ranks have, such that it can be computed with beside a tensor that may be in parts."""
    if not isinstance(like, DTensor):
        return scalar
    return DTensor.from_local(scalar, like.device_mesh, [Replicate()], run_check=False)
