"""What makes a UNet faster and changes no image: memory layout, fused projections, compiled blocks.

Attention itself is PyTorch's scaled_dot_product_attention, which diffusers takes by default. CUDA graphs are
not used: they belong to the thread that recorded them, and a model is warmed up in another than it serves in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

#: Blocks of unlike widths, each for one row, for few and for any number of rows, with and without guidance.
_RECOMPILES: Final = 64


@dataclass(frozen=True)
class Acceleration:
    """`channels_last`: convolutions find their channels beside each other, which tensor cores want.
    `fused`: one multiplication gives an attention's projections. `compiled`: blocks by torch.compile.
    """

    channels_last: bool = False
    fused: bool = False
    compiled: bool = False

    @classmethod
    def of(cls, device: torch.device, compiled: bool) -> Acceleration:
        """What serves a device best; compiling is asked for, since it makes starts longer."""
        cuda = device.type == "cuda"
        return cls(channels_last=cuda, fused=cuda, compiled=compiled)


def accelerate(pipeline: Any, how: Acceleration) -> None:
    """Changes a loaded pipeline's UNet, and its VAE's layout. Nothing is compiled before the first call."""
    if how.channels_last:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    if how.fused:
        pipeline.fuse_qkv_projections(unet=True, vae=False)
    if how.compiled:
        limits: Any = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, _RECOMPILES)
        # Whole, the UNet takes ten times as long to compile, for a few per cent.
        pipeline.unet.compile_repeated_blocks(fullgraph=True)
