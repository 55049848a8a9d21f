"""Loading of public weights without the libraries' own remarks: what is wrong is said once, by our errors."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_LIBRARIES = ("transformers", "diffusers")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """While it lasts, diffusers, transformers and huggingface_hub log nothing; their progress bars stay off."""
    for name in _LIBRARIES:
        module = sys.modules.get(f"{name}.utils.logging")
        if module is not None:
            module.disable_progress_bar()
    loggers = [logging.getLogger(name) for name in (*_LIBRARIES, "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
