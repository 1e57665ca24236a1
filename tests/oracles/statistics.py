"""Statistics by NumPy, SciPy and statsmodels as an oracle. Regenerate: `python tests/oracles/statistics.py` (needs the three);
writes statistics.json beside it.

Value i of a sample: z = fnv1a64(name) + i*0x9E3779B97F4A7C15 (mod 2^64), splitmix64's finaliser, u = (z >> 11)/2^53. By its
shape: "uniform" u; "cubed" u*u*u; "coarse" floor(20*u)/20; "offset" 10^6 + floor(2^20*u)/2^20, which is exact.
Quantiles are text, since not every reader of JSON keeps the last bit of a number."""
import json, math, os
from fractions import Fraction
import numpy as np, scipy, statsmodels
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

def bits(name, n):
    h = np.uint64(0xcbf29ce484222325)
    with np.errstate(over="ignore"):
        for c in name.encode(): h = (h ^ np.uint64(c)) * np.uint64(0x100000001b3)
        z = h + np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9); z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return z ^ z >> np.uint64(31)

def sample(name, shape, n):
    u = (bits(name, n) >> np.uint64(11)).astype(float) / 2**53
    return {"uniform": u, "cubed": u * u * u, "coarse": np.floor(20 * u) / 20, "offset": 1e6 + np.floor(2**20 * u) / 2**20}[shape]

def large(name, n):
    x = sample(name, "offset", n)
    k = [int(v) for v in np.round((x - 1e6) * 2**20)]
    mean = Fraction(sum(k), n * 2**20) + 10**6
    var = (Fraction(sum(v * v for v in k)) - Fraction(sum(k) ** 2, n)) / (n - 1) / 2**40
    assert abs(np.mean(x) / float(mean) - 1) < 1e-12 and abs(np.var(x, ddof=1) / float(var) - 1) < 1e-9
    return {"name": name, "n": n, "mean": float(mean), "var": float(var)}

def summary(name, shape, n):
    x, se = sample(name, shape, n), None
    r = stats.ttest_1samp(x, 0)
    cis = {f"{l:g}": [float(c) for c in r.confidence_interval(l)] for l in (0.9, 0.95, 0.99, 0.999)}
    q = {f"{p:g}": repr(float(np.quantile(x, p))) for p in (0, 0.05, 0.1, 0.25, 0.333, 0.5, 0.75, 0.95, 0.975, 0.999, 1)}
    return {"name": name, "shape": shape, "n": n, "mean": float(np.mean(x)), "std": float(np.std(x, ddof=1)), "se": float(stats.sem(x)),
            "ci": cis, "quantiles": q, "trim10": float(stats.trim_mean(x, 0.1)), "iqm": float(stats.trim_mean(x, 0.25))}

def bootstrap(name, shape, n, level):
    x = sample(name, shape, n)
    def ends(resamples, seed):
        ci = stats.bootstrap((x,), np.mean, n_resamples=resamples, confidence_level=level, method="BCa", rng=seed, vectorized=True, batch=2000)
        return [float(ci.confidence_interval.low), float(ci.confidence_interval.high)]
    spread = np.std([ends(9999, seed) for seed in range(40)], axis=0, ddof=1)
    return {"name": name, "shape": shape, "n": n, "level": level, "ends": ends(400_000, 99), "spread": [float(s) for s in spread]}

def paired(name, shape, n, pull):
    """The cell is pull·baseline + (1 − pull)·another sample + 0.02; coarse ones are added in twentieths."""
    b, c = sample(name + "/b", shape, n), sample(name + "/c", shape, n)
    a = c + 0.05 if shape == "coarse" else pull * b + (1 - pull) * c + 0.02
    d = np.round(a - b, 12)  # equal differences of decimals are ties, whatever their rounding
    up, down = int((d > 0).sum()), int((d < 0).sum())
    w = stats.wilcoxon(d)
    plain = not (d == 0).any() and len(set(np.abs(d))) == n
    exact = n <= (50 if plain else 13)
    other = stats.wilcoxon(d, method="exact" if exact and plain else "asymptotic" if not exact else "auto", correction=False)
    assert abs(w.pvalue - other.pvalue) < 1e-15
    t = stats.ttest_rel(a, b)
    return {"name": name, "shape": shape, "n": n, "pull": pull, "difference": float(np.mean(a - b)), "std": float(np.std(a - b, ddof=1)),
            "ci95": [float(e) for e in t.confidence_interval(0.95)], "sign_p": float(stats.binomtest(min(up, down), up + down).pvalue),
            "wilcoxon_p": float(w.pvalue), "exact": exact, "correlation": float(np.corrcoef(a, b)[0, 1]),
            "unpaired": float(n * (np.var(a, ddof=1) + np.var(b, ddof=1)) / np.var(a - b, ddof=1))}

ps = [[0.01, 0.04, 0.03], [0.5, 0.001, 0.2, 0.2, 0.04, 1.0, 0.0002], [0.9, 0.8]]
out = {
    "versions": {"numpy": np.__version__, "scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
    "large": [large("large", 10**6)],
    "t": [[p, df, float(stats.t.ppf(p, df))] for p in (0.75, 0.95, 0.975, 0.995, 0.9995) for df in (1, 2, 3, 4, 5, 7, 10, 19, 30, 99, 499, 10**4, 10**6)],
    "normal": [[p, float(stats.norm.ppf(p))] for p in (1e-12, 1e-5, 0.001, 0.02, 0.3, 0.5, 0.6, 0.9, 0.975, 0.9995)],
    "summaries": [summary(f"s{n}", shape, n) for shape in ("uniform", "cubed", "coarse") for n in (2, 3, 5, 10, 37, 500)],
    "wilson": [[k, n, l, *map(float, proportion_confint(k, n, 1 - l, method="wilson"))] for l in (0.9, 0.95, 0.99) for k, n in ((0, 1), (1, 1), (0, 20), (3, 20), (10, 20), (20, 20), (7, 500), (250, 500))],
    "sign": [[k, n, float(stats.binomtest(k, n).pvalue)] for k, n in ((0, 1), (0, 2), (1, 5), (3, 12), (6, 12), (9, 40), (200, 500), (248, 500), (4500, 10000), (498000, 1000000))],
    "paired": [paired(f"{shape}{n}/{pull:g}", shape, n, pull) for shape, pull in (("uniform", 0.5), ("uniform", 0.95), ("cubed", 0.8), ("coarse", 0.0)) for n in (2, 5, 10, 13, 14, 30, 50, 51, 200)],
    "holm": [{"p": p, "adjusted": [float(a) for a in multipletests(p, method="holm")[1]]} for p in ps],
    "bootstrap": [bootstrap("boot", shape, n, level) for shape in ("uniform", "cubed") for n, level in ((20, 0.95), (100, 0.95), (100, 0.99))],
}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "statistics.json"), "w") as f:
    f.write(json.dumps(out, separators=(",", ":")).replace('},{', '},\n{') + "\n")
