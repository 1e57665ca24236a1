"""Short trainings in plain PyTorch (float64, CPU) as an oracle. Regenerate: `python tests/oracles/trajectories.py`
(needs torch); writes trajectories.json beside it.

Value i of tensor t: z = fnv1a64(t) + i*0x9E3779B97F4A7C15 (mod 2^64), splitmix64's finaliser, u = (z >> 40)/2^23 - 1.
Weight: u*sqrt(3)*sqrt(2/fan_in); bias, shift 0; scale 1. Image b (0 or 1): tensor "batch<b>.images<salt>", u*sqrt(3), [n,h,w,c].
Label i: finalised z of "batch<b>.labels" mod 10. Step s uses batch s%2; logits are those of batch 0 at the end.
Weights [kh,kw,in,out] or [in,out]; weight decay acts on every parameter; layer norm = group norm with one group.
AdamW: betas 0.9 and 0.999, epsilon 1e-8. vgg: 11 layers, full widths over 16. Running statistics: momentum 0.1, unbiased variance."""
import hashlib, json, math, os, torch, torch.nn.functional as F
torch.set_default_dtype(torch.float64); torch.set_num_threads(1); M = 2**64 - 1
def bits(t, n):
    h = 0xcbf29ce484222325
    for c in t.encode(): h = ((h ^ c) * 0x100000001b3) & M
    for i in range(n):
        z = (h + i * 0x9E3779B97F4A7C15) & M
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & M; z = ((z ^ z >> 27) * 0x94D049BB133111EB) & M
        yield z ^ z >> 31
