"""ABACUS: exact local updates of a DysonNet at a cost independent of the size of the chain.

**The idea.**  A DysonNet has two streams of features per token.  phi is local and nonlinear: it
sees a few neighbours and makes the gates D and the sources c of every block.  h is linear: block l
adds ``D W_out G u`` to it, with ``u = W~ h + c``, where the dense layers W_out and W~ and the mixer
G, which couples all tokens, are the same for all configurations.  In the end
``theta = W_head sum_t h_t + b`` and ``log psi = sum log cosh theta``.  So a configuration, the
*reference*, is a *medium* of gates, and a local *move* (a few flips) changes D and c inside a short
*window*: an impurity.  What it does to log psi can be told from the window alone, if the medium has
been asked before how it carries a signal from one token of the window to another and on to theta.

**The recurrence** (Theorem 1 of arXiv:2603.11189).  The change of h is split into S, on the window,
and what the window radiates, sends out to all tokens.  With S^(0) the change of the embedding and
the sources ``v^(l) = dc^(l) + W~^(l) S^(l-1)``,

    dy^(l) = G^(l) v^(l) + sum_{m<l} Lambda^(l,m) v^(m)          on the window
    S^(l)  = S^(l-1) + dD^(l) * W_out (y^(l) + dy^(l))           y, before: of the reference
    dtheta = W_head sum_t S^(L)_t + sum_l T^(l) v^(l)            log psi = sum log cosh theta

Lambda, the *links*, and T, the *readouts*, belong to the reference configuration; they are made
once, in O(n), and then serve every move.

**The picture.**  A cut lets one wave per mode, layer and direction through, because a mixer is a
sum of exponentials: f_k = sum_{j<k} pole^(k-j) u_j and its mirror image g are all that one side of
the chain needs to know of the other.

        segment            window            segment
    ...---o---o---|---o---o---X---o---o---|---o---o---...      o token   X changed token
               f ->                    f ->                    waves through the two cuts
               <- g                    <- g
        `-------------- exterior --------------'               (joined around a ring)

**Words.**
  site, token: a spin; ``token_size`` spins that are embedded together.
  pattern: the spins of a token as a number.
  block: a layer of the network, counted from 1 (in a sweep: tokens that are visited together).
  reference: the configuration in front of which moves are seen, and what is kept of it.
  medium: what carries signals: mixers and dense layers, always the same (the class ``Medium``), and
    the gates of the reference.
  mode: one exponential of a mixer.
  wave: what one mode of a mixer carries through a cut, in one direction.
  cut: the place between two tokens.
  segment: consecutive tokens as an affine map from the waves that enter at their two ends to those
    that leave, and to their share of the readout; triangular in the layers, so never inverted.
  window: the tokens whose D or c a move changes, layer by layer; evaluated token by token.
  exterior, environment: all segments outside of a window, joined: how the rest answers what the
    window radiates.
  slot: a place in a window.
  link: Lambda, from a source of layer m to the input of layer l > m, as a band of the tokens.
  readout: T, from a source of layer l to theta.

**Two ways of asking the medium**, exact both.  *Links*, for one and two blocks: Lambda as a band of
numbers, O(features^2) per move, and all flips side by side.  *Waves*, for every depth: the window
is solved between exteriors.  The same waves serve exact sweeps (:class:`dyson.Sweep`), where every
accepted move changes the medium: the window follows it, and once it is left behind, its tokens as
they are then join the segment of what was visited, so that no reference grows old.

**Which file is which.**

  ============  ================================================================================
  choice        :class:`Abacus`, :class:`AbacusPairs`, and which way serves a network: links up to
                depth two, windows above, forward passes where these would cover the chain
  bound         what all ways share: from changes of theta to ratios; projections around them
  costs         the inequalities in multiply-adds: ``links_pay``, ``windows_pay``, ``pairs_pay``
  links         a folder: the recurrence above with links, for one and two blocks
  windows       local updates with waves: windows between exteriors, every depth
  pairs         two windows anywhere, and the segments between them
  surroundings  the references of windows and pairs: the windows of a chain and their exteriors
  forward       short chains, which a window would cover: forward passes
  ============  ================================================================================

**Who chooses.**  Local updates or a forward pass: for local energies and observables
``fastest_updates`` in :mod:`dyson.vmc.ratios`, which asks ``Abacus.pays``, which asks ``costs``;
for sweeps ``environments_pay`` in :mod:`dyson.samplers.passes`.

**To read it as code.**  The recurrence is ``scatter`` in ``links/recurrence.py`` (one and two
blocks) or, at every depth, ``changed`` in :mod:`dyson.scattering.window`, with its formulas in
``_scattered``.  Links are built by ``neighbour_links`` in ``links/tensors.py``.  A sweep follows an
accepted move in ``Pass.propose``, and what was visited joins the prefix in ``Pass.visit``, of
:mod:`dyson.samplers.environment_pass`.

Waves, media, segments and windows themselves are in :mod:`dyson.scattering`.  What all of this
is compared with in the tests is the forward pass, :class:`dyson.Recompute`.
"""

from dyson.abacus.bound import AbacusUpdates
from dyson.abacus.choice import Abacus, AbacusPairs, keeps_neighbours, supported

__all__ = ["Abacus", "AbacusPairs", "AbacusUpdates", "keeps_neighbours", "supported"]
