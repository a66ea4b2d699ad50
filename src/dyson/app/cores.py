"""How many devices of the processor share the chains of a run.

By default as many as there are cores. Whoever wants another number says so in the environment, as
for any program with jax: JAX_NUM_CPU_DEVICES, or the flag of XLA.
"""

import contextlib
import os
import re

import jax

_VARIABLE = "JAX_NUM_CPU_DEVICES"
_FLAG = "--xla_force_host_platform_device_count"
_MOST = 4096


class EnvironmentValueError(ValueError):
    """A variable of the environment has a value that nothing can be made of; one sentence."""


def use_cores(number: int | None = None, *, chains: int | None = None) -> None:
    """Share the chains among so many devices, unless the environment says else.

    The default is the number of cores, or the largest number below that divides the `chains`. Where
    a computation has already run, as inside a notebook, their number is fixed; it changes results
    by no more than the order of sums.
    """
    by_variable, by_flag = _requested()
    if by_variable is not None or by_flag is not None:
        return
    if number is None:
        number = os.cpu_count() or 1
        while chains is not None and chains % number:
            number -= 1
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", number)


def overruled() -> str | None:
    """A sentence where the flag of XLA asks for devices that jax does not give."""
    _, by_flag = _requested()
    devices = jax.devices()
    if by_flag is None or devices[0].platform != "cpu" or len(devices) == by_flag:
        return None
    return (
        f"XLA_FLAGS asks for {_devices(by_flag)}, the run has {_devices(len(devices))}: "
        f"set {_VARIABLE}={by_flag} instead"
    )


def moved(before: int) -> str | None:
    """A sentence where a run that was computed on so many devices goes on with others."""
    now = jax.device_count()
    if now == before:
        return None
    return (
        f"the run was computed on {_devices(before)} and goes on with {now}: sums are taken in "
        "another order, so that it no longer agrees bit for bit with a run that had not stopped"
    )


def _requested() -> tuple[int | None, int | None]:
    """The numbers of devices in the variable of jax and in the flag of XLA."""
    variable = os.environ.get(_VARIABLE) or None
    flags = re.findall(rf"{_FLAG}(?:=(\S*))?", os.environ.get("XLA_FLAGS", ""))
    return _number(_VARIABLE, variable), _number(f"XLA_FLAGS {_FLAG}", flags[-1] if flags else None)


def _number(name: str, text: str | None) -> int | None:
    if text is None or text == "-1":  # how jax writes that nothing is asked for
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= _MOST:
        raise EnvironmentValueError(f"{name} must be a number from 1 to {_MOST}, got {text[:40]!r}")
    return int(text)


def _devices(number: int) -> str:
    return f"{number} device" if number == 1 else f"{number} devices"
