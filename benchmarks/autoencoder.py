"""The diffusion network's speed: evaluations a second, and seconds a frame there and back.

    python benchmarks/autoencoder.py [published|miniature|both] [REPEATS] [--compile]

Two networks: the published one at 256 px with random weights, and the miniature. Each beside a plain one of the same
weights, written module by module as one would first write it (group norm, activation, modulation and attention each by
itself, channels first in memory, time and face embedded for every item at every evaluation). Variants take turns in one
run, the best of all turns counts: only the ratios mean something. bfloat16 is left out where the processor lacks it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from countervid.autoencoder.config import AutoencoderConfig, miniature, published
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.autoencoder.unet import Attention, ResidualBlock, UNet, timestep_embedding

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}  # FLOP/s in bfloat16, dense, as their maker states
STEPS = 5  # of the chains that are timed; an evaluation costs the same in a longer one


class Plain(nn.Module):
    """The same function as a `UNet`, of the same weights, without any of its care."""

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = UNet(unet.config).eval()
        self.unet.load_state_dict(unet.state_dict())
        for parameter in self.unet.parameters():
            parameter.data = parameter.data.contiguous()

    def forward(self, x: Tensor, t: Tensor, face: Tensor) -> Tensor:
        unet = self.unet
        time = unet.time_embed.time_embed(timestep_embedding(t.expand(len(x)), unet.time_embed.width).to(x.dtype))
        h, stacks = x, [[] for _ in unet.config.channel_multipliers]
        for entry, level in zip(unet.input_blocks, unet._down_levels, strict=True):
            h = self._run(entry, h, time, face)
            stacks[level].append(h)
        h = self._run(unet.middle_block, h, time, face)
        for entry, lateral in zip(unet.output_blocks, unet._up_laterals, strict=True):
            h = h if lateral is None else torch.cat([h, stacks[lateral].pop()], dim=1)
            h = self._run(entry, h, time, face)
        norm, activation, last = unet.out
        return last(activation(_norm(norm, h)))

    def _run(self, entry: nn.ModuleList, h: Tensor, time: Tensor, face: Tensor) -> Tensor:
        for module in entry:
            if isinstance(module, ResidualBlock):
                h = self._residual(module, h, time, face)
            elif isinstance(module, Attention):
                h = self._attention(module, h)
            else:
                h = module(h)
        return h

    def _residual(self, block: ResidualBlock, x: Tensor, time: Tensor, face: Tensor) -> Tensor:
        h = F.silu(_norm(block.in_layers[0], x))
        if block.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif block.resample == "up":
            h, x = (F.interpolate(v, scale_factor=2, mode="nearest") for v in (h, x))
        h = block.in_layers[2](h)
        scale, shift = block.emb_layers(time)[:, :, None, None].chunk(2, dim=1)
        h = block.out_layers[2](F.silu(_norm(block.out_layers[0], h) * (1 + scale) + shift))
        scale, shift = block.cond_emb_layers(face)[:, :, None, None].chunk(2, dim=1)
        h = block.out_layers[6](F.silu(_norm(block.out_layers[3], h) * (1 + scale) + shift))
        return block.skip_connection(x) + h

    def _attention(self, block: Attention, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        flat = x.reshape(batch, channels, -1)
        qkv = block.qkv(_norm(block.norm, flat))
        q, k, v = qkv.reshape(batch * block.heads, 3 * channels // block.heads, -1).chunk(3, dim=1)
        weight = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / q.shape[1] ** 0.5, dim=-1)
        h = torch.einsum("bts,bcs->bct", weight, v).reshape(batch, channels, -1)
        return (flat + block.proj_out(h)).reshape(x.shape)


def _norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    return F.group_norm(x.float(), norm.num_groups, norm.weight, norm.bias, norm.eps).to(x.dtype)


@dataclass
class Variant:
    name: str
    evaluate: Callable[[], Tensor]
    chain: Callable[[], Tensor] | None = None
    best: float = float("inf")
    chained: float = float("inf")


def measure(name: str, config: AutoencoderConfig, batch: int, repeats: int, compiled: bool) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = DiffusionAutoencoder(config).eval()
    for parameter in model.parameters():  # layers that start at zero would hide mistakes
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    model.to(device)
    plain = Plain(model.unet).to(device)
    side = config.unet.size
    x = torch.randn(batch, config.unet.in_channels, side, side, generator=generator).to(device)
    z_id = torch.randn(config.identity_channels, generator=generator).to(device)
    pose = torch.randn(batch, config.landmark_channels, generator=generator).to(device)
    face, t = model.face(z_id, pose), torch.tensor(500, device=device)
    condition = model.unet.condition(face)

    def there_and_back(precision: torch.dtype) -> Callable[[], Tensor]:
        def run() -> Tensor:
            model.precision = precision
            code = model.encode(x, z_id, pose, steps=STEPS, batch=batch)
            return model.decode(code, z_id, pose, steps=STEPS, batch=batch)

        return run

    def ours(precision: torch.dtype) -> Callable[[], Tensor]:
        def run() -> Tensor:
            model.precision = precision
            return model.noise(x, t, condition)

        return run

    halves = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    variants = [
        Variant("plain, float32", lambda: plain(x, t, face)),
        Variant("countervid, float32", ours(torch.float32), there_and_back(torch.float32)),
    ]
    if halves:
        variants.append(Variant("countervid, bfloat16", ours(torch.bfloat16), there_and_back(torch.bfloat16)))
    if compiled:
        model.unet.compile()
        variants = [variants[0], *(Variant(f"{v.name}, compiled", v.evaluate, v.chain) for v in variants[1:])]
    if not model.velocities:
        with torch.backends.cudnn.flags(allow_tf32=False):  # ten bits of mantissa are too few to tell a mistake
            torch.testing.assert_close(variants[0].evaluate(), ours(torch.float32)(), atol=2e-3, rtol=1e-3)
    with FlopCounterMode(display=False) as counter:
        plain(x, t, face)
    operations = counter.get_total_flops()
    for _ in range(repeats):
        for variant in variants:
            variant.best = min(variant.best, _seconds(variant.evaluate, device))
            if variant.chain is not None:
                variant.chained = min(variant.chained, _seconds(variant.chain, device))
    place = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    each = operations / batch / 1e9
    print(f"\n{name}: {side} x {side}, {batch} frames at a time, {each:.1f} GFLOP an evaluation, {place}")
    if not halves:
        print("bfloat16 left out: this processor has no instructions for it")
    print(
        f"\n| variant | evaluations a second | times plain | GFLOP/s | seconds a frame, {STEPS} steps there and back |"
    )
    print("|---|---|---|---|---|")
    peak = next((value for key, value in PEAKS.items() if key in place), None)
    for v in variants:
        rate = operations / v.best
        used = f"{rate / 1e9:.0f}" + ("" if peak is None else f" ({rate / peak:.0%} of the bfloat16 peak)")
        chained = "" if v.chain is None else f"{v.chained / batch:.3f}"
        print(f"| {v.name} | {batch / v.best:.2f} | {variants[0].best / v.best:.2f} | {used} | {chained} |")
    if device.type == "cuda":
        print(f"\npeak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


def _seconds(work: Callable[[], Tensor], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.inference_mode()
def main() -> None:
    arguments = [a for a in sys.argv[1:] if a != "--compile"]
    which = arguments[0] if arguments else "both"
    repeats = int(arguments[1]) if len(arguments) > 1 else 3
    large = torch.cuda.is_available()
    if which in ("published", "both"):
        measure("published", published(), 16 if large else 1, repeats, "--compile" in sys.argv)
    if which in ("miniature", "both"):
        measure("miniature", miniature(8), 64 if large else 8, 5 * repeats, "--compile" in sys.argv)


if __name__ == "__main__":
    main()
