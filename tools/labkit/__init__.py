"""The lab: a cluster of namespace hosts on one machine, with power, cables and a shared store to break."""

from .lab import Lab
from .layout import LabError
from .observer import Observer

__all__ = ["Lab", "LabError", "Observer"]
