"""Reads what a trial gets from Ergodic, and reports its metrics. Needs nothing but the standard library.

    from ergodic_trial import trial

    random.seed(trial.seed("init"))
    for step in range(1, 101):
        loss = train_step(trial.lr)
        trial.report(step, loss=loss)

Started by hand, without Ergodic, a trial has the values that the command line gives as NAME=VALUE, and prints its metrics.
"""

import json
import os
import sys


class Trial:
    """One trial: `trial.lr` is the value of the axis or derived field `lr`."""

    def __init__(self):
        path = os.environ.get("ERGODIC_TRIAL")
        if path:
            with open(path, encoding="utf-8") as file:
                facts = json.load(file)
        else:
            facts = {"values": _read_arguments(), "repeat": 0, "seed": 0, "seeds": {}, "checkpoint": None}
        hidden = sorted(name for name in facts["values"] if not name.startswith("_") and hasattr(type(self), name))
        if hidden:
            raise ValueError(
                f"trial.{hidden[0]} has a meaning of its own in ergodic_trial, so no axis and no derived field can be called "
                f"{hidden[0]!r} here: rename it in the sweep file, or take it as an argument and do not list ergodic:python"
            )
        self._facts = facts
        self._metrics = None

    @property
    def values(self):
        """All values of axes and derived fields, by name."""
        return dict(self._facts["values"])

    @property
    def repeat(self):
        """The number of the repeat, from 0."""
        return self._facts["repeat"]

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name):
        values = self._facts["values"]
        if name not in values:
            known = ", ".join(sorted(values)) or "none"
            raise AttributeError(f"the sweep file has no axis and no derived field {name!r}; there are: {known}")
        return values[name]

    def seed(self, purpose=None):
        """The seed for a purpose such as "init" or "order", or that of the trial. It is below 2**53."""
        if purpose is None:
            return self._facts["seed"]
        seeds = self._facts["seeds"]
        if seeds and purpose not in seeds:
            raise ValueError(f"there is no seed for {purpose!r}; there are: {', '.join(sorted(seeds))}")
        return seeds.get(purpose, 0)

    def report(self, step, predictions=None, **metrics):
        """Reports metrics, and predicted classes if there are some, after a number of steps."""
        line = {"step": int(step)}
        for name, value in metrics.items():
            line[name] = _to_number(value)
        if predictions is not None:
            line["predictions"] = [int(x) for x in predictions]
        self._write(line)

    def diverged(self, step):
        """Ends the trial as diverged at a step."""
        self._write({"diverged": int(step)})
        sys.exit(0)

    @property
    def checkpoint(self):
        """The step and the folder of the checkpoint to go on from, or None."""
        step = self._facts.get("checkpoint")
        return None if step is None else (step, self.checkpoint_folder(step))

    def checkpoint_folder(self, step):
        """The folder for the checkpoint of a step. Write all files, then call keep_checkpoint."""
        root = os.environ.get("ERGODIC_CHECKPOINT", "checkpoint")
        folder = os.path.join(root, str(int(step)))
        os.makedirs(folder, exist_ok=True)
        return folder

    def keep_checkpoint(self, step):
        """Says that the checkpoint of a step is complete. Do not touch its folder afterwards. Folders of earlier steps go."""
        self._write({"checkpoint": int(step)})

    def _write(self, line):
        text = json.dumps(line) + "\n"
        if self._metrics is None:
            path = os.environ.get("ERGODIC_METRICS")
            self._metrics = open(path, "w", encoding="utf-8") if path else sys.stdout
        self._metrics.write(text)
        self._metrics.flush()


def _to_number(value):
    """The value as a number of Python: tensors and arrays with one value have `item`."""
    if hasattr(value, "item"):
        value = value.item()
    return value if isinstance(value, int) and not isinstance(value, bool) else float(value)


def _read_arguments():
    values = {}
    for argument in sys.argv[1:]:
        name, sign, text = argument.partition("=")
        if sign:
            try:
                values[name] = json.loads(text)
            except ValueError:
                values[name] = text
    return values


trial = Trial()
