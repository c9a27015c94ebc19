"""Sweeps, calibrations and the benchmark behind data/results."""
