"""NDIF's model actor without its calls of CUDA, for `host_vit.py`; imported by NDIF's controller."""

from typing import Any

import ray
import torch
from ndif.services.ray.deployments.modeling.base import BaseModelDeployment
from nnsight.modeling.huggingface import HuggingFaceModel


@ray.remote(num_cpus=0, max_restarts=0)
class OnCpu(BaseModelDeployment):
    """Holds one model in the memory of the CPU."""

    CACHEABLE = False  # there is nowhere to park it

    def __init__(self, gpu_mem_bytes_by_id: dict[int, int] | None = None, **options: Any) -> None:
        torch.cuda.synchronize = lambda device=None: None  # waited for after each request
        super().__init__(gpu_mem_bytes_by_id={}, **options)  # whatever share of a GPU the controller has given out

    def load_from_disk(self) -> HuggingFaceModel:
        """The model of the actor's key, without gradients."""
        model = HuggingFaceModel.from_model_key(
            self.model_key, dispatch=True, dtype=self.dtype_name, device="cpu", **self.kwargs
        )
        model._module.requires_grad_(False)
        return model
