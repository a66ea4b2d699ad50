"""Settings shared by every test.

Double precision and strict promotion are switched on here, before any array exists: a test that
wants single precision asks for it by dtype. Warnings are errors (see pyproject.toml).
"""

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
