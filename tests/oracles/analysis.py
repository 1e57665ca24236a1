"""Permutation tests by SciPy and analyses of variance by statsmodels as oracles. Regenerate: `python tests/oracles/analysis.py`
(needs the two, NumPy and pandas); writes analysis.json beside it."""
import json, os
import numpy as np, pandas as pd, scipy, statsmodels
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.anova import anova_lm

rng = np.random.default_rng(20)

def swaps(n, points, classes, shift):
    """Labels of two cells, [repeat][point], half of the points in common; the test swaps whole repeats."""
    a, b = rng.integers(classes, size=(n, points)), rng.integers(classes, size=(n, points))
    b[:, ::2] = a[:, ::2]
    b = np.where(rng.random((n, points)) < shift, 0, b)
    both = np.concatenate([a, b])
    def l1(x, y):
        hot = lambda at: np.stack([(both[at] == k).mean(axis=0) for k in range(classes)])
        return np.abs(hot(x) - hot(y)).sum(axis=0).mean()
    # SciPy swaps numbers of rows, so that a row stays whole.
    r = stats.permutation_test((np.arange(n), np.arange(n) + n), l1, permutation_type="samples", alternative="greater", n_resamples=np.inf, vectorized=False)
    return {"a": a.tolist(), "b": b.tolist(), "distance": float(r.statistic), "p": float(r.pvalue)}

def variance(levels, repeats, holes):
    """A grid with effects, an interaction and repeats that all cells have in common; type II sums of squares."""
    cells = [c for c in np.ndindex(*levels) if c not in holes]
    additive = lambda data, factors: smf.ols(f"y ~ {factors}", data).fit().params
    names = "abc"[:len(levels)]
    common = rng.normal(size=repeats)
    rows = [{**dict(zip(names, c)), "r": r, "y": 50 + 2 * c[0] - c[1] + 0.5 * c[0] * c[1] + common[r] + rng.normal()} for c in cells for r in range(repeats)]
    data = pd.DataFrame(rows)
    factors = " + ".join(f"C({name}, Sum)" for name in names)
    fit = lambda blocks: smf.ols(f"y ~ ({factors}) ** 2{blocks}", data).fit()
    # What trials of a cell vary by is all that a fit of the cells themselves leaves.
    table = anova_lm(fit(" + C(r)"), typ=2)
    word = lambda term: " × ".join(part.strip()[2] for part in term.split(":"))
    inside = data["y"] - data.groupby(list(names))["y"].transform("mean")
    return {"levels": list(levels), "repeats": repeats, "cells": [list(map(int, c)) for c in cells],
            "values": [[float(y) for y in data[(data[list(names)].to_numpy() == np.array(c)).all(axis=1)]["y"]] for c in cells],
            "squares": {"repeats" if term == "C(r)" else word(term): [float(row["df"]), float(row["sum_sq"])] for term, row in table.iterrows() if term != "Residual"},
            "within": float((inside**2).sum()), "mean": float(additive(data, factors)["Intercept"]),
            "effects": {name: [float(additive(data, factors)[f"C({name}, Sum)[S.{level}]"]) for level in range(levels[at] - 1)] for at, name in enumerate(names)}}

def components(sizes, replicates):
    """A crossed random-effects layout, the last factor fastest; mean squares by statsmodels, components by solving their expectations."""
    count = int(np.prod(sizes))
    digits = [np.unravel_index(r % count, sizes) for r in range(count * replicates)]
    draws = {s: rng.normal(size=[n if s >> f & 1 else 1 for f, n in enumerate(sizes)]) for s in range(1, 2 ** len(sizes))}
    y = [sum(x[tuple(d if s >> f & 1 else 0 for f, d in enumerate(digit))] * (2 if s < 3 else 1) for s, x in draws.items()) + 0.5 * rng.normal() for digit in digits]
    data = pd.DataFrame({**{f"f{f}": [d[f] for d in digits] for f in range(len(sizes))}, "y": y})
    with np.errstate(all="ignore"):
        table = anova_lm(smf.ols("y ~ " + " * ".join(f"C(f{f})" for f in range(len(sizes))), data).fit(), typ=1)
    square = lambda s: table.loc[":".join(f"C(f{f})" for f in range(len(sizes)) if s >> f & 1)]
    sets = list(range(1, 2 ** len(sizes)))
    # E(MS of s) = residual + sum over v containing s of (trials per combination in v) times the component of v.
    per = lambda v: replicates * np.prod([n for f, n in enumerate(sizes) if not v >> f & 1])
    matrix = np.array([[per(v) if v & s == s else 0 for v in sets] + [1] for s in sets] + [[0] * len(sets) + [1]], dtype=float)
    found = [square(s)["sum_sq"] / square(s)["df"] for s in sets]
    if replicates > 1:
        solved = np.linalg.solve(matrix, np.array(found + [table.loc["Residual", "sum_sq"] / table.loc["Residual", "df"]]))
    else:
        solved = np.linalg.solve(matrix[:-1, :-1], np.array(found))
    return {"sizes": list(sizes), "replicates": replicates, "values": [float(v) for v in y], "components": [float(c) for c in solved]}

out = {
    "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
    "swaps": [swaps(n, points, classes, shift) for n, points, classes, shift in ((8, 12, 4, 0.0), (8, 12, 4, 0.4), (9, 1, 2, 0.5), (10, 30, 3, 0.2))],
    "chi_squared": [[p, df, float(stats.chi2.ppf(p, df))] for p in (0.005, 0.025, 0.3, 0.5, 0.95, 0.975) for df in (0.3, 1, 2, 3.7, 9, 40.5, 199, 5000)],
    "components": [components(*case) for case in (((3, 4), 3), ((5, 4), 1), ((3, 2, 4), 1), ((2, 3, 2), 2))],
    "variance": [variance(*case) for case in (((3, 4), 5, ()), ((2, 3, 3), 4, ()), ((2, 3, 3), 4, ((1, 2, 0),)), ((3, 2), 2, ()))],
}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "analysis.json"), "w") as f:
    f.write(json.dumps(out, separators=(",", ":")).replace('},{', '},\n{') + "\n")
