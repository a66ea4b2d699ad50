"""Dense matrices from Pauli products: the reference that shares no code with the library."""

import functools

import numpy as np

X = np.array([[0.0, 1.0], [1.0, 0.0]])
Z = np.array([[1.0, 0.0], [0.0, -1.0]])


def pauli_product(n_sites, factors):
    """The Kronecker product with the given matrices on their sites, site 0 leftmost."""
    return functools.reduce(np.kron, [factors.get(site, np.eye(2)) for site in range(n_sites)])


def ising_matrix(n_sites, coupling, exponent, field, longitudinal, periodic, kac):
    """The Ising Hamiltonian written out pair by pair."""
    matrix = np.zeros((2**n_sites, 2**n_sites))
    norm = 1.0
    if kac:
        for r in range(1, n_sites):
            norm += float(min(r, n_sites - r) if periodic else r) ** -exponent
    for i in range(n_sites):
        matrix -= field * pauli_product(n_sites, {i: X})
        matrix -= longitudinal * pauli_product(n_sites, {i: Z})
        for j in range(i + 1, n_sites):
            distance = float(min(j - i, n_sites - (j - i)) if periodic else j - i)
            strength = coupling / norm * distance**-exponent
            matrix += strength * pauli_product(n_sites, {i: Z, j: Z})
    return matrix


def heisenberg_matrix(n_sites, j1, j2, marshall, periodic):
    """J1-J2 written out bond by bond from spin operators, rotated on every second site."""
    y = np.array([[0.0, -1.0], [1.0, 0.0]])  # -i Y: the product of two is -Y Y, which is real
    matrix = np.zeros((2**n_sites, 2**n_sites))
    for distance, strength in ((1, j1), (2, j2)):
        for i in range(n_sites):
            j = i + distance
            if (j >= n_sites and not periodic) or j % n_sites == i:
                continue
            for factor, sign in ((X, 1), (y, -1), (Z, 1)):
                product = pauli_product(n_sites, {i: factor, j % n_sites: factor})
                matrix += strength / 4 * sign * product
    if marshall:
        rotation = pauli_product(n_sites, {i: Z for i in range(1, n_sites, 2)})
        matrix = rotation @ matrix @ rotation
    return matrix


def xxz_matrix(n_sites, coupling, anisotropy, exponent, marshall, periodic, kac):
    """XXZ written out pair by pair from spin operators, rotated on every second site."""
    y = np.array([[0.0, -1.0], [1.0, 0.0]])  # -i Y: the product of two is -Y Y, which is real

    def decay(separation):
        r = min(separation, n_sites - separation) if periodic else separation
        return float(r == 1) if np.isinf(exponent) else r**-exponent

    norm = 1 + sum(decay(j) for j in range(1, n_sites)) if kac else 1.0
    matrix = np.zeros((2**n_sites, 2**n_sites))
    for i in range(n_sites):
        for j in range(i + 1, n_sites):
            for factor, sign in ((X, 1), (y, -1), (Z, anisotropy)):
                product = pauli_product(n_sites, {i: factor, j: factor})
                matrix += coupling / norm * decay(j - i) / 4 * sign * product
    if marshall:
        rotation = pauli_product(n_sites, {i: Z for i in range(1, n_sites, 2)})
        matrix = rotation @ matrix @ rotation
    return matrix
