"""Short regressions in plain PyTorch (float64, CPU), with `nn.MSELoss`, as an oracle. Regenerate: `python -P tests/oracles/targets.py`
(needs torch); writes targets.json beside it.

Everything is as in trajectories.py and layers.py but the number of outputs, the loss, and targets in place of labels: tensor
"batch<b>.targets", u*sqrt(3), [n, outputs]."""
import json, os, torch
here = os.path.dirname(os.path.abspath(__file__))
def source(name): return open(os.path.join(here, name)).read()
def replace(text, *pairs):
    for old, new in pairs: assert old in text, old; text = text.replace(old, new)
    return text
head = ('"head", 10)', '"head", s.c["outputs"])')
# Everything before the cases of both.
exec(replace(source("trajectories.py").split("\ncases = []")[0], head,
    ("""torch.tensor([z % 10 for z in bits(f"batch{b}.labels", c["batch"])])""", """values(f"batch{b}.targets", (c["batch"], c["outputs"]), 1.)"""),
    ("""F.cross_entropy(net(x), y, label_smoothing=c["smoothing"])""", "torch.nn.MSELoss()(net(x), y)")))
Plain = Net
exec(replace("class Layers" + source("layers.py").split("class Layers")[1].split("\nSHAPE = ")[0], head))
SHAPE |= {n: (8, 8, 3) for n in NETS}; cases = []
for a, k, B, outputs, o in (("mlp", "none", 4, 1, "sgd"), ("mlp", "batch", 32, 3, "sgd"), ("mlp", "layer", 32, 20, "adamw"), ("cnn4", "none", 32, 1, "sgd"),
        ("cnn4", "batch", 32, 3, "adamw"), ("preresnet8", "layer", 4, 3, "sgd"), ("tanh-mlp", "", 12, 1, "adamw"), ("gelu-residual", "", 12, 17, "sgd")):
    Net = Layers if a in NETS else Plain
    c = dict(arch=a, norm=k, groups=4, batch=B, affine=k == "batch", momentum=.9, nesterov=False, weight_decay=.05, eps=1e-5, smoothing=0., optimizer=o, loss="mse", outputs=outputs)
    if a in NETS: c["layers"] = NETS[a][0]
    r = choose(c)
    assert r and fall(r) >= .3, (a, k, B, r and fall(r))
    cases.append(r); print(a, k, B, outputs, o, r["config"]["lr"], f"{fall(r):.3f}", flush=True)
json.dump(dict(torch=torch.__version__, cases=cases), open(os.path.join(here, "targets.json"), "w"), separators=(",", ":"))
