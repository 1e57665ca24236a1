"""Reads what a trial gets from Ergodic, and reports its metrics. Needs nothing but the standard library."""
