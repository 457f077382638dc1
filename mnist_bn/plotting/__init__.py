"""Figures and tables from result folders.

Drawn from the files in them alone: no data set, no device and no training is needed to redraw.
"""
