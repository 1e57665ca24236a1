"""Largest eigenvalues of Hessians by PyTorch's double backward (float64, CPU) as an oracle. Regenerate:
`python tests/oracles/hessians.py` (needs torch); writes hessians.json beside it.

Networks, weights, images and labels are those of trajectories.py: the Hessian is that of the mean loss of batch 0 in training
mode over all parameters (over all but the head's, where the head is fixed). Lanczos's method with full reorthogonalisation, until
the residual is 1e-9 of the eigenvalue. Weights are multiplied by `scale`: at 1 gradients are small beside curvature, at 3 outputs are far apart."""
import json, math, os, torch, torch.nn.functional as F
here = os.path.dirname(os.path.abspath(__file__))
# Everything before its cases are chosen.
exec(open(os.path.join(here, "trajectories.py")).read().split("\ndef fall(")[0])
def top(c):
    torch.set_default_dtype(torch.float64); torch.manual_seed(0)
    x = values("batch0.images0", (c["batch"], *SHAPE[c["arch"]]), 1.); y = torch.tensor([z % 10 for z in bits("batch0.labels", c["batch"])])
    net = Net(c); net.train = False
    with torch.no_grad(): net(x)
    net.train = True
    with torch.no_grad():
        for n, p in net.p.items():
            if n.endswith(".weight"): p.mul_(c["scale"])
            elif not n.endswith("norm.scale"): p.add_(values(n + " moved", p.shape, .1))
            else: p.add_(values(n + " moved", p.shape, .3))
    ps = [p for n, p in net.p.items() if not (c["fixed_head"] and n.startswith("head."))]
    out = net(x)
    loss = F.mse_loss(out, F.one_hot(y, 10).to(out.dtype)) if c["loss"] == "mse" else F.cross_entropy(out, y, label_smoothing=c["smoothing"])
    flat = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, ps, create_graph=True)])
    def product(v): return torch.cat([g.reshape(-1) for g in torch.autograd.grad(flat, ps, v, retain_graph=True)])
    q = torch.randn(flat.numel()); basis, a, b = [q / q.norm()], [], []
    while True:
        w = product(basis[-1]); a.append((w @ basis[-1]).item()); B = torch.stack(basis)
        for _ in range(2): w = w - B.T @ (B @ w)
        b.append(w.norm().item()); T = torch.diag(torch.tensor(a)) + sum(torch.diag(torch.tensor(b[:-1]), s) for s in (-1, 1)) if len(a) > 1 else torch.tensor([a])
        e, v = torch.linalg.eigh(T)
        if b[-1] * abs(v[-1, -1].item()) <= 1e-9 * abs(e[-1].item()) or len(a) >= min(flat.numel(), 400): return e[-1].item(), loss.item(), flat.norm().item()
        basis.append(w / b[-1])
cases = []
for a in SHAPE:
    for k in ("batch", "group", "layer", "none"):
        for B, scale in ((4, 1), (32, 1), (32, 3)):
            n = len(cases)
            c = dict(arch=a, norm=k, groups=4, batch=B, affine=k == "group" or (k == "batch" and B == 4), scale=scale, fixed_head=n % 5 == 1,
                loss="mse" if n % 4 == 2 else "cross-entropy", smoothing=.1 if n % 3 == 1 else 0.)
            e, l, g = top(c); cases.append(dict(config=c, top=e, loss=l, gradient=g)); print(c, e, flush=True)
json.dump(dict(torch=torch.__version__, cases=cases), open(os.path.join(here, "hessians.json"), "w"), separators=(",", ":"))
