"""Claims by NumPy and SciPy as an oracle. Regenerate: `python tests/oracles/claims.py` (needs both); writes claims.json beside it.

Value (cell, repeat) is 1 + cell + u, with u = frac((1 + cell)*sqrt(2) + (1 + repeat)*sqrt(3)), rounded to 2^-20, so that both
sides have the same bits."""
import json, os
import numpy as np
from scipy import stats

ALPHA = 0.05

def values(cells, repeats):
    c, r = np.meshgrid(np.arange(cells), np.arange(repeats), indexing="ij")
    u = np.modf((1 + c) * np.sqrt(2) + (1 + r) * np.sqrt(3))[0]
    return 1 + c + np.round(u * 2**20) / 2**20

def student(theta, without, degrees):
    """Effect and interval by the jackknife over the streams' groups."""
    parts = [(len(w) - 1) / len(w) * np.sum((w - np.mean(w)) ** 2) for w in without]
    variance = sum(parts)
    if degrees is None:
        degrees = variance / sum(p / (len(w) - 1) for p, w in zip(parts, without))
    half = stats.t.ppf(1 - ALPHA, degrees) * np.sqrt(variance)
    return [float(theta), float(theta - half), float(theta + half)]

def jackknifed(function, x):
    n = x.shape[1]
    means = lambda keep: x[:, keep].mean(axis=1)
    everything = np.arange(n)
    without = np.array([function(means(everything != r)) for r in everything])
    return student(function(means(everything >= 0)), [without], n - 1)

def crossed(x, sizes):
    """The mean of one cell whose repeats cross two streams, the last of which changes fastest. The degrees of freedom are the
    harmonic mean of those of the streams, weighted by their variances."""
    n = x.shape[1]
    repeats = np.arange(n)
    groups = [repeats // sizes[1] % sizes[0], repeats % sizes[1]]
    without = [np.array([x[0, g != l].mean() for l in range(max(g) + 1)]) for g in groups]
    return student(x[0].mean(), without, None)

def labels(cell, repeats, points, step):
    """Labels from 0 to 2 by repeat and point; at later steps, cells are more alike."""
    r, p = np.meshgrid(np.arange(repeats), np.arange(points), indexing="ij")
    mixed = ((cell + 1) * 7 + (r + 1) * (p + 3) * 13 + r * r * p * 5 + step) % 11 % 3
    return np.where((r + p + step) % (cell * 40 + 3) < 2, mixed, (cell + p) % 3 if step < 100 else p % 3)

def energy(x, y, distance):
    """2 E d(x, y) - E d(x, x') - E d(y, y') over all pairs of different repeats."""
    n = len(x)
    mean = lambda a, b: np.mean([distance(a[i], b[j]) for i in range(n) for j in range(n) if i != j])
    return 2 * mean(x, y) - mean(x, x) - mean(y, y)

def distances(distance, repeats, points, step):
    """The distance of cells 0 and 1, and that without each repeat."""
    x, y = (labels(cell, repeats, points, step) for cell in (0, 1))
    keep = [np.arange(repeats) != r for r in range(repeats)]
    return energy(x, y, distance), np.array([energy(x[k], y[k], distance) for k in keep])

def upper_tail_of_distance(effect, half):
    """What the upper end of a distance's interval is above Student's, on the scale of cube roots. Needs a distance above half its width."""
    assert effect > half
    root = np.cbrt(effect)
    return (root + half / (3 * root ** 2)) ** 3 - effect - half

def distance_interval(theta, without):
    """Student's interval of a distance, whose upper end is taken on the scale of cube roots."""
    effect, low, high = student(theta, [without], len(without) - 1)
    return [effect, low, float(high + upper_tail_of_distance(effect, high - effect))]

def fieller(distance, repeats, points):
    """The ratio of the distance at step 100 to that at step 50, with Fieller's interval, and the upper tail of the former."""
    (a, without_a), (b, without_b) = (distances(distance, repeats, points, step) for step in (100, 50))
    cov = np.cov(without_a, without_b, ddof=0) * (repeats - 1)
    t = stats.t.ppf(1 - ALPHA, repeats - 1)
    low, high = np.roots([b * b - t * t * cov[1, 1], -2 * (a * b - t * t * cov[0, 1]), a * a - t * t * cov[0, 0]])[::-1]
    tail = upper_tail_of_distance(a, t * np.sqrt(cov[0, 0]))
    return [float(a / b), float(min(low, high)), float(max(low, high) + tail / b)]

out = {"alpha": ALPHA, "binomial": [], "forms": []}
for k, n in [(0, 59), (0, 1), (1, 10), (5, 10), (10, 10), (37, 400), (3, 100000), (999, 1000)]:
    ci = stats.binomtest(k, n).proportion_ci(confidence_level=1 - 2 * ALPHA, method="exact")
    p = 0.03
    out["binomial"].append({"k": k, "n": n, "low": float(ci.low), "high": float(ci.high), "p": p,
                            "above": float(stats.binom.sf(k - 1, n, p)), "below": float(stats.binom.cdf(k, n, p))})
for n in [3, 5, 12]:
    x = values(3, n)
    slope = lambda m: np.polyfit(np.log([1, 2, 4]), np.log(m), 1)[0]
    out["forms"].append({"n": n, "value": jackknifed(lambda m: m[0], x), "difference": jackknifed(lambda m: m[1] - m[0], x),
                         "ratio": [float(v) for v in np.exp(jackknifed(lambda m: np.log(m[1] / m[0]), x))],
                         "slope": jackknifed(slope, x)})
out["crossed"] = {"sizes": [3, 4], "value": crossed(values(1, 12), [3, 4])}
unequal = lambda a, b: np.mean(a != b)
root = lambda a, b: np.sqrt(np.mean(a != b))
out["labels"] = {"repeats": 12, "points": 20,
                 **{name: distance_interval(*distances(d, 12, 20, 50))
                    for name, d in [("by_point", unequal), ("joint", root)]},
                 **{f"{name}_relative": fieller(d, 12, 20) for name, d in [("by_point", unequal), ("joint", root)]}}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "claims.json"), "w") as f:
    json.dump(out, f, indent=1); f.write("\n")
