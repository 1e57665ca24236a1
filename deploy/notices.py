#!/usr/bin/env python3
"""Prints the licences and notices of the libraries in Ergodic's programs, as cargo knows them.

    deploy/notices.py --target x86_64-unknown-linux-gnu --linked static ergodic ergodic-worker
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

# How files with the text of a licence are called.
LICENCE_FILE = re.compile(r"(licen[sc]e|copying|notice|copyright|unlicense)([._-].*)?$", re.IGNORECASE)
# Licences of C libraries lie in folders of their own.
MAX_DEPTH = 3

RUST = """The Rust standard library, by the Rust project (https://www.rust-lang.org), under the Apache License, version 2.0,
or the MIT licence. Its text is in LICENSE-APACHE of Ergodic."""
GLIBC = """The GNU C Library (https://sourceware.org/glibc/), which is linked into the programs, under the GNU Lesser General
Public License, version 2.1 or later (https://www.gnu.org/licenses/old-licenses/lgpl-2.1.html). With Ergodic's sources,
`cargo static` links the programs with another version of it."""


def run_cargo(*arguments):
    return subprocess.run(["cargo", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def linked_packages(programs, features, target):
    """Names and versions of all packages whose code is in the programs, with these of their optional features."""
    selected = [word for program in programs for word in ("--package", program)]
    tree = run_cargo("tree", "--locked", "--edges", "normal", "--target", target, "--prefix", "none", "--format", "{p}", "--features", features, *selected)
    lines = (line.split() for line in tree.splitlines())
    return {(words[0], words[1].removeprefix("v")) for words in lines if len(words) > 1}


def licence_texts(folder):
    """Paths, from the folder on, and texts of the licences in a package."""
    for place, folders, files in os.walk(folder):
        folders.sort()
        depth = len(Path(place).relative_to(folder).parts)
        if depth >= MAX_DEPTH:
            folders.clear()
        for file in sorted(files):
            path = Path(place, file)
            is_source = path.suffix in {".rs", ".c", ".h", ".py", ".go", ".sh"}
            if LICENCE_FILE.match(file) and not is_source and path.is_file():
                yield path.relative_to(folder), path.read_text(encoding="utf-8", errors="replace").strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--linked", choices=["static", "dynamic"], required=True)
    parser.add_argument("--features", default="", help="as in 'ergodic/sql ergodic-worker/cuda'")
    parser.add_argument("programs", nargs="+")
    args = parser.parse_args()

    linked = linked_packages(args.programs, args.features, args.target)
    metadata = json.loads(run_cargo("metadata", "--format-version", "1", "--locked", "--filter-platform", args.target, "--features", args.features))
    packages = [package for package in metadata["packages"] if (package["name"], package["version"]) in linked]
    # What has no source in a registry is ours.
    packages = sorted((package for package in packages if package["source"]), key=lambda package: (package["name"], package["version"]))

    texts = {}
    print("The programs of Ergodic contain this software of others:\n")
    for package in packages:
        title = f"{package['name']} {package['version']}"
        licence = package["license"] or "see its licence below"
        place = package["repository"] or package["homepage"] or "https://crates.io/crates/" + package["name"]
        found = list(licence_texts(Path(package["manifest_path"]).parent))
        for path, text in found:
            texts.setdefault(text, []).append(title if len(path.parts) == 1 else f"{title} ({path})")
        authors = "" if found else "; its package has no file with the licence; authors: " + (", ".join(package["authors"]) or "not named")
        print(f"* {title}: {licence}; {place}{authors}")

    print(f"* {RUST}")
    if args.linked == "static" and "-gnu" in args.target:
        print(f"* {GLIBC}")
    for text, titles in texts.items():
        print("\n" + "=" * 100)
        print("\n".join(titles))
        print("-" * 100)
        print(text)


if __name__ == "__main__":
    sys.exit(main())
