"""Short trainings of networks that are written as lists of layers, in plain PyTorch (float64, CPU), as an oracle. Regenerate:
`python -P tests/oracles/layers.py` (needs torch); writes layers.json beside it.

Everything is as in trajectories.py but the networks. Each is here as the list that the trainer reads, and again as PyTorch's own functions."""
import json, os, torch, torch.nn.functional as F
here = os.path.dirname(os.path.abspath(__file__))
# Everything before its cases.
exec(open(os.path.join(here, "trajectories.py")).read().split("\ncases = []")[0])
class Layers(Net):
    def conv(s, x, n, out, k=3, st=1, bias=False):
        i = x.shape[1]; w = s.par(n + ".weight", lambda: values(n + ".weight", (k, k, i, out), math.sqrt(2 / (k * k * i))))
        y = F.conv2d(x, w.permute(3, 2, 0, 1), s.par(n + ".bias", lambda: torch.zeros(out)) if bias else None, st, (k - 1) // 2)
        return s.shaken(y)
    def full(s, x, n, out, bias=True):
        x = (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).flatten(1)
        w = s.par(n + ".weight", lambda: values(n + ".weight", (x.shape[1], out), math.sqrt(2 / x.shape[1])))
        b = s.par(n + ".bias", lambda: torch.zeros(out)) if bias else 0
        return s.shaken(x @ w + b)
    def shaken(s, y): return y if s.noise is None else y * (1 + 2e-7 * torch.randn(y.shape, generator=s.noise))
    def normed(s, x, n, k, affine=False, groups=1):
        c = x.shape[1]; g = h = None
        if affine: g, h = s.par(n + ".norm.scale", lambda: torch.ones(c)), s.par(n + ".norm.shift", lambda: torch.zeros(c))
        if k == "group": return F.group_norm(x, groups, g, h, 1e-5)
        m, v = s.r.setdefault(n, (torch.zeros(c), torch.ones(c)))
        return F.batch_norm(x, m, v, g, h, s.train, 0.1, 1e-5)
    def __call__(s, x): return NETS[s.c["arch"]][1](s, x.permute(0, 3, 1, 2))
def tanh_mlp(s, x): return s.full(torch.tanh(s.full(torch.tanh(s.full(x, "fc1", 24)), "fc2", 16)), "head", 10)
def gelu_residual(s, x):
    x = F.avg_pool2d(F.gelu(s.normed(s.conv(x, "conv1", 8), "conv1", "batch", True)), 2)
    x = F.gelu(s.normed(s.conv(x, "conv2", 8) + x, "conv2", "batch", True))
    return s.full(F.avg_pool2d(x, 2), "head", 10)
def leaky_shortcuts(s, x):
    f = lambda x: F.leaky_relu(x, 0.01)
    a = f(s.conv(x, "conv1", 12, bias=True)); b = f(s.conv(a, "conv2", 12, bias=True) + a)
    c = f(s.conv(b, "conv3", 16, 3, 2, bias=True) + s.conv(b, "conv3.shortcut", 16, 1, 2, bias=True))
    return s.full(F.max_pool2d(c, 2), "head", 10)
def silu_image(s, x):
    a = F.silu(s.normed(s.conv(x, "a", 8, 5), "a", "group", True, 4))
    b = F.silu(s.normed(s.conv(a, "b", 16, 3, 2) + s.conv(x, "b.shortcut", 16, 1, 2), "b", "group", True, 4))
    return s.full(b, "head", 10)
def softplus_pooled(s, x):
    x = F.softplus(s.normed(s.conv(F.avg_pool2d(x, 2), "conv1", 8), "conv1", "group"))
    return s.full(F.softplus(s.full(x, "fc1", 12)), "head", 10)
def biased_sum(s, x):
    a = s.conv(x, "a", 8, bias=True)
    b = torch.tanh(s.normed(s.conv(torch.tanh(a), "b", 8) + a, "b", "group", False, 4))
    return s.full(F.avg_pool2d(b, 2), "head", 10)
def biased_batch_sum(s, x):
    a = s.conv(x, "a", 8, bias=True)
    b = torch.tanh(s.normed(s.conv(torch.tanh(a), "b", 8) + a, "b", "batch"))
    return s.full(F.avg_pool2d(b, 2), "head", 10)
NETS = {
    "tanh-mlp": ('activation = "tanh"\nnorm = "none"\nlayers = [{ linear = 24 }, { linear = 16 }, { linear = "classes" }]', tanh_mlp),
    "gelu-residual": ('activation = "gelu"\naffine = true\nlayers = [{ conv = 8 }, { pool = "avg2" }, { conv = 8, add = "conv2.in" }, { pool = "avg2" }, '
        '{ linear = "classes", bias = true }]', gelu_residual),
    "leaky-shortcuts": ('activation = "leaky-relu"\nnorm = "none"\nlayers = [{ conv = 12 }, { conv = 12, add = "conv2.in" }, '
        '{ conv = 16, stride = 2, add = "conv3.in" }, { pool = "max2" }, { linear = "classes" }]', leaky_shortcuts),
    "silu-image": ('activation = "silu"\nnorm = "group"\ngroups = 4\naffine = true\nlayers = [{ name = "a", conv = 8, kernel = 5 }, '
        '{ name = "b", conv = 16, stride = 2, add = "a.in" }, { linear = "classes", bias = true }]', silu_image),
    "softplus-pooled": ('activation = "softplus"\nnorm = "layer"\nlayers = [{ pool = "avg2" }, { conv = 8 }, { linear = 12, norm = "none", bias = true }, '
        '{ linear = "classes", bias = true }]', softplus_pooled),
    "biased-sum": ('activation = "tanh"\nnorm = "group"\ngroups = 4\nlayers = [{ name = "a", conv = 8, norm = "none", bias = true }, '
        '{ name = "b", conv = 8, add = "a.sum" }, { pool = "avg2" }, { linear = "classes", bias = true }]', biased_sum),
    "biased-batch-sum": ('activation = "tanh"\nlayers = [{ name = "a", conv = 8, norm = "none", bias = true }, '
        '{ name = "b", conv = 8, add = "a.sum" }, { pool = "avg2" }, { linear = "classes", bias = true }]', biased_batch_sum),
}
SHAPE = {n: (8, 8, 3) for n in NETS}; Net = Layers; cases = []
for a, (text, _) in NETS.items():
    for B, o in ((12, "sgd"), (5, "adamw")):
        if (a, o) in (("gelu-residual", "adamw"), ("leaky-shortcuts", "adamw")): continue
        r = choose(dict(arch=a, layers=text, norm="", groups=4, batch=B, affine=False, momentum=.9, nesterov=o == "sgd" and a > "l", weight_decay=.05, eps=1e-5, smoothing=0., optimizer=o))
        assert r and fall(r) >= .3, (a, B, r and fall(r))
        cases.append(r); print(a, B, o, r["config"]["lr"], f"{fall(r):.3f}", flush=True)
json.dump(dict(torch=torch.__version__, cases=cases), open(os.path.join(here, "layers.json"), "w"), separators=(",", ":"))
