"""Sizes of the Diffusion Video Autoencoder, and the presets that name them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from countervid.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """Shape of the noise estimator; the defaults are the published network of 190,576,643 parameters."""

    size: int = 256  # side of the square input, pixels of a picture or cells of a latent
    in_channels: int = 3  # also the channels of the predicted noise
    model_channels: int = 128  # width of the first level, and of the sinusoid that codes the time
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)  # a level's width over `model_channels`; sides halve
    residual_blocks: int = 2  # a level on the way down; one more on the way up
    residual_blocks_down: int | None = None  # another count on the way down; None: the same
    attention_resolutions: tuple[int, ...] = (16,)  # sides at which the levels attend; the middle always does
    heads: int = 1
    embed_channels: int = 512  # width of the time vector
    condition_channels: int = 512  # width of the face's vector
    norm_groups: int = 32  # group norms split their channels into this many groups, or one a channel if there are fewer
    dropout: float = 0.1  # within residual blocks, training only

    def __post_init__(self) -> None:
        levels = len(self.channel_multipliers)
        if levels == 0 or self.size % 2 ** (levels - 1):
            raise ConfigError(
                f"A U-Net of {levels} levels cannot halve a side of {self.size}. "
                f"Use a side that is a multiple of {2 ** max(levels - 1, 0)}, or another number of levels."
            )
        for multiplier in self.channel_multipliers:
            width = multiplier * self.model_channels
            if width % min(self.norm_groups, width) or width % self.heads:
                raise ConfigError(
                    f"A level of {width} channels does not split into {self.norm_groups} norm groups and {self.heads} "
                    "heads. Choose `model_channels`, `norm_groups` and `heads` that divide."
                )

    @property
    def blocks_down(self) -> int:
        """Residual blocks of a level on the way down."""
        return self.residual_blocks if self.residual_blocks_down is None else self.residual_blocks_down


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The whole autoencoder: the noise estimator, what describes a face, and the diffusion process."""

    unet: UNetConfig = field(default_factory=UNetConfig)
    identity_channels: int = 512  # numbers of the identity vector, unit length
    landmark_channels: int = 102  # 51 points without the jaw line, x and y
    train_steps: int = 1000
    beta_first: float = 1e-4
    beta_last: float = 0.02
    clip: bool = True  # hold predicted pictures in [-1, 1]; False for latents, which have no such bounds
    # What the network's output is: "epsilon", the noise, as published; or "v_prediction", the velocity, which weighs a
    # wrong picture alike at all noise levels. Where the noise code already decides the picture that is what counts.
    prediction_type: str = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ConfigError(f'The prediction is "epsilon" or "v_prediction", got "{self.prediction_type}".')

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AutoencoderConfig:
        """The config that `to_dict` wrote.

        Raises:
            ConfigError: A name is unknown; the message lists those that are known.
        """
        known = _checked(cls, values)
        unet: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in _checked(UNetConfig, known.pop("unet", {})).items()
        }
        return cls(unet=UNetConfig(**unet), **known)


def published() -> AutoencoderConfig:
    """The released network: pictures of 256 px, 190.9 M trained parameters, 771 GFLOP an evaluation."""
    return AutoencoderConfig()


def miniature(channels: int = 8, identity_channels: int = 128, landmark_channels: int = 102) -> AutoencoderConfig:
    """The same network for latents of 16 x 16 cells: 5.4 M parameters, 10.7 MB in half precision.

    Seven tenths of its time is convolution; a training step of 32 latents with one noise term takes 0.9 s on one core
    of an AMD EPYC with AVX2 and about 0.5 s on two.
    """
    unet = UNetConfig(
        size=16,
        in_channels=channels,
        model_channels=64,
        channel_multipliers=(1, 1, 2),
        residual_blocks=1,
        attention_resolutions=(8,),
        embed_channels=128,
        condition_channels=256,
        dropout=0.0,  # the phantom world never runs out of people, so there is nothing to memorise
    )
    return AutoencoderConfig(
        unet=unet,
        identity_channels=identity_channels,
        landmark_channels=landmark_channels,
        clip=False,
        prediction_type="v_prediction",
    )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What training minimises; the defaults are the published code's (its paper's differ: see `noise_terms`)."""

    distance: str = "l1"  # "l1" as released, or "mse", between drawn and predicted noise (or velocity)
    noise_terms: int = 2  # the code adds the noise term of both draws; the paper's formula (1) has the first alone
    noise_weight: float = 1.0
    regulariser_weight: float = 1.0  # ties the clean faces seen from two draws of noise; 0: no second evaluation
    regulariser_share: float = 1.0  # part of the batch that pays for the second draw; 1 as released
    regulariser_gain: float = float("inf")  # most that an item's step may amplify its term; 157 at step 999 as released

    def __post_init__(self) -> None:
        if self.distance not in ("l1", "mse"):
            raise ConfigError(f'The noise distance is "l1" or "mse", got "{self.distance}".')
        if self.noise_terms not in (1, 2):
            raise ConfigError(f"The loss has 1 or 2 noise terms, got {self.noise_terms}.")
        if not 0 < self.regulariser_share <= 1:
            raise ConfigError(f"The regulariser's share of the batch lies in (0, 1], got {self.regulariser_share:g}.")


def _checked(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    names = [item.name for item in fields(kind)]
    unknown = sorted(set(values) - set(names))
    if unknown:
        raise ConfigError(f"Unknown setting {', '.join(unknown)} in {kind.__name__}. Known are {', '.join(names)}.")
    return dict(values)
