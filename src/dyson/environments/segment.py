"""A segment of a DysonNet as an affine scatterer of the waves that enter it.

Cut the chain anywhere: in every layer all that crosses the cut is one wave per mode and direction.
A segment therefore maps the waves entering at its two ends to the waves leaving there and to its
share of the pooled stream.  The map is affine, and strictly triangular in the layer index but for
the transmission lambda^length inside each layer: a wave of layer m excites layers l > m only, so
nothing is ever inverted and multiple scattering ends with the last layer (the truncated Dyson
series of arXiv:2603.11189).

A segment grows at one end, the *near* end; the other is the *far* end.  A prefix of the chain grows
to the right and a suffix to the left by the same formulas, because a token treats the two
directions alike.  On an open chain nothing enters at the far end: its maps are left out.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dyson.environments.medium import (
    Medium,
    Wave,
    WaveMap,
    add,
    applied,
    product,
    shared_product,
    turn,
)


class Site(eqx.Module):
    """A token with its final local features; leading axis features, last axis chains.

    embedded: h^(0).   drives: per layer c + offset, what enters the mixer apart from h.
    gates: per layer D.  All zero is the vacuum, which transmits waves and does nothing else.
    """

    embedded: Float[Array, "features *tokens chains"]
    drives: tuple[Float[Array, "features *tokens chains"], ...]
    gates: tuple[Float[Array, "features *tokens chains"], ...]


class Response(eqx.Module):
    """An affine function of the waves entering a segment, for rows of any kind.

    near[j], far[j]: maps from the wave of layer j that enters at the near or the far end.
    """

    constant: Any
    near: tuple[WaveMap, ...]
    far: tuple[WaveMap, ...]

    def __call__(self, near: list[Wave], far: list[Wave]) -> Any:
        """Value for the given waves; cost rows * columns per layer."""
        pairs = [*zip(self.near, near, strict=False), *zip(self.far, far, strict=False)]
        return add(self.constant, *(applied(response, wave) for response, wave in pairs))


class Segment(eqx.Module):
    """Environment of everything between two cuts, (…, chains).

    near, far: per layer the wave leaving at either end, a function of the waves of lower layers;
      ``far`` is empty on an open chain.  Transmission comes on top.
    transmission: per layer lambda^length, parts of shape (features * modes,).
    pooled: share of head @ sum_t h_t, a function of the waves of all layers.

    Numbers per chain, with w real waves per layer, L layers and K outputs of the head: on a ring
    2 L (L-1) w^2 + 2 L K w, on an open chain a quarter and a half of these.
    """

    near: tuple[Response, ...]
    far: tuple[Response, ...]
    transmission: tuple[Wave, ...]
    pooled: Response


def empty_segment(medium: Medium, n_chains: int, *, periodic: bool) -> Segment:
    """The segment without tokens."""

    def zeros(shape: tuple[int, ...], count: int, like: Array) -> Wave:
        return (jnp.zeros((*shape, n_chains), like.dtype),) * count

    near = []
    for layer in medium.layers:
        waves, n_parts = layer.pole[0].shape[0], len(layer.pole)
        into = tuple(
            (zeros((waves, lower.pole[0].shape[0]), n_parts, layer.pole[0]),) * len(lower.pole)
            for lower in medium.layers[: len(near)]
        )
        constant = zeros((waves,), n_parts, layer.pole[0])
        near.append(Response(constant, into, into if periodic else ()))
    outputs = medium.head.shape[0]
    into = tuple(
        zeros((outputs, layer.pole[0].shape[0]), len(layer.pole), medium.head)
        for layer in medium.layers
    )
    (constant,) = zeros((outputs,), 1, medium.head)
    return Segment(
        tuple(near),
        tuple(near) if periodic else (),
        tuple(
            (jnp.ones_like(layer.pole[0]), *map(jnp.zeros_like, layer.pole[1:]))
            for layer in medium.layers
        ),
        Response(constant, into, into if periodic else ()),
    )


class Scatterer(eqx.Module):
    """One token, solved for the signals ``e^m = Re[c^m (f^m + g^m)]`` it hears in each layer m.

        u^l = sources[l] + sum_{m<l} links[l][m] e^m,
        head @ h^L = output + sum_m readouts[m] e^m
    """

    sources: tuple[Float[Array, "features chains"], ...]
    links: tuple[tuple[Float[Array, "features features chains"], ...], ...]
    output: Float[Array, "outputs chains"]
    readouts: tuple[Float[Array, "outputs features chains"], ...]


def scatterer(medium: Medium, site: Site) -> Scatterer:
    """Cost O(depth^2 features^3) per chain, all of it products with matrices that chains share."""
    h, heard = site.embedded, []
    sources, links = [], []
    for layer, drive, gate in zip(medium.layers, site.drives, site.gates, strict=True):
        own = layer.mix_out * layer.kappa
        source = layer.scattered @ h + drive
        link = tuple(shared_product(layer.scattered, response) for response in heard)
        heard = [
            response + gate[:, None] * shared_product(own, through)
            for response, through in zip(heard, link, strict=True)
        ]
        heard.append(gate[:, None] * layer.mix_out[..., None])
        h = h + gate * (own @ source)
        sources.append(source)
        links.append(link)
    readouts = tuple(shared_product(medium.head, response) for response in heard)
    return Scatterer(tuple(sources), tuple(links), medium.head @ h, readouts)


def absorb(medium: Medium, segment: Segment, site: Site) -> Segment:
    """The segment with one more token at its near end.

    The wave that used to enter at the near end is now the one that leaves the token:
    lambda (z + u), with z the wave entering the grown segment.  Layer by layer, ``arriving`` is
    what comes to the token from the segment, in terms of z and of the waves at the far end.

    Cost O(L^2 w^2) elementwise per chain for depth 2 (w real waves per layer), O(w^2 features) for
    each triple of layers beyond that.
    """
    token = scatterer(medium, site)
    periodic = bool(segment.far)
    near, far, signals = [], [], []

    def heard(coefficients: tuple[Any, ...]) -> Response:
        """``sum_m coefficients[m] e^m`` as a function of the waves."""
        constant = add(*(product(a, s.constant) for a, s in _pairs(coefficients, signals)))
        into_near, into_far = [], []
        for j, (a, layer) in enumerate(_pairs(coefficients, medium.layers)):
            higher = _pairs(coefficients[j + 1 :], signals[j + 1 :])
            into_near.append(
                add(
                    layer.heard_columns(a),
                    *(tuple(product(b, column) for column in s.near[j]) for b, s in higher),
                )
            )
            if periodic:
                into_far.append(
                    add(
                        layer.heard_columns(a, segment.transmission[j]),
                        *(tuple(product(b, column) for column in s.far[j]) for b, s in higher),
                    )
                )
        return Response(constant, tuple(into_near), tuple(into_far))

    def pushed(response: Response, direct: tuple[Any, ...] = ()) -> Response:
        """A function of the waves that entered before, plus ``direct`` on the signals."""
        sent = [
            layer.sent_into(into) for layer, into in _pairs(medium.layers, response.near)
        ]
        coefficients = list(direct)
        for m in range(len(sent) - 1):
            terms = [product(sent[i], token.links[i][m]) for i in range(m + 1, len(sent))]
            total = add(*terms)
            coefficients[m:m + 1] = [add(coefficients[m], total) if m < len(direct) else total]
        moved = Response(
            add(response.constant, *(product(s, u) for s, u in _pairs(sent, token.sources))),
            tuple(
                layer.turned_columns(into)
                for layer, into in _pairs(medium.layers, response.near)
            ),
            response.far,
        )
        return moved if not coefficients else _add_lower(moved, heard(tuple(coefficients)))

    for index, layer in enumerate(medium.layers):
        arriving = pushed(segment.near[index])
        source = Response(token.sources[index], (), ())
        if token.links[index]:
            raised = heard(token.links[index])
            source = Response(add(source.constant, raised.constant), raised.near, raised.far)
        signals.append(jax.tree.map(layer.heard, arriving, is_leaf=_is_wave))
        near.append(
            jax.tree.map(
                lambda x, u: turn(layer.pole, (x[0] + layer.expand(u), *x[1:])),  # noqa: B023
                arriving,
                source,
                is_leaf=_is_wave,
            )
        )
        if periodic:
            through = segment.transmission[index]
            sent = jax.tree.map(lambda u: layer.sent(u, through), source)  # noqa: B023
            far.append(add(pushed(segment.far[index]), sent))
    pooled = pushed(segment.pooled, token.readouts)
    pooled = eqx.tree_at(lambda p: p.constant, pooled, pooled.constant + token.output)
    transmission = tuple(
        turn(layer.pole, t) for layer, t in _pairs(medium.layers, segment.transmission)
    )
    return Segment(tuple(near), tuple(far), transmission, pooled)


def _add_lower(response: Response, lower: Response) -> Response:
    """Sum with a response that reaches as many layers or fewer."""

    def extend(maps: tuple[WaveMap, ...], more: tuple[WaveMap, ...]) -> tuple[WaveMap, ...]:
        return tuple(add(a, b) for a, b in _pairs(maps, more)) + maps[len(more) :]

    return Response(
        add(response.constant, lower.constant),
        extend(response.near, lower.near),
        extend(response.far, lower.far),
    )


def _is_wave(x: Any) -> bool:
    return isinstance(x, tuple) and x != () and all(isinstance(part, jax.Array) for part in x)


def _pairs(first: Any, second: Any) -> list[tuple[Any, Any]]:
    """Zip to the shorter of the two: lower layers of what holds all of them."""
    return list(zip(first, second, strict=False))
