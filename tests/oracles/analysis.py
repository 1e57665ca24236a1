"""Permutation tests by SciPy and analyses of variance by statsmodels as oracles. Regenerate: `python tests/oracles/analysis.py`
(needs the two, NumPy and pandas); writes analysis.json beside it."""
import json, os
import numpy as np, scipy, statsmodels
from scipy import stats

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

out = {
    "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
    "swaps": [swaps(n, points, classes, shift) for n, points, classes, shift in ((8, 12, 4, 0.0), (8, 12, 4, 0.4), (9, 1, 2, 0.5), (10, 30, 3, 0.2))],
}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "analysis.json"), "w") as f:
    f.write(json.dumps(out, separators=(",", ":")).replace('},{', '},\n{') + "\n")
