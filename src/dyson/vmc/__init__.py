"""Variational Monte Carlo: samples, local energies, statistics, and the step of training."""

from dyson.vmc import statistics
from dyson.vmc.jacobian import log_derivatives
from dyson.vmc.local_energy import local_energies
from dyson.vmc.vmc import VMC, NonFiniteError, VMCInfo, VMCState

__all__ = [
    "VMC",
    "NonFiniteError",
    "VMCInfo",
    "VMCState",
    "local_energies",
    "log_derivatives",
    "statistics",
]
