"""Ranks, sets of cells that may be the best, and means under crossed streams, by SciPy and statsmodels.

Writes selection.json beside itself, which the tests of the coordinator's statistics read:

    python tests/oracles/selection.py

Made with NumPy 2.4, SciPy 1.17 and statsmodels 0.15.
"""

import itertools
import json
import pathlib

import numpy as np
import pandas
import statsmodels.formula.api
from scipy import stats
from statsmodels.stats.anova import anova_lm

rng = np.random.default_rng(7)


def ranks():
    """Mean ranks within repeats; a diverged trial, null, is the last one."""
    cases = []
    for cells, repeats, diverged in [(2, 5, 0.0), (5, 8, 0.2), (9, 20, 0.1)]:
        values = np.round(rng.normal(0.8, 0.05, (cells, repeats)), 2)
        gone = rng.random((cells, repeats)) < diverged
        bad = np.where(gone, np.inf, -values)
        mean_ranks = stats.rankdata(bad, axis=0).mean(axis=1)
        listed = [[None if g else float(v) for v, g in zip(*row)] for row in zip(values, gone)]
        cases.append({"values": listed, "mean_ranks": mean_ranks.tolist()})
    return cases


def lacking():
    """Mean ranks of cells that lack repeats: strengths by least squares on ranks within repeats, with two more ranks at the worst for
    cells that have fewer repeats than others."""
    cases = []
    own = np.random.default_rng(8)
    for cells, repeats, share in [(4, 6, 0.3), (9, 12, 0.5), (15, 20, 0.2)]:
        values = own.normal(size=(cells, repeats)) + 0.3 * own.normal(size=(cells, 1))
        has = own.random((cells, repeats)) >= share
        has[0] = has[:, 0] = True
        values[1:, 1:][has[1:, 1:] & (own.random((cells - 1, repeats - 1)) < 0.1)] = 0.0
        design, found = [], []
        for repeat in range(repeats):
            here = np.flatnonzero(has[:, repeat])
            if len(here) < 2:
                beaten = np.full(len(here), 0.5)
            else:
                beaten = (stats.rankdata(-values[here, repeat]) - 1) / (len(here) - 1)
            for cell, share_of_others in zip(here, beaten):
                row = np.zeros(cells + repeats)
                row[cell] = row[cells + repeat] = 1
                design.append(row)
                found.append(share_of_others)
        design.append(np.r_[np.ones(cells), np.zeros(repeats)])
        strength = np.linalg.lstsq(np.array(design), np.array(found + [0.0]), rcond=None)[0][:cells] + 0.5
        n, most = has.sum(axis=1), has.sum(axis=1).max()
        cautious = ((most + 2) * (n * strength + 2) / (n + 2) - 2) / most
        mean_ranks = 1 + (cells - 1) * np.where(n < most, cautious, strength)
        listed = [[float(v) if h else None for v, h in zip(*row)] for row in zip(values, has)]
        cases.append({"values": listed, "mean_ranks": mean_ranks.tolist()})
    return cases


def sets():
    """One-sided paired t tests of cells against the one with the best mean rank; who stays at 5 % over all."""
    cases = []
    for cells, repeats, spread in [(4, 6, 0.02), (9, 5, 0.03), (12, 20, 0.02)]:
        level = 0.8 + spread * rng.normal(size=(cells, 1))
        values = level + 0.02 * rng.normal(size=(1, repeats)) + 0.01 * rng.normal(size=(cells, repeats))
        mean_ranks = stats.rankdata(-values, axis=0).mean(axis=1)
        best = int(np.lexsort((-values.mean(axis=1), mean_ranks))[0])
        p = [1.0 if c == best else stats.ttest_rel(values[c], values[best], alternative="less").pvalue for c in range(cells)]
        stays = [bool(c == best or p[c] > 0.05 / (cells - 1)) for c in range(cells)]
        cases.append({"values": values.tolist(), "best": best, "stays": stays})
    return cases


def student():
    return [[t, df, float(stats.t.cdf(t, df))] for t in (-8.0, -2.5, -0.3, 0.0, 1.0, 4.0) for df in (1.0, 1.7, 4.0, 23.5, 400.0)]


def crossed():
    """Variance of a mean from the mean squares of statsmodels, components below 0 counting as 0, and Satterthwaite's degrees
    of freedom."""
    cases = []
    for sizes, replicates, deviations in [((4, 4), 1, (1, 0, 0)), ((4, 4), 1, (0, 0, 1)), ((3, 5), 2, (0.5, 0.3, 1)), ((5, 3), 1, (0, 1, 0.2))]:
        a, b = sizes
        n = a * b * replicates
        level = [np.array(x) for x in zip(*itertools.product(range(a), range(b)))]
        level = [np.tile(x, replicates) for x in level]
        values = deviations[0] * rng.normal(size=a)[level[0]] + deviations[1] * rng.normal(size=b)[level[1]]
        values = values + deviations[2] * rng.normal(size=n) + 1e-3 * rng.normal(size=n)
        frame = pandas.DataFrame({"y": values, "a": level[0], "b": level[1]})
        if replicates > 1:
            table = anova_lm(statsmodels.formula.api.ols("y ~ C(a) * C(b)", frame).fit())
            both, rest = table.loc["C(a):C(b)"], table.loc["Residual"]
        else:
            table = anova_lm(statsmodels.formula.api.ols("y ~ C(a) + C(b)", frame).fit())
            both, rest = table.loc["Residual"], None
        squares = {"a": table.loc["C(a)"], "b": table.loc["C(b)"], "both": both, "rest": rest}
        square = {k: float(v["sum_sq"] / v["df"]) for k, v in squares.items() if v is not None}
        factor = dict.fromkeys(square, 0.0)
        for name in "ab":
            if square[name] > square["both"]:
                factor[name] += 1 / n
                factor["both"] -= 1 / n
        if rest is None:
            factor["both"] += 1 / n
        else:
            if square["both"] > square["rest"]:
                factor["both"] += 1 / n
                factor["rest"] -= 1 / n
            factor["rest"] += 1 / n
        variance = sum(factor[k] * square[k] for k in square)
        spread = sum((factor[k] * square[k]) ** 2 / float(squares[k]["df"]) for k in square)
        degrees = max(variance**2 / spread, 1.0)
        ends = stats.t.interval(0.95, degrees, values.mean(), np.sqrt(variance))
        cases.append({"sizes": sizes, "values": values.tolist(), "variance": variance, "ends": list(ends)})
    return cases


here = pathlib.Path(__file__)
found = {"ranks": ranks(), "lacking": lacking(), "sets": sets(), "student": student(), "crossed": crossed()}
here.with_suffix(".json").write_text(json.dumps(found) + "\n")
