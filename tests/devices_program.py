"""The same program for one device, for several and for several processes; see test_devices.py.

    python devices_program.py DIRECTORY SAMPLERS [PROCESS PORT]

SAMPLERS are names with commas between them, metropolis last.  Prints one line of JSON: what three
steps of every sampler give, with a checkpoint after the second, and what is said when something is
wrong.
"""

import contextlib
import json
import logging
import re
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dyson import (
    VMC,
    DysonNet,
    Ising,
    Metropolis,
    Recompute,
    SpinFlip,
    Sweep,
    Typewriter,
    checkpoint,
    processes,
    spring,
)
from dyson.devices import gathered, mesh, placed

CHAINS = 12


# What a step of training consists of.
PROGRAMS = "draw", "measured", "improved"


def make(name):
    """The loop of a sampler and its first state.

    All three meet the same code outside of the sampler, so two of them spare themselves the
    compilation of what the first one has tried.
    """
    hamiltonian = Ising(8)
    small = {"features": 4, "hidden": 2, "depth": 1, "mixer": "real", "modes": 1}
    # one program rather than one for every operation, in each of the processes
    new = eqx.filter_jit(lambda key: DysonNet(8, dtype=jnp.float64, key=key, **small))
    model = new(jax.random.key(0))
    sampler, optimiser, options = Metropolis(hamiltonian, CHAINS), spring(), {"warm_up": 2}
    if name == "metropolis":
        model = SpinFlip(model)
    else:
        optimiser, options = optax.sgd(5e-3, momentum=0.9), {"warm_up": 0, "updates": Recompute()}
    if name == "sweep":
        sampler = Sweep(hamiltonian, CHAINS, chains_at_once=2, by_environments=True)
    if name == "typewriter":
        sampler = Typewriter(hamiltonian, CHAINS, interval=2)
    vmc = VMC(hamiltonian, sampler, optimiser, chain_length=4, **options)
    return vmc, lambda: vmc.init(jax.random.key(1), model)


@contextlib.contextmanager
def compilations():
    """The names of the programs that are compiled in the block."""
    compiled = []

    class Notes(logging.Handler):
        def emit(self, record):
            found = re.match(r"Finished XLA compilation of (\S+)", record.getMessage())
            if found:
                compiled.append(found[1])

    logger, notes = logging.getLogger("jax"), Notes()
    before = jax.config.jax_log_compiles, logger.propagate
    jax.config.update("jax_log_compiles", True)
    logger.propagate = False
    logger.addHandler(notes)
    try:
        yield compiled
    finally:
        logger.removeHandler(notes)
        logger.propagate = before[1]
        jax.config.update("jax_log_compiles", before[0])


def content(state):
    """All numbers of a state, by name, as lists."""
    named, _ = jax.tree_util.tree_flatten_with_path(gathered(eqx.filter(state, eqx.is_array)))
    values = {jax.tree_util.keystr(path): leaf for path, leaf in named}
    keys = {k for k, v in values.items() if jnp.issubdtype(v.dtype, jax.dtypes.prng_key)}
    plain = {k: jax.random.key_data(v) if k in keys else v for k, v in values.items()}
    return {name: np.asarray(value).astype(float).tolist() for name, value in plain.items()}


