"""The published prompt optimisers that run here: a prompt in, a better one out.

Each is a model that was trained to rewrite prompts. CSVC compares itself with them: one rewrite, one edit, no critic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from countervid.chat.base import Message
from countervid.chat.transformers import LocalModel

# What CSVC asks of VPO, in our words: its principles, held to the face and to a few words.
_REQUEST = """Rewrite a short request as a prompt for a video generator. Keep to these rules:
- Harmless: write nothing unsafe, offensive or unethical.
- Aligned: keep all that the request asks for, and add nothing against it.
- Helpful: be concrete and vivid, so that the picture comes out well.
Describe the traits of the face only, in three phrases at most. Say nothing about making a video, or about its length.
Answer with the prompt alone.

Request: {prompt}

Prompt:"""


class VPO:
    """VPO (arXiv:2503.20491): a chat model that is tuned to make prompts harmless, aligned and helpful.

    Args:
        name: A folder, or a hub's name, of a causal chat model.
        device: Where it runs; in float16 on a GPU, in float32 on the CPU.
        seed: Of its sampling: the same seed and prompt give the same rewriting.

    Raises:
        ModelError: There is no such model, it cannot be fetched, or it is no language model.
        ConfigError: The device cannot be used.
    """

    def __init__(self, name: str | Path = "CCCCCC/VPO-5B", *, device: str = "auto", seed: int = 0) -> None:
        self.model = LocalModel(name, device=device, dtype=torch.float16)
        self.name, self.seed = f"vpo:{name}", seed

    def __call__(self, prompt: str) -> str:
        """The prompt rewritten in at most 30 tokens; itself where the model says nothing.

        Raises:
            CallError: The prompt is longer than the model reads, or the model fails.
        """
        text = self.model.prompt([Message("user", _REQUEST.format(prompt=prompt.strip()))])
        reply = self.model.generate([text], tokens=30, seed=self.seed, do_sample=True, temperature=0.7)[0]
        return _clean(reply.text) or prompt


class Promptist:
    """Promptist (arXiv:2212.09611): a GPT-2 that goes on from "... Rephrase:" with what Stable Diffusion likes to read.

    Args:
        name: A folder, or a hub's name. The published model brings no tokenizer: `gpt2`'s is used where there is none.
        device: Where it runs; in float32.
        seed: Of its sampling: the same seed and prompt give the same rewriting.

    Raises:
        ModelError: There is no such model or tokenizer, or it cannot be fetched.
        ConfigError: The device cannot be used.
    """

    def __init__(self, name: str | Path = "microsoft/Promptist", *, device: str = "auto", seed: int = 0) -> None:
        self.model = LocalModel(name, device=device, dtype=torch.float32, tokenizer="gpt2")
        self.name, self.seed = f"promptist:{name}", seed

    def __call__(self, prompt: str) -> str:
        """The prompt rewritten in at most 75 tokens, as its authors' demonstration has it; itself where there are none.

        Raises:
            CallError: The prompt is longer than the model reads, or the model fails.
        """
        # Deviation: the authors' demonstration takes the likeliest; CSVC's runs, our baseline, sample along the beams.
        search: dict[str, Any] = {"num_beams": 8, "do_sample": True, "length_penalty": -1.0}
        end = self.model.tokenizer.eos_token_id
        text = f"{prompt.strip()} Rephrase:"
        reply = self.model.generate([text], tokens=75, seed=self.seed, eos_token_id=end, **search)[0]
        return _clean(reply.text) or prompt


def _clean(text: str) -> str:
    """A model's words as one line, without the quotes around them."""
    text = " ".join(text.split())
    for opening, closing in ('""', "''", "“”", "``"):
        if len(text) > 1 and text[0] == opening and text[-1] == closing:
            text = text[1:-1].strip()
    return text
