"""The error hierarchy: every message names the offending value and the fix."""

from __future__ import annotations


class DimooError(Exception):
    """Base of every error that dimoo raises on purpose."""


class ConfigError(DimooError, ValueError):
    """A setting is unknown, out of range or contradicts another one."""


class RequestError(DimooError, ValueError):
    """A request cannot be served: wrong size, too long a prompt, a mask that does not fit."""


class DataError(DimooError, ValueError):
    """A training or evaluation row cannot be read."""


class CheckpointError(DimooError, ValueError):
    """A checkpoint is missing, corrupt or does not fit the model."""


class BackendError(DimooError, RuntimeError):
    """A backend was asked for that this device or installation does not have."""


class TrainingError(DimooError, RuntimeError):
    """Training cannot go on: the loss or a gradient is not finite."""