def train(name, directory):
    """Three steps, once without a break and twice from the checkpoint after the second: placed by
    its template, and left to the step to place."""
    vmc, init = make(name)
    path = directory / f"{name}.npz"
    with compilations() as compiled:
        state, energies = init(), []
        for step in range(3):
            if step == 2:
                checkpoint.save(path, state, {"step": step})
            state, info = vmc.step(state)
            energies.append([float(info.energy), float(info.error)])
        shapes = eqx.filter_eval_shape(init)
        resumed = checkpoint.load(path, placed(shapes))
        where = [x.sharding for x in jax.tree.leaves(eqx.filter(resumed, eqx.is_array))]
        unplaced = checkpoint.load(path, shapes)
        again = [content(vmc.step(start)[0]) for start in (resumed, unplaced)]
    result = {
        "energies": energies,
        "state": content(state),
        "resumed": [other == content(state) for other in again],
        "placed": where == [x.sharding for x in jax.tree.leaves(eqx.filter(state, eqx.is_array))],
        "compilations": {name: compiled.count(f"jit({name})") for name in PROGRAMS},
        "metadata": checkpoint.load_metadata(path),
    }
    of_one = directory.parent / "one" / path.name
    if of_one.exists():
        result["from one"] = content(vmc.step(checkpoint.load(of_one, shapes))[0])
    return result, vmc, state


def measure(vmc, state):
    """What an evaluation reads: an estimate, and the samples that it comes from."""
    _, measured = vmc.measure(jax.random.key(5), state.model, state.sampler)
    estimate = eqx.filter_jit(lambda measured: measured.estimate())(measured)
    numbers = [jnp.real(estimate.mean), estimate.error, estimate.tau, jnp.mean(measured.acceptance)]
    return [
        *map(float, numbers),
        *np.asarray(measured.energies).ravel().tolist(),
        *np.asarray(measured.spins).ravel().tolist(),
    ]


def said(function):
    """Type and message of what the call raises."""
    try:
        function()
    except Exception as error:
        return [type(error).__name__, str(error)]
    return None


def complaints(vmc, state, directory):
    """What is wrong on all processes, or on one: all have to say so."""
    own = jax.process_index()
    model = gathered(state.model)
    where = lambda model: model.network.head.bias
    nan = eqx.tree_at(lambda s: where(s.model), state, jnp.full_like(where(model), jnp.nan))
    own_model = eqx.tree_at(where, model, where(model) + own)

    def other(chains):
        loop = VMC(vmc.hamiltonian, Metropolis(vmc.hamiltonian, chains), spring(), warm_up=0)
        return lambda: loop.init(jax.random.key(0), model)

    def fail_on(number):
        if own == number:
            raise FileNotFoundError("nothing here")

    class Odd(Exception):
        def __init__(self, one, two):
            super().__init__(one + two)

    def fail_oddly():
        raise Odd("strange ", "error")

    result = {
        "7 chains": said(other(7)),
        "1 chain": said(other(1)),
        "6 chains": said(lambda: mesh(6)),
        "not finite": said(lambda: vmc.step(nan)),
        "no directory": said(lambda: checkpoint.save(directory / "none" / "x.npz", state)),
        "no file": said(lambda: checkpoint.load(directory / f"metropolis{own or ''}.npz", state)),
        "first fails": said(lambda: processes.on_first(fail_on, 0)),
        "last fails": said(lambda: processes.on_all(fail_on, jax.process_count() - 1)),
        "odd error": said(lambda: processes.on_first(fail_oddly)),
        "other network": said(lambda: vmc.init(jax.random.key(0), own_model)),
        "long": said(lambda: processes.on_all(fail_long, own)),
        "any": [processes.on_any(own == 0), processes.on_any(False)],
        "all": processes.on_all(lambda: own) == own,
    }
    nested = []
    processes.on_first(
        lambda: processes.on_first(lambda: nested.append(processes.on_all(lambda: 1)))
    )
    return result | {"nested": nested}


def fail_long(own):
    if own == 0:
        raise OSError("ψ" * 5000)


def main():
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    directory, process = Path(sys.argv[1]), [int(number) for number in sys.argv[3:]]
    if process:
        jax.distributed.initialize(f"127.0.0.1:{process[1]}", 2, process[0])
    results = {}
    for name in sys.argv[2].split(","):
        results[name], vmc, state = train(name, directory)
    results["measured"] = measure(vmc, state)
    results["complaints"] = complaints(vmc, state, directory)
    results["devices"], results["process"] = jax.device_count(), jax.process_index()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
