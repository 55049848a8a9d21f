"""Language models on this machine, by `transformers`: those that see, and those that only read.

Any folder or hub name of a class that `AutoModelForImageTextToText` loads (LLaVA-NeXT, Qwen2-VL, Qwen2.5-VL ...) sees;
one of `AutoModelForCausalLM` only reads. Nothing here needs torchvision: pictures are prepared by Pillow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from countervid.chat.base import Account, Budget, ChatConfig, Message, Reply, scaled_size
from countervid.errors import CallError, CountervidError, MissingExtraError, ModelError
from countervid.models.device import choose_device
from countervid.models.quiet import quiet_libraries

_BATCH = 8  # conversations at a time: one picture of LLaVA-NeXT is up to 2,880 tokens


class TransformersChat:
    """A `Chat` that runs here.

    Raises:
        ModelError: There is no such model, it cannot be fetched, or it is no language model.
        MissingExtraError: Its pictures can only be prepared by torchvision.
        ConfigError: The device cannot be used.
    """

    def __init__(self, name: str, config: ChatConfig, budget: Budget | None = None) -> None:
        self.model = LocalModel(name, device=config.device)
        self.name, self.sees = f"transformers:{name}", self.model.sees
        self.config, self.account = config, Account(config, budget)

    def complete(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None = None, *, tokens: int | None = None
    ) -> Reply:
        """One answer; `schema` is not enforced. Errors are those of `complete_many`."""
        return self.complete_many([messages], tokens=tokens)[0]

    def complete_many(self, conversations: Sequence[Sequence[Message]], *, tokens: int | None = None) -> list[Reply]:
        """One answer a conversation, the same as each would get alone. `seconds` is an equal share of its batch.

        Answers are greedy at temperature 0, and go through the model in batches. Sampled ones go one by one, each from
        the same seed, so that neither their company nor what was asked before changes them.

        Raises:
            CallError: The model takes no pictures, cannot read so much, or fails.
            BudgetError: So many calls are not left; then none is made.
        """
        pictures = [[_scaled(p, self.config.side) for turn in turns for p in turn.pictures] for turns in conversations]
        if not self.sees and any(pictures):
            raise CallError(f"`{self.model.name}` takes no pictures. Use a model that sees, such as a LLaVA-NeXT.")
        longest = self.config.max_tokens if tokens is None else tokens
        self.account.admit(*conversations, tokens=longest)
        settings: dict[str, Any] = {"do_sample": False}
        if self.config.temperature > 0:
            settings = {"do_sample": True, "temperature": self.config.temperature}
            settings |= {} if self.config.top_p is None else {"top_p": self.config.top_p}
        replies, size = dict[int, Reply](), 1 if settings["do_sample"] else _BATCH
        for seen in (False, True):  # processors want pictures in every conversation of a batch, or in none
            chosen = [index for index, found in enumerate(pictures) if bool(found) is seen]
            for start in range(0, len(chosen), size):
                part = chosen[start : start + size]
                try:
                    texts = [self.model.prompt(conversations[index]) for index in part]
                    shown = [pictures[index] for index in part]
                    found = self.model.generate(texts, shown, tokens=longest, **settings)
                except CallError as error:
                    self.account.failures.append(str(error))
                    raise
                for index, reply in zip(part, found, strict=True):
                    replies[index] = replace(reply, cost=self.account.price(reply.tokens_in, reply.tokens_out))
                    self.account.book(replies[index], conversations[index])
        return [replies[index] for index in range(len(conversations))]


class LocalModel:
    """A model with what turns words and pictures into its input. It fails to load as `TransformersChat` does.

    Args:
        name: A folder, or a hub's name (fetched by `transformers` if it is not in its cache).
        device: `auto` is a GPU where there is one, and all of them where there are several.
        dtype: Of weights on a GPU; None is the checkpoint's own half, else bfloat16. The CPU works in float32.
        tokenizer: Whose tokenizer to use where the model brings none.
    """

    def __init__(
        self, name: str | Path, *, device: str = "auto", dtype: torch.dtype | None = None, tokenizer: str | None = None
    ) -> None:
        self.name, place = str(name), str(Path(name).expanduser())
        local = os.path.isdir(place)
        if not local and self.name.startswith((".", "/", "~")):
            raise ModelError(f"There is no folder `{name}`. Give a folder of a language model, or a hub's name.")
        chosen = choose_device(device)
        spread = device == "auto" and torch.cuda.device_count() > 1
        try:
            with quiet_libraries():
                import transformers
                from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

                config = transformers.AutoConfig.from_pretrained(place, local_files_only=local)
                self.sees: bool = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
                self.tokenizer = _tokenizer(place, local, tokenizer)
                self.processor = _processor(place, local, config, self.tokenizer) if self.sees else self.tokenizer
                half = config.dtype if config.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16
                kind = transformers.AutoModelForImageTextToText if self.sees else transformers.AutoModelForCausalLM
                self.model, found = kind.from_pretrained(
                    place, local_files_only=local, config=config, output_loading_info=True,
                    dtype=torch.float32 if chosen.type == "cpu" else dtype or half,
                    device_map="auto" if spread else chosen,
                )  # fmt: skip
        except Exception as error:  # whatever the libraries raise for files and addresses of strangers
            raise _refusal(self.name, error, local) from None
        if lost := sorted(found["missing_keys"]):  # `transformers` fills these with noise
            raise ModelError(f"`{name}` lacks {len(lost)} of its weights, such as {lost[0]}. Get the model again.")
        self.model.eval().requires_grad_(False)

    def prompt(self, messages: Sequence[Message]) -> str:
        """The conversation as the model's own template writes it, or as "USER: ... ASSISTANT:" where it has none.

        Raises:
            CallError: The template refuses it: some know no system turn.
        """
        if self.processor.chat_template is None:
            token = getattr(self.processor, "image_token", "")
            said = [f"{m.role.upper()}: " + f"{token}\n" * len(m.pictures) + m.text for m in messages]
            return " ".join([*said, "ASSISTANT:"])
        turns: list[dict[str, Any]] = []
        for m in messages:
            parts = [*({"type": "image"} for _ in m.pictures), {"type": "text", "text": m.text}]
            turns.append({"role": m.role, "content": parts if self.sees else m.text})
        try:
            return str(self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        except Exception as error:  # templates are programs of strangers
            text = f"The chat template of `{self.name}` refuses this ({_reason(error)}). Leave out the system's turn."
            raise CallError(text) from None

    def generate(
        self, texts: Sequence[str], shown: Sequence[list[Image.Image]] = (), *, tokens: int, seed: int = 0, **more: Any
    ) -> list[Reply]:
        """What follows each text, without special tokens; no price.

        Args:
            texts: What `prompt` wrote, or words to go on from.
            shown: The pictures of each text, in their order; of all texts or of none.
            tokens: The longest answer.
            seed: Of what is sampled. Torch's own generators are left as they were.
            more: What else `generate` of `transformers` takes.

        Raises:
            CallError: The texts are longer than the model reads, or it fails.
        """
        began = time.perf_counter()
        try:
            inputs = self._inputs(texts, shown)
            lengths = inputs["attention_mask"].sum(1).tolist()
            limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
            if limit is not None and max(lengths) + tokens > limit:
                text = f"A question of {max(lengths)} tokens and an answer of {tokens} are more than the {limit} that "
                text += f"`{self.name}` takes. Show fewer or smaller pictures, say it shorter, or ask for less."
                raise CallError(text)
            with quiet_libraries(), _seeded(seed):
                pad = self.tokenizer.pad_token_id
                out = self.model.generate(**inputs, max_new_tokens=tokens, pad_token_id=pad, **more)
        except CountervidError:
            raise
        except torch.OutOfMemoryError:
            text = f"`{self.name}` ran out of memory. Show fewer or smaller pictures, or use a smaller model."
            raise CallError(text) from None
        except Exception as error:  # whatever networks of strangers raise for an input that they cannot take
            raise CallError(f"`{self.name}` cannot answer ({_reason(error)}).") from None
        end = more.get("eos_token_id", self.model.generation_config.eos_token_id)
        ends = set(end if isinstance(end, list) else [end])
        replies, seconds = [], (time.perf_counter() - began) / len(texts)
        for length, row in zip(lengths, out[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
            stop = next((index + 1 for index, token in enumerate(row) if token in ends), len(row))  # padding follows
            text = str(self.tokenizer.decode(row[:stop], skip_special_tokens=True)).strip()
            cut = stop >= tokens and row[stop - 1] not in ends
            replies.append(Reply(text=text, tokens_in=length, tokens_out=stop, seconds=seconds, cut=cut))
        return replies

    def _inputs(self, texts: Sequence[str], pictures: Sequence[list[Image.Image]]) -> dict[str, Tensor]:
        """Tensors on the model's device, shorter texts padded on the left."""
        # A tokenizer's template writes every special token itself, a processor's may leave the first to the tokenizer.
        first = self.tokenizer.bos_token or "\0"
        written = (not self.sees and self.tokenizer.chat_template is not None) or texts[0].startswith(first)
        options = {"padding": True, "return_tensors": "pt", "add_special_tokens": not written}
        shown = {"images": list(pictures)} if any(pictures) else {}
        inputs = self.processor(text=list(texts), **shown, **options)
        if not self.sees:
            inputs.pop("token_type_ids", None)  # some tokenizers tell, no such model asks
        device, dtype = self.model.device, self.model.dtype
        return {key: x.to(device, dtype if x.is_floating_point() else None) for key, x in inputs.items()}


