"""Networks of other papers, to compare with."""

from dyson.baselines.vit import ViT

__all__ = ["ViT"]
