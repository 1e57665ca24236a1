"""What expressions of sweep files mean, by Python's own parser: `python expressions.py > expressions.tsv`.

Each line is an expression, the values of a, b and c, and its value. Operators are Python's by other names, and Python gives them
the precedence that mathematics does: a power binds tighter than a sign and is taken from the right, comparisons chain.
Parentheses are put at random, so that most of what decides is precedence."""

import math
import random

FUNCTIONS = {"sqrt": math.sqrt, "abs": abs, "floor": math.floor, "ceil": math.ceil, "min": min, "max": max}
WORDS = [("&&", " and "), ("||", " or "), ("^", "**")]
NAMES = ["a", "b", "c"]


def number(depth):
    kind = random.random()
    if depth == 0 or kind < 0.15:
        return random.choice(NAMES + ["2", "3", "0.5", "1e-1", "10", ".25"])
    if kind < 0.3:
        return "-" + number(depth - 1)
    if kind < 0.45:
        return number(depth - 1) + " ^ " + random.choice(["2", "3", "-1", "-2", "2^2", "-a", "b"])
    if kind < 0.55:
        name = random.choice(["sqrt", "abs", "floor", "ceil"])
        return f"{name}({number(depth - 1)})"
    if kind < 0.62:
        name = random.choice(["min", "max"])
        return f"{name}({', '.join(number(depth - 1) for _ in range(random.choice([2, 3])))})"
    if kind < 0.72:
        return f"({number(depth - 1)})"
    if kind < 0.76:
        return f"({truth(depth - 1)})"
    return number(depth - 1) + random.choice([" + ", " - ", " * ", " / "]) + number(depth - 1)


def truth(depth):
    kind = random.random()
    if depth == 0 or kind < 0.4:
        links = random.choice([["<"], [">="], ["=="], ["!="], ["<", "<="], [">", ">", ">="], ["<=", "=="], ["==", "=="]])
        return number(max(depth - 1, 0)) + "".join(f" {link} {number(max(depth - 1, 0))}" for link in links)
    if kind < 0.55:
        return f"({truth(depth - 1)})"
    return truth(depth - 1) + random.choice([" && ", " || "]) + truth(depth - 1)


def value(text, values):
    for ours, theirs in WORDS:
        text = text.replace(ours, theirs)
    result = eval(text, {"__builtins__": {}}, {**FUNCTIONS, **values})
    return None if isinstance(result, complex) else float(result)


def main():
    random.seed(20)
    lines = 0
    while lines < 600:
        text = random.choice([number, truth])(random.choice([2, 3, 4]))
        values = {name: random.choice([-2.0, -0.5, 0.0, 0.25, 1.0, 1.5, 2.0, 3.0, 7.0]) for name in NAMES}
        try:
            result = value(text, values)
        except (ArithmeticError, ValueError, TypeError):
            continue
        if result is None or not abs(result) < 1e12 or len(text) > 120:
            continue
        print(text, *values.values(), repr(result), sep="\t")
        lines += 1


main()
