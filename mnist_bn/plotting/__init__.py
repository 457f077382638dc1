"""Figures and tables from result folders.

Needs NumPy and Matplotlib only: anyone can redraw without a network, a device or a trainer.
"""
