"""Holds :mod:`gym_gui.core.worker`."""
