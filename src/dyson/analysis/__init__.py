"""What a trained state says: its expansion, propagators and poles."""

from dyson.analysis.series import flip_response, poles, propagators, series

__all__ = ["flip_response", "poles", "propagators", "series"]