def values(t, shape, scale): return (torch.tensor([(z >> 40) / 2**23 - 1 for z in bits(t, math.prod(shape))]) * scale * math.sqrt(3)).reshape(shape)
class Net:
    def __init__(s, c): s.c, s.p, s.r, s.train, s.noise = c, {}, {}, True, None
    def par(s, n, make):
        if n not in s.p: s.p[n] = make().requires_grad_()
        return s.p[n]
    def map(s, x, n, out, k=0, st=1):
        y = s.linear(x, n, out, k, st)
        return y if s.noise is None else y * (1 + 2e-7 * torch.randn(y.shape, generator=s.noise))
    def linear(s, x, n, out, k, st):
        i = x.shape[1] if k else x.flatten(1).shape[1]; sh = (k, k, i, out) if k else (i, out)
        w = s.par(n + ".weight", lambda: values(n + ".weight", sh, math.sqrt(2 / math.prod(sh[:-1]))))
        b = s.par(n + ".bias", lambda: torch.zeros(out)) if s.c["norm"] == "none" else None
        if k: return F.conv2d(x, w.permute(3, 2, 0, 1), b, st, k // 2)
        y = (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).flatten(1) @ w
        return y if b is None else y + b
    def norm(s, x, n):
        k, c = s.c["norm"], x.shape[1]; g = h = None
        if k == "none": return x
        if s.c["affine"]: g, h = s.par(n + ".norm.scale", lambda: torch.ones(c)), s.par(n + ".norm.shift", lambda: torch.zeros(c))
        if k != "batch": return F.group_norm(x, 4 if k == "group" else 1, g, h, 1e-5)
        m, v = s.r.setdefault(n, (torch.zeros(c), torch.ones(c)))
        return F.batch_norm(x, m, v, g, h, s.train, 0.1, 1e-5)
    def __call__(s, x):
        a = s.c["arch"]; x = x.permute(0, 3, 1, 2); act = lambda x, n: F.relu(s.norm(x, n))
        if a == "mlp":
            for i, o in enumerate((16, 12)): x = act(s.map(x, f"fc{i+1}", o), f"fc{i+1}")
        elif a == "cnn4":
            for i, (o, t) in enumerate(((4, 1), (8, 2), (16, 2), (16, 2))): x = act(s.map(x, f"conv{i+1}", o, 3, t), f"conv{i+1}")
        elif a == "vgg11":
            for i, (o, q) in enumerate(((4, 1), (8, 1), (16, 0), (16, 1), (32, 0), (32, 1), (32, 0), (32, 1))):
                x = act(s.map(x, f"conv{i+1}", o, 3), f"conv{i+1}"); x = F.max_pool2d(x, 2) if q else x
        else:
            x, n = s.map(x, "stem", 16, 3), "stem"
            for b, (o, t) in enumerate(((16, 1), (32, 2), (64, 2))):
                l = f"block{b+1}"; h = act(x, n)
                r = s.map(h, l + ".shortcut", o, 1, t) if t > 1 else x
                n = l + ".conv2"; x = s.map(act(s.map(h, l + ".conv1", o, 3, t), l + ".conv1"), n, o, 3) + r
            x = act(x, n).mean((2, 3))
        return s.map(x, "head", 10)
SHAPE = {"mlp": (5, 5, 1), "cnn4": (8, 8, 3), "preresnet8": (8, 8, 3), "vgg11": (32, 32, 3)}
def some(t, k): f = t.detach().reshape(-1); return f[::max(1, -(-f.numel() // k))].tolist()
def run(c, dtype=torch.float64, noise=0):
    """Noise: the seed of changes to every map's output by 2e-7 of its size, as rounding makes them in sums of float32; 0 for none."""
    torch.set_default_dtype(dtype)
    data = [(values(f"batch{b}.images{c['salt']}", (c["batch"], *SHAPE[c["arch"]]), 1.), torch.tensor([z % 10 for z in bits(f"batch{b}.labels", c["batch"])])) for b in (0, 1)]
    net = Net(c); net.train = False
    with torch.no_grad(): net(data[0][0])
    if noise: net.noise = torch.Generator().manual_seed(noise)
    net.train = True; ps = list(net.p.values()); w0 = {n: p.detach().clone() for n, p in net.p.items()}
    o = torch.optim.AdamW(ps, c["lr"], (.9, .999), 1e-8, .05) if c["optimizer"] == "adamw" else torch.optim.SGD(ps, c["lr"], .9, weight_decay=.05, nesterov=c["nesterov"])
    L, W = [], []
    for s in range(20):
        x, y = data[s % 2]; l = F.cross_entropy(net(x), y, label_smoothing=c["smoothing"]); o.zero_grad(); l.backward(); o.step()
        L.append(l.item()); W.append(sum((p.detach()**2).sum() for p in ps).item())
    net.train = False; d = {n: p.detach() - w0[n] for n, p in net.p.items()}
    return dict(config=c, losses=L, norm2=W, params={n: dict(shape=list(t.shape), distance=t.norm().item(), stride=max(1, -(-t.numel() // 32)), delta=some(t, 32)) for n, t in d.items()},
        running={n: dict(mean=m[:16].tolist(), var=v[:16].tolist()) for n, (m, v) in net.r.items()}, logits=net(data[0][0]).detach().reshape(-1)[:40].tolist())
def fall(r): return 1 - sum(r["losses"][-2:]) / sum(r["losses"][:2])
def apart(a, b):
    """Largest relative distance of two runs' logits and changes of parameters: how far PyTorch's own float32 strays
    from its float64."""
    pairs = [(a["logits"], b["logits"])] + [(a["params"][n]["delta"], b["params"][n]["delta"]) for n in a["params"]]
    d = max(math.dist(x, y) / math.hypot(*x, 1e-12) for x, y in pairs)
    return d if math.isfinite(d) else math.inf
def choose(c, rates=(.1, .07, .05, .03, .02, .01, .005, .003, .001)):
    """The run whose loss falls most among those that do not amplify rounding errors: neither float32's nor small changes
    of its sums take it across the kink of a ReLU or a maximum. Other images where there is none."""
    for salt in range(12):
        best = None
        for lr in rates:
            d = dict(c, lr=lr, salt=salt); r = run(d)
            # Where a loss has vanished, AdamW's steps are as large as ever, and their directions rounding.
            if fall(r) < .3 or best and fall(r) <= fall(best) or c["optimizer"] == "adamw" and fall(r) > .995: continue
            if apart(r, run(d, torch.float32)) < 5e-5 and all(apart(r, run(d, noise=n)) < 5e-5 for n in range(1, 7)): best = r
        if best: return best
cases = []
for a in SHAPE:
    for k in ("batch", "group", "layer", "none"):
        for B in (4, 32):
            c = dict(arch=a, norm=k, groups=4, batch=B, affine=k == "group" or (k == "batch" and B == 4), momentum=.9, nesterov=B == 32, weight_decay=.05, eps=1e-5,
                smoothing=.1 if (a, k, B) == ("mlp", "layer", 32) else 0., optimizer="sgd")
            wanted = [c]
            if k in ("layer", "none") and B == 4: wanted.append(dict(c, optimizer="adamw", nesterov=False))
            for c in wanted:
                r = choose(c)
                assert r and fall(r) >= .3, (a, k, B, r and fall(r))
                cases.append(r); print(a, k, B, c["optimizer"], r["config"]["lr"], f"{fall(r):.3f}", flush=True)
out = os.path.splitext(os.path.abspath(__file__))[0] + ".json"
json.dump(dict(torch=torch.__version__, sha256=hashlib.sha256(open(__file__, "rb").read()).hexdigest(), cases=cases), open(out, "w"), separators=(",", ":"))
