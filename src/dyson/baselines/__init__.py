"""Networks of other papers, to compare with."""

from dyson.baselines.jastrow import Jastrow
from dyson.baselines.rbm import RBM, LinearTheta, SymmetricRBM
from dyson.baselines.vit import ViT

__all__ = ["RBM", "Jastrow", "LinearTheta", "SymmetricRBM", "ViT"]
