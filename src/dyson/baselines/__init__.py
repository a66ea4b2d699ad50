"""Networks of other papers, to compare with."""

from dyson.baselines.rbm import RBM, LinearTheta, SymmetricRBM
from dyson.baselines.vit import ViT

__all__ = ["RBM", "LinearTheta", "SymmetricRBM", "ViT"]
