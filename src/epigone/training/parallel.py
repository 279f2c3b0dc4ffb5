"""Who holds what: processes as a mesh of replicas, shards and tensor slices, and sums over it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate

from epigone.errors import UserError
from epigone.training import memory
from epigone.training.layout import AXES, Layout

# Where a launcher tells of this process among those of its machine.
_PLACE = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


@dataclass(frozen=True)
class World:
    """This process among the others of a training run; alone, it has no mesh."""

    layout: Layout = field(default_factory=Layout)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    mesh: DeviceMesh | None = None

    @property
    def alone(self) -> bool:
        """Whether there are no other processes."""
        return self.mesh is None

    @property
    def leads(self) -> bool:
        """Whether this process writes what is written once."""
        return self.mesh is None or dist.get_rank() == 0

    @property
    def data_rank(self) -> int:
        """Which of the `layout.data` micro-batches is this process's."""
        if self.mesh is None:
            return 0
        return self.at("replicate") * self.layout.shard + self.at("shard")

    def at(self, axis: str) -> int:
        """Where on an axis of the mesh this process stands."""
        return 0 if self.mesh is None else int(self.mesh.get_local_rank(axis))

    def along(self, axis: str) -> DeviceMesh:
        """The mesh of the processes on this one's line along an axis; there have to be others."""
        assert self.mesh is not None
        return self.mesh[axis]

    def group(self, axis: str) -> Any:
        """The process group along an axis."""
        return None if self.mesh is None else self.mesh.get_group(axis)

    def sum_data(self, tensor: Tensor) -> Tensor:
        """Sum a tensor in place over all processes with different data."""
        for axis in ("replicate", "shard"):
            if self.mesh is not None and getattr(self.layout, axis) > 1:
                dist.all_reduce(tensor, group=self.group(axis))
        return tensor

    def most(self, value: float) -> float:
        """The largest of a number over all processes."""
        if self.mesh is None:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return float(tensor)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.mesh is not None:
            dist.barrier()

    @property
    def place(self) -> tuple[int, int]:
        """The number of this process among all, and how many there are."""
        return (0, 1) if self.mesh is None else (dist.get_rank(), dist.get_world_size())

    def gather(self, own: Any) -> list[Any]:
        """What each process gives, in their order, in all of them."""
        if self.mesh is None:
            return [own]
        found: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(found, own)
        return found

    def told(self, own: Any) -> Any:
        """What the first process gives, in all of them."""
        return self.gather(own)[0]

    @contextmanager
    def in_turn(self, need: float) -> Iterator[None]:
        """Let in as many of a machine's processes at once as its memory has `need` bytes for.

        All processes enter it, and none may wait for another one inside.
        """
        if self.mesh is None:
            yield
            return
        there = memory.host()
        if self.device.type == "cpu":
            there -= need  # what those before have split lies here too, one whole in all
        at_once = max(1, int(min(there / max(need, 1.0), self.layout.processes)))
        rank, size = (int(os.environ.get(n, d)) for n, d in _PLACE.items())
        own = rank // at_once
        turns = round(self.most(math.ceil(size / at_once)))
        for _ in range(own):
            self.barrier()
        yield
        for _ in range(turns - own):
            self.barrier()

    def finish_gradients(self, parameters: Mapping[str, Tensor], partial: Iterable[str]) -> None:
        """Sum what no wrapper has summed: gradients of replicas, and partial ones of slices."""
        if self.mesh is None:
            return
        if self.layout.replicate > 1 and self.layout.shard == 1:
            grads = [local(p.grad) for p in parameters.values() if p.grad is not None]
            _all_reduce(grads, self.group("replicate"))
        if self.layout.tensor > 1:
            partial = set(partial)
            summed: list[Tensor] = []
            same: list[Tensor] = []
            for name, p in parameters.items():
                if p.grad is not None and (name in partial or not _split_on(p, "tensor")):
                    (summed if name in partial else same).append(local(p.grad))
            _all_reduce(summed + same, self.group("tensor"))
            # Copies of one gradient, which kernels without a fixed order let drift apart.
            for grad in same:
                grad.div_(self.layout.tensor)

    def square_sums(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Sum of squares of each tensor, whole, wherever its parts lie: (tensors,) in float64."""
        sums = torch.stack([_squares(local(t)) for t in tensors.values()])
        if self.mesh is None:
            return sums
        for axis in ("shard", "tensor"):
            if getattr(self.layout, axis) == 1:
                continue
            split = torch.tensor([_split_on(t, axis) for t in tensors.values()], device=sums.device)
            own = sums * split
            dist.all_reduce(own, group=self.group(axis))
            sums = torch.where(split, own, sums)
        return sums


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies in this process, without a copy."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def join(layout: Layout) -> World:
    """Take part in the processes that a launcher has started, as RANK and WORLD_SIZE tell.

    Works under torchrun, `accelerate launch` and epigone's own launcher. Raises UserError where
    the layout needs another number of processes.
    """
    if layout.processes == 1 and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return World(device=_device(0))
    from accelerate import PartialState

    # The first one may download a base or read checksums while the others wait for it.
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=2))
    if state.num_processes != layout.processes:
        raise UserError(
            f"the layout {layout} needs {layout.processes} processes, there are",
            value=state.num_processes,
        )
    device = _device(state.local_process_index)
    sizes = tuple(getattr(layout, axis) for axis in AXES)
    return World(layout, device, init_device_mesh(device.type, sizes, mesh_dim_names=AXES))


def _device(index: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def shard_(trainee: torch.nn.Module, model: Any, world: World, compute: torch.dtype) -> None:
    """Split the parameters of a module in place over the shards (FSDP2), a layer at a time.

    Gradients are summed over all data, not averaged. `trainee` is the module that is called.
    """
    if world.mesh is None or world.layout.shard == 1:
        return
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    axes = ("replicate", "shard") if world.layout.replicate > 1 else ("shard",)
    mesh = world.mesh[axes] if len(axes) > 1 else world.mesh[axes[0]]
    policy = MixedPrecisionPolicy(
        param_dtype=None if compute == torch.float32 else compute,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    layers = set(model._no_split_modules or ())
    for module in list(model.modules()):
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(trainee, mesh=mesh, mp_policy=policy)
    for module in trainee.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def _all_reduce(tensors: list[Tensor], group: Any) -> None:
    # One message for many small tensors; a large one goes by itself, without a copy.
    small = [t for t in tensors if t.numel() < 1 << 20]
    for t in tensors:
        if t.numel() >= 1 << 20:
            dist.all_reduce(t, group=group)
    if small:
        flat = torch.cat([t.reshape(-1) for t in small])
        dist.all_reduce(flat, group=group)
        for t, summed in zip(small, torch.split(flat, [t.numel() for t in small]), strict=True):
            t.copy_(summed.view_as(t))


def _squares(tensor: Tensor) -> Tensor:
    if tensor.numel() < 1024:
        return tensor.double().pow(2).sum()
    norm: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float32)
    return norm.double().pow(2)


def _split_on(tensor: Tensor, axis: str) -> bool:
    if not isinstance(tensor, DTensor):
        return False
    names = tensor.device_mesh.mesh_dim_names or ()
    return any(
        name == axis and not isinstance(placement, Replicate)
        for name, placement in zip(names, tensor.placements, strict=True)
    )