def _tokenizer(place: str, local: bool, other: str | None) -> Any:
    """The model's own tokenizer; else that of `other`. Without files, `transformers` makes one that knows no word."""
    from transformers import AutoTokenizer

    words = 0
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=local)
        words = len(tokenizer) - len(tokenizer.all_special_ids)
    except (OSError, ValueError) as error:
        if other is None and isinstance(error, OSError):
            raise
    if words <= 0 and other is None:
        raise ValueError("it has no tokenizer")
    if words <= 0:
        try:
            return _tokenizer(str(other), os.path.isdir(str(other)), None)
        except (OSError, ValueError):
            raise ValueError(f"it has no tokenizer, and that of `{other}` could not be had") from None
    tokenizer.padding_side = "left"  # an answer follows its question directly
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _processor(place: str, local: bool, config: Any, tokenizer: Any) -> Any:
    """The model's processor: pictures by Pillow, and nothing that prepares videos, which would need torchvision."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    values, _ = transformers.ProcessorMixin.get_processor_dict(place, local_files_only=local)
    kind = getattr(transformers, values.get("processor_class") or "", None) or PROCESSOR_MAPPING[type(config)]
    check = kind.check_argument_for_proper_class

    def lenient(self: Any, name: str, part: Any) -> Any:
        return None if part is None else check(self, name, part)

    stills: Any = type(kind.__name__, (kind,), {check.__name__: lenient})
    images = transformers.AutoImageProcessor.from_pretrained(place, local_files_only=local, backend="pil")
    parts = {"tokenizer": tokenizer, "image_processor": images}
    processor = stills.from_args_and_dict([parts.get(name) for name in stills.get_attributes()], values)
    if processor.chat_template is None:
        processor.chat_template = tokenizer.chat_template
    return processor


def _scaled(picture: Tensor, side: int) -> Image.Image:
    """A picture `(H, W, 3)` uint8 for Pillow, its longer side at most `side` px."""
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != torch.uint8:
        raise ValueError(f"A picture must be (H, W, 3) uint8, got {tuple(picture.shape)} {picture.dtype}.")
    height, width = scaled_size(picture.shape[0], picture.shape[1], side)
    image = Image.fromarray(picture.cpu().numpy())
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)


def _reason(error: Exception) -> str:
    """The first line that an error says, or its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".:")


def _refusal(name: str, error: Exception, local: bool) -> CountervidError:
    """Why a model could not be loaded."""
    if "torchvision" in str(error).lower():
        text = f"`{name}` prepares its pictures with torchvision, which is not here. Install the torchvision of your "
        return MissingExtraError(text + "torch's version, or use a LLaVA-NeXT or Qwen2.5-VL, which need none.")
    if isinstance(error, OSError) and not local:
        text = (
            f"`{name}` is no folder here, and it could not be had from the hub ({type(error).__name__}): is the name "
        )
        return ModelError(text + "right, and is there a network?")
    text = f"`{name}` is no language model that can be had here ({_reason(error)}). Give a folder that `transformers` "
    return ModelError(text + "loads with AutoModelForImageTextToText or AutoModelForCausalLM.")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """While it lasts, torch draws from `seed`: `transformers` takes no generator. Then its states are as before."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        for generator in (torch.default_generator, *(torch.cuda.default_generators[index] for index in devices)):
            generator.manual_seed(seed)
        yield
