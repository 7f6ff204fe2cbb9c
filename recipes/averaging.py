"""A moving average of the weights, which is what a run shows, keeps and exports."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import lightning as L
from lightning.pytorch.callbacks import EMAWeightAveraging

ShownWeights = Callable[[L.Trainer, L.LightningModule], AbstractContextManager[None]]
"""A context in which a module has the weights that are to be shown."""


def as_they_are(trainer: L.Trainer, module: L.LightningModule) -> AbstractContextManager[None]:
    """Show the weights of the last step."""
    del trainer, module
    return nullcontext()


class Averaging(EMAWeightAveraging):
    """Lightning's average, on the device that trains, and shown when asked for."""

    @property
    def state_key(self) -> str:
        """The name in checkpoints: that of Lightning's class, since the state is."""
        return EMAWeightAveraging.__qualname__

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Make the average where training will be: at this moment the module is still on the CPU."""
        pl_module.to(trainer.strategy.root_device)
        super().setup(trainer, pl_module, stage)

    @contextmanager
    def shown(self, trainer: L.Trainer, module: L.LightningModule) -> Iterator[None]:
        """Let the module have the averaged weights for a while, as for a validation."""
        self.on_validation_epoch_start(trainer, module)
        try:
            yield
        finally:
            self.on_validation_epoch_end(trainer, module)
