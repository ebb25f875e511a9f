"""What sits inside: the fields and networks of both papers."""

from repro.flows.planar_field import PlanarField
from repro.nets.fields import ConcatField, ConcatSquashField, IgnoreField
from repro.nets.odenet import ConvField, OdeBlock

__all__ = ["ConcatField", "ConcatSquashField", "ConvField", "IgnoreField", "OdeBlock", "PlanarField"]
