"""Short trainings with other optimizers and steps in plain PyTorch (float64, CPU) as an oracle. Regenerate:
`python -P tests/oracles/optimizers.py` (needs torch); writes optimizers.json beside it.

Everything is as in trajectories.py but the step. clip_norm: torch.nn.utils.clip_grad_norm_ on all parameters. lr_on: a parameter
group for each parameter, its learning rate multiplied by the factors of its role (weights, biases, norms), of `head` and of its
layer. adam: torch.optim.Adam with weight_decay. rho: sharpness-aware minimization as it is commonly written, w + rho*g/(|g| + 1e-12)
over all parameters, the second gradient on the same batch while running statistics stay; the loss is that of the first pass, and
clip_norm acts on the second gradient."""
import json, os
here = os.path.dirname(os.path.abspath(__file__))
# Everything before its cases.
exec(open(os.path.join(here, "trajectories.py")).read().split("\ncases = []")[0])
def factor(c, name):
    layer, role = name.replace(".norm.", ".").rsplit(".", 1)
    roles = {"weight": "weights", "bias": "biases", "scale": "norms", "shift": "norms"}
    f = c["lr_on"] or {}
    return f.get(roles[role], 1) * f.get(layer, 1)
def optimizer(c, named):
    groups = [dict(params=[p], lr=c["lr"] * factor(c, n)) for n, p in named.items()]
    if c["optimizer"] == "sgd": return torch.optim.SGD(groups, c["lr"], .9, weight_decay=.05, nesterov=c["nesterov"])
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[c["optimizer"]](groups, c["lr"], (.9, .999), 1e-8, .05)
def run(c, dtype=torch.float64, noise=0):
    torch.set_default_dtype(dtype)
    data = [(values(f"batch{b}.images{c['salt']}", (c["batch"], *SHAPE[c["arch"]]), 1.), torch.tensor([z % 10 for z in bits(f"batch{b}.labels", c["batch"])])) for b in (0, 1)]
    net = Net(c); net.train = False
    with torch.no_grad(): net(data[0][0])
    if noise: net.noise = torch.Generator().manual_seed(noise)
    net.train = True; ps = list(net.p.values()); w0 = {n: p.detach().clone() for n, p in net.p.items()}
    o = optimizer(c, net.p); L, W, clipped = [], [], 0
    for s in range(20):
        x, y = data[s % 2]
        def gradient():
            l = F.cross_entropy(net(x), y, label_smoothing=c["smoothing"]); o.zero_grad(); l.backward(); return l.item()
        L.append(gradient())
        if c["rho"]:
            kept = {n: (m.clone(), v.clone()) for n, (m, v) in net.r.items()}; before = [p.detach().clone() for p in ps]
            with torch.no_grad():
                scale = c["rho"] / (torch.norm(torch.stack([p.grad.norm() for p in ps])) + 1e-12)
                for p in ps: p.add_(p.grad * scale)
            gradient()
            with torch.no_grad():
                for p, b in zip(ps, before): p.copy_(b)
            for n, (m, v) in net.r.items(): m.copy_(kept[n][0]); v.copy_(kept[n][1])
        if c["clip_norm"]: clipped += (torch.nn.utils.clip_grad_norm_(ps, c["clip_norm"]) > c["clip_norm"]).item()
        o.step(); W.append(sum((p.detach()**2).sum() for p in ps).item())
    net.train = False; d = {n: p.detach() - w0[n] for n, p in net.p.items()}
    return dict(config=c, clipped=clipped, losses=L, norm2=W, params={n: dict(shape=list(t.shape), distance=t.norm().item(), stride=max(1, -(-t.numel() // 32)), delta=some(t, 32)) for n, t in d.items()},
        running={n: dict(mean=m[:16].tolist(), var=v[:16].tolist()) for n, (m, v) in net.r.items()}, logits=net(data[0][0]).detach().reshape(-1)[:40].tolist())
cases = []
for a, k, B, affine, kind, nesterov, clip, lr_on, rho in (
    ("mlp", "batch", 32, True, "sgd", True, .5, None, None),
    ("cnn4", "none", 4, False, "sgd", False, .5, None, None),
    ("preresnet8", "layer", 4, False, "adamw", False, .3, None, None),
    ("mlp", "none", 32, False, "sgd", False, None, {"biases": 2., "head": .5}, None),
    ("cnn4", "batch", 32, True, "sgd", True, None, {"norms": .1, "conv1": 0., "weights": 1.5}, None),
    ("mlp", "layer", 4, True, "adamw", False, None, {"weights": .5, "fc2": 3., "norms": 2.}, None),
    ("mlp", "layer", 32, True, "adam", False, None, None, None),
    ("cnn4", "none", 32, False, "adam", False, .5, {"conv2": .5, "biases": 2.}, None),
    ("vgg11", "group", 4, True, "adam", False, None, None, None),
    ("mlp", "batch", 32, True, "sgd", True, None, None, .05),
    ("cnn4", "batch", 4, False, "adam", False, None, None, .1),
    ("preresnet8", "group", 4, True, "adamw", False, None, None, .05),
    ("cnn4", "layer", 32, True, "sgd", False, .3, {"head": .5, "norms": 0.}, .1),
):
    r = choose(dict(arch=a, norm=k, groups=4, batch=B, affine=affine, momentum=.9, nesterov=nesterov, weight_decay=.05, eps=1e-5, smoothing=0., optimizer=kind, clip_norm=clip, lr_on=lr_on, rho=rho))
    assert r and fall(r) >= .3, (a, k, B, kind, r and fall(r))
    assert not clip or r["clipped"] >= 10, (a, k, r["clipped"])
    cases.append(r); print(a, k, B, kind, r["config"]["lr"], r["config"]["salt"], r["clipped"], f"{fall(r):.3f}", flush=True)
json.dump(dict(torch=torch.__version__, cases=cases), open(os.path.join(here, "optimizers.json"), "w"), separators=(",", ":"))
