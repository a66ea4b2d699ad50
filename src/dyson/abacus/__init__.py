"""ABACUS: exact local updates of a DysonNet at a cost independent of the size of the chain.

**The idea.**  Once a configuration is fixed, the linear stream h of a DysonNet is affine in its
sources: block l adds ``D W_out G u`` with ``u = W~ h + c``, where the mixer G is the same for all
configurations and gates D and sources c of a token depend on the few tokens around it.  So a
configuration is a *medium*, and a local move changes D and c inside a short *window*: an impurity.
What it does to log psi can be told from the window alone, if the medium has been asked before how
it carries a signal from one token of the window to another and on to the readout.

**The recurrence** (Theorem 1 of arXiv:2603.11189).  The change of h is split into S, on the window,
and what the window radiates.  With the sources ``v^(l) = dc^(l) + W~^(l) S^(l-1)`` and S^(0) the
change of the embedding,

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
  medium: gates and mixers of the configuration in front of which a change is seen.
  wave: what one mode of a mixer carries through a cut, in one direction.
  cut: the place between two tokens.
  segment: consecutive tokens as an affine map from the waves that enter at their two ends to those
    that leave, and to their share of the readout; triangular in the layers, so never inverted.
  window: the tokens whose D or c a move changes, layer by layer; evaluated token by token.
  exterior: all segments outside of a window, joined: how the rest answers what the window radiates.
  link: Lambda, from a source of layer m to the input of layer l > m, as a band of the tokens.
  readout: T, from a source of layer l to theta.

**Two ways of asking the medium**, exact both.  *Links*, for one and two blocks: Lambda as a band of
numbers, O(features^2) per move, and all flips side by side.  *Waves*, for every depth: the window
is solved between exteriors.  The same waves serve exact sweeps (:class:`dyson.Sweep`), where every
accepted move changes the medium: the window follows it, and once it is left behind, its tokens as
they are then join the segment of what was visited, so that no reference grows old.

**Which file is which.**

  ============  ================================================================================
  choice        :class:`Abacus`, :class:`AbacusPairs`, and which way serves a network
  bound         the protocol (init, propose, single_flips) in terms of theta, and projections
  costs         who pays when, in multiply-adds
  links         a folder: the recurrence above with links, for one and two blocks
  windows       the recurrence with waves: windows between exteriors, every depth
  pairs         two windows anywhere, and the segments between them
  surroundings  the references of both: windows, and the exteriors of all of them
  forward       chains that windows would cover
  ============  ================================================================================

Waves, media, segments and windows themselves are in :mod:`dyson.scattering`.  What all of this
is compared with in the tests is the forward pass, :class:`dyson.Recompute`.
"""

from dyson.abacus.bound import AbacusUpdates
from dyson.abacus.choice import Abacus, AbacusPairs, supported

__all__ = ["Abacus", "AbacusPairs", "AbacusUpdates", "supported"]
