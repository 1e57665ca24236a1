"""Claims by NumPy and SciPy as an oracle. Regenerate: `python tests/oracles/claims.py` (needs both); writes claims.json beside it.

Value (cell, repeat) is 1 + cell + u, with u = frac((1 + cell)*sqrt(2) + (1 + repeat)*sqrt(3)), rounded to 2^-20, so that both
sides have the same bits."""
import json, os
import numpy as np
from scipy import stats

ALPHA = 0.05
# How many times what resampling moves a number of a mean curve by its interval is widened.
BIAS_FACTOR = 2 / (np.sqrt(2) - 1)

def values(cells, repeats):
    c, r = np.meshgrid(np.arange(cells), np.arange(repeats), indexing="ij")
    u = np.modf((1 + c) * np.sqrt(2) + (1 + r) * np.sqrt(3))[0]
    return 1 + c + np.round(u * 2**20) / 2**20

def student(theta, without, degrees, alpha=ALPHA):
    """Effect and interval by the jackknife over the streams' groups."""
    parts = [(len(w) - 1) / len(w) * np.sum((w - np.mean(w)) ** 2) for w in without]
    variance = sum(parts)
    if degrees is None:
        degrees = variance / sum(p / (len(w) - 1) for p, w in zip(parts, without))
    half = stats.t.ppf(1 - alpha, degrees) * np.sqrt(variance)
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

def alpha_of(distance):
    """Each end of a joint distance is taken at half of alpha."""
    return ALPHA / 2 if distance is root else ALPHA

def distance_interval(theta, without, alpha):
    """Student's interval of a distance, whose upper end is taken on the scale of cube roots."""
    effect, low, high = student(theta, [without], len(without) - 1, alpha)
    return [effect, low, float(high + upper_tail_of_distance(effect, high - effect))]

def fieller(distance, repeats, points):
    """The ratio of the distance at step 100 to that at step 50, with Fieller's interval, and the upper tail of the former."""
    (a, without_a), (b, without_b) = (distances(distance, repeats, points, step) for step in (100, 50))
    cov = np.cov(without_a, without_b, ddof=0) * (repeats - 1)
    t = stats.t.ppf(1 - alpha_of(distance), repeats - 1)
    low, high = np.roots([b * b - t * t * cov[1, 1], -2 * (a * b - t * t * cov[0, 1]), a * a - t * t * cov[0, 0]])[::-1]
    tail = upper_tail_of_distance(a, t * np.sqrt(cov[0, 0]))
    return [float(a / b), float(min(low, high)), float(max(low, high) + tail / b)]

def spread(x):
    """The ratio of the pair of cells that are farthest apart, with the interval of its logarithm's jackknife."""
    pairs = [jackknifed(lambda m, a=a, b=b: np.log(m[a] / m[b]), x) for a in range(len(x)) for b in range(a + 1, len(x))]
    e, low, high = max(pairs, key=lambda pair: abs(pair[0]))
    ends = sorted([np.sign(e) * low, np.sign(e) * high])
    return [float(v) for v in np.exp([abs(e), max(ends[0], 0), ends[1]])]

