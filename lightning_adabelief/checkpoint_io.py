"""A plugin for Lightning's Trainer that never leaves half a checkpoint."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from lightning_adabelief.files import replace_file
from lightning_adabelief.lightning_tree import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write each checkpoint beside its file, then rename it: a process that is killed leaves the old one whole.

    Lightning's own writes to the folder of temporary files, which for many is on another disk, and copies from
    there into the place of the old checkpoint. Paths of other than local disks, such as ``s3://``, are left to it.
    The command ``adabelief`` has this plugin.

    Example:
        >>> import pytorch_lightning as pl
        >>> from lightning_adabelief.checkpoint_io import AtomicCheckpointIO
        >>> trainer = pl.Trainer(plugins=[AtomicCheckpointIO()], logger=False)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Save a checkpoint.

        Args:
            checkpoint: The state of model and Trainer.
            path: The file; folders that are missing are made.
            storage_options: Refused, as by Lightning's own.

        Raises:
            OSError: If the file can't be written; the error names it, and the old one is untouched.
        """
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        save_whole(checkpoint, path)


def save_whole(content: Any, path: str | Path) -> None:
    """Save as :func:`torch.save` does, but replace the file at once, or leave the old one as it was.

    Args:
        content: What ``torch.save`` takes.
        path: The file; folders that are missing are made.

    Raises:
        OSError: If the file can't be written; the error names it.
    """
    serialized = io.BytesIO()  # on a full disk torch.save to a file raises a RuntimeError that names no path
    torch.save(content, serialized)
    with replace_file(path) as part, serialized.getbuffer() as content_bytes:
        part.write_bytes(content_bytes)
