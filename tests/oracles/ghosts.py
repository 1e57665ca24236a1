"""Short trainings under ghost batch norm in plain PyTorch (float64, CPU) as an oracle. Regenerate: `python -P tests/oracles/ghosts.py`
(needs torch); writes ghosts.json beside it.

Everything is as in trajectories.py but the norm: in training, consecutive images of `ghost_size` are normalized by F.batch_norm on these
images alone, and the running statistics move by 0.1 towards the means over the ghost batches of mean and unbiased variance."""
import json, os, torch, torch.nn.functional as F
here = os.path.dirname(os.path.abspath(__file__))
# Everything before its cases.
exec(open(os.path.join(here, "trajectories.py")).read().split("\ncases = []")[0])
def ghost_norm(s, x, n):
    c = x.shape[1]; g = h = None
    if s.c["affine"]: g, h = s.par(n + ".norm.scale", lambda: torch.ones(c)), s.par(n + ".norm.shift", lambda: torch.zeros(c))
    m, v = s.r.setdefault(n, (torch.zeros(c), torch.ones(c)))
    if not s.train: return F.batch_norm(x, m, v, g, h, False, 0.1, 1e-5)
    ghosts = x.split(s.c["ghost_size"])
    flat = [p.detach().transpose(0, 1).reshape(c, -1) for p in ghosts]
    m.mul_(.9).add_(.1 * sum(f.mean(1) for f in flat) / len(flat)); v.mul_(.9).add_(.1 * sum(f.var(1) for f in flat) / len(flat))
    return torch.cat([F.batch_norm(p, None, None, g, h, True, 0.1, 1e-5) for p in ghosts])
Net.norm = ghost_norm
cases = []
for a, B, size, affine in (("mlp", 32, 8, False), ("mlp", 12, 4, True), ("cnn4", 32, 8, True), ("cnn4", 12, 4, False), ("preresnet8", 16, 4, False), ("vgg11", 16, 4, True)):
    r = choose(dict(arch=a, norm="ghost", ghost_size=size, groups=4, batch=B, affine=affine, momentum=.9, nesterov=B == 32, weight_decay=.05, eps=1e-5, smoothing=0., optimizer="sgd"))
    assert r and fall(r) >= .3, (a, B, r and fall(r))
    cases.append(r); print(a, B, size, r["config"]["lr"], f"{fall(r):.3f}", flush=True)
json.dump(dict(torch=torch.__version__, cases=cases), open(os.path.join(here, "ghosts.json"), "w"), separators=(",", ":"))
