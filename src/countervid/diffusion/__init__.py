"""Noise schedules and deterministic samplers, shared by every model that diffuses."""

from countervid.diffusion.ddim import decode, encode
from countervid.diffusion.schedule import Schedule, valid_steps

__all__ = ["Schedule", "decode", "encode", "valid_steps"]
