"""Releases on simulated traffic: the real loop, a model of users, noise and faults. Pure, given a seed."""

from controlplane.simulation.families import FAMILIES

__all__ = ["FAMILIES"]
