"""This process among those that train one run: its rank, its device, its part of the model, and Lightning's words for them."""

from __future__ import annotations

import os

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from shapelaw.config import TrainConfig
from shapelaw.parallel.layout import Layout, layout_of
from shapelaw.parallel.placement import Placement, place
from shapelaw.training.repeating import choose_kernels


def rank() -> int:
    """This process's number among those that train the run; the first alone writes."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # torchrun's, Lightning's own, srun's
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def world_of(config: TrainConfig) -> int:
    """Processes of a run."""
    return config.devices * config.num_nodes


def environment_of(config: TrainConfig) -> ClusterEnvironment:
    """How the processes of the run find each other; the signals stay ours, and one process asks no scheduler."""
    if world_of(config) == 1:
        return LightningEnvironment()
    if "RANK" in os.environ:
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False)


def join(config: TrainConfig) -> Placement:
    """The run's layout in this process, its process group joined."""
    layout, environment = layout_of(config.parallel, world_of(config)), environment_of(config)
    device = _device(config, environment.local_rank())
    if device.type == "cuda":
        choose_kernels(config.deterministic)
    if layout.world > 1:
        _join_group(layout, environment, device)
    return place(layout, environment.global_rank() if layout.world > 1 else 0, device)


def wait_for_all() -> None:
    """Wait until every process of the run is here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def leave() -> None:
    """Close the process group, together: what is left of one at a process's end can abort it."""
    wait_for_all()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Placed(DDPStrategy):
    """Lightning's loop over several processes; model and gradients are the placement's."""

    def configure_ddp(self) -> None:
        """Nothing to wrap."""


def _device(config: TrainConfig, local_rank: int) -> torch.device:
    gpu = config.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda", local_rank) if gpu else torch.device("cpu")


def _join_group(layout: Layout, environment: ClusterEnvironment, device: torch.device) -> None:
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        "nccl" if gpu else "gloo",
        rank=environment.global_rank(),
        world_size=layout.world,
        device_id=device if gpu else None,
    )
