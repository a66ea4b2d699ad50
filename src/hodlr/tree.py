"""The static binary partition of range(n) behind a hierarchical matrix."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Tree:
    """A perfect binary tree over range(n), padded at the end to `padded = leaf_size · 2**depth`
    indices.

    Level l = 0 … depth - 1 has 2**l nodes of equal size, each split into two halves of `half(l)`
    indices; the 2**depth leaves hold `leaf_size` indices each. Equal sizes make every level one
    batched array. All fields are Python integers, so a tree is hashable and static under every jax
    transformation.
    """

    n: int
    leaf_size: int
    depth: int

    @classmethod
    def of(cls, n: int, leaf_size: int) -> "Tree":
        """The shallowest tree with leaves of at most `leaf_size` indices; less than 2**depth are
        padding."""
        if not isinstance(n, int) or n < 1:
            raise ValueError(f"a hierarchical matrix needs an integer size n >= 1, but got {n!r}.")
        if not isinstance(leaf_size, int) or leaf_size < 1:
            raise ValueError(f"leaf_size must be an integer >= 1, but got {leaf_size!r}.")
        depth = max(0, math.ceil(math.log2(n / leaf_size)))
        return cls(n, -(-n // 2**depth), depth)

    @property
    def padded(self) -> int:
        return self.leaf_size * 2**self.depth

    @property
    def n_leaves(self) -> int:
        return 2**self.depth

    def half(self, level: int) -> int:
        """Size of the two children of a node of this level."""
        return self.padded >> (level + 1)
