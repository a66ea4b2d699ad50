"""Annotations of shapes and types are checked whenever a test calls a function of the library."""

from beartype import BeartypeConf, beartype

# An int where a float is expected is one.
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