def crossed_distances(distance, sizes, points, step):
    """The distance of cells 0 and 1 over pairs of repeats that share no level, with the jackknife over levels of both streams."""
    n = sizes[0] * sizes[1]
    x, y = (labels(cell, n, points, step) for cell in (0, 1))
    groups = [np.arange(n) // sizes[1], np.arange(n) % sizes[1]]
    def energy_of(keep):
        pairs = [(i, j) for i in range(n) for j in range(n) if keep[i] and keep[j] and all(g[i] != g[j] for g in groups)]
        mean = lambda a, b: np.mean([distance(a[i], b[j]) for i, j in pairs])
        return 2 * mean(x, y) - mean(x, x) - mean(y, y)
    without = [np.array([energy_of(g != l) for l in range(max(g) + 1)]) for g in groups]
    effect, low, high = student(energy_of(np.ones(n, bool)), without, None, alpha_of(distance))
    return [effect, low, float(high + upper_tail_of_distance(effect, high - effect))]

def deciding(hits, trials, low, high):
    """The least number of trials that shows whether a share is in [low, high] or not, with the same share of hits, and the least from
    which on all do."""
    def decides(n):
        k = int(np.floor(hits * n / trials + 0.5))
        above = stats.binom.sf(k - 1, n, low) if low > 0 else 0.0
        below = stats.binom.cdf(k, n, high) if high < 1 else 0.0
        ends = [p for p, is_bound in [(stats.binom.cdf(k, n, low), low > 0), (stats.binom.sf(k - 1, n, high), high < 1)] if is_bound]
        return max(above, below) <= ALPHA or min(1.0, len(ends) * min(ends)) <= ALPHA
    found = [n for n in range(trials + 1, 4000) if decides(n)]
    gaps = [n for n in range(trials + 1, 4000) if not decides(n)]
    return found[0], max(gaps, default=trials) + 1

STEPS = 5.0 * np.arange(1, 21)

def curves(repeats):
    """Curves that fall to 1 and stay there, by repeat and sample."""
    r, t = np.meshgrid(np.arange(repeats), np.arange(1, 21), indexing="ij")
    u = np.modf((1 + r) * np.sqrt(2) + t * np.sqrt(3))[0]
    return np.maximum(3.0 - t / 5.0, 1.0) + np.round(u * 2**20) / 2**20 / 4

def draws(repeats, count):
    """How often each repeat is drawn, by a linear congruential generator."""
    state, out = 1, np.zeros((count, repeats), int)
    for row in out:
        for _ in range(repeats):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            row[(state >> 33) % repeats] += 1
    return out

def first(y, level):
    """The first step below a level, and those of the samples around it."""
    at = int(np.argmax(y < level))
    return [STEPS[at], STEPS[max(at - 1, 0)], STEPS[at]]

def settle(y, tolerance):
    apart = np.abs(np.log(y) - np.log(y[STEPS >= 60].mean()))
    last = int(np.flatnonzero(apart > tolerance * apart[0])[-1])
    step = np.interp(-tolerance * apart[0], -apart[last:last + 2], STEPS[last:last + 2])
    return [float(step), STEPS[last], STEPS[last + 1]]

def count(y, level):
    return int(np.sum(np.diff(np.concatenate([[0], (y < level).astype(int)])) == 1))

def same(x):
    return [float(x)] * 3

# Each gives a number, and that with its event at the samples around it.
REDUCERS = {
    "min(train_loss, 55..)": lambda y: same(y[STEPS >= 55].min()),
    "max(train_loss, 55..)": lambda y: same(y[STEPS >= 55].max()),
    "quantile(train_loss, 0.9, 55..)": lambda y: same(np.quantile(y[STEPS >= 55], 0.9)),
    "first(train_loss < 1.75)": lambda y: first(y, 1.75),
    "settle(train_loss, 0.2)": lambda y: settle(y, 0.2),
    "count(train_loss < 1.125)": lambda y: same(count(y, 1.125)),
}
SMOOTH_REDUCERS = {
    "at(train_loss, 52)": lambda y: same(y[STEPS <= 52][-1]),
    "mean(train_loss, 20..70)": lambda y: same(y[(STEPS >= 20) & (STEPS <= 70)].mean()),
    "sd(train_loss, last 40 %)": lambda y: same(np.std(y[STEPS >= 60], ddof=1)),
    "jump(train_loss, 52)": lambda y: same(y[STEPS > 52][0] / y[STEPS <= 52][-1]),
    "slope(ln(train_loss), ln(step), ..50)": lambda y: same(np.polyfit(np.log(STEPS[:10]), np.log(y[:10]), 1)[0]),
}

def resampled(reduce, x, resamples):
    """A number of the mean curve with the interval of resampled repeats: the widest of Student's, of BCa, of what noise moves it by,
    and of the samples around its event."""
    n = len(x)
    number = lambda weights: reduce(weights @ x / weights.sum())[0]
    theta, *around = reduce(x.mean(axis=0))
    found = np.array([number(w.astype(float)) for w in resamples])
    without = np.array([number(1.0 - np.eye(n)[r]) for r in range(n)])
    widening = np.sqrt(n / (n - 1))
    sd = np.std(found, ddof=1) * widening
    half = stats.t.ppf(1 - ALPHA, n - 1) * sd
    rounding = 1e-15 * abs(theta)
    apart = found - theta
    below = np.mean(apart < -rounding) + 0.5 * np.mean(np.abs(apart) <= rounding)
    z0 = stats.norm.ppf(np.clip(below, 0.5 / len(found), 1 - 0.5 / len(found)))
    skew = without.mean() - without
    a = (skew ** 3).sum() / (6 * (skew ** 2).sum() ** 1.5) if (skew ** 2).sum() > 0 else 0.0
    bca = [theta + np.quantile(apart, stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))) for z in stats.norm.ppf([ALPHA, 1 - ALPHA])]
    low, high = min(theta - half, bca[0]), max(theta + half, bca[1])
    moved = BIAS_FACTOR * (found.mean() - theta) * widening
    low, high = low - max(moved, 0), high - min(moved, 0)
    return [float(theta), float(min([low, *around])), float(max([high, *around]))]

out = {"alpha": ALPHA, "binomial": [], "forms": [], "deciding": [], "reducers": {}, "mean_curves": []}
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
                         "slope": jackknifed(slope, x), "spread": spread(x)})
for keys, hits, trials, low, high in [("above = 0.8", 10, 10, 0.8, 1), ("above = 0.9", 12, 12, 0.9, 1), ("below = 0.1", 0, 20, 0, 0.1),
                                      ("above = 0.7", 17, 20, 0.7, 1), ("below = 0.5", 5, 12, 0, 0.5), ("within = [0.2, 0.6]", 8, 20, 0.2, 0.6),
                                      ("above = 0.95", 17, 20, 0.95, 1)]:
    needed = deciding(hits, trials, low, high)
    out["deciding"].append({"keys": keys, "hits": hits, "trials": trials, "needed": list(needed)})
for of, reduce in {**SMOOTH_REDUCERS, **REDUCERS}.items():
    out["reducers"][of] = [reduce(y) for y in curves(3)]
for n in [5, 12]:
    x, resamples = curves(n), draws(n, 400)
    out["mean_curves"].append({"repeats": n, "resamples": 400,
                               "numbers": {of: resampled(reduce, x, resamples) for of, reduce in REDUCERS.items()}})
out["crossed"] = {"sizes": [3, 4], "value": crossed(values(1, 12), [3, 4])}
unequal = lambda a, b: np.mean(a != b)
root = lambda a, b: np.sqrt(np.mean(a != b))
out["labels"] = {"repeats": 12, "points": 20,
                 **{name: distance_interval(*distances(d, 12, 20, 50), alpha_of(d))
                    for name, d in [("by_point", unequal), ("joint", root)]},
                 **{f"{name}_relative": fieller(d, 12, 20) for name, d in [("by_point", unequal), ("joint", root)]}}
out["crossed_labels"] = {"sizes": [3, 4], "points": 20, **{name: crossed_distances(d, [3, 4], 20, 50)
                                                         for name, d in [("by_point", unequal), ("joint", root)]}}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "claims.json"), "w") as f:
    json.dump(out, f, indent=1); f.write("\n")
