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
# A folder with texts of licences, one a file.
LICENCE_FOLDER = "LICENSES"
# Licences of C libraries lie in folders of their own.
MAX_DEPTH = 3
OWN = Path(__file__).resolve().parent

RUST = """The Rust standard library, by the Rust project (https://www.rust-lang.org), under the Apache License, version 2.0,
or the MIT licence."""
GLIBC = """The GNU C Library (https://sourceware.org/glibc/), which is linked into the programs, under the GNU Lesser General
Public License, version 2.1 or later. With Ergodic's sources, `cargo static` links the programs with another version of it."""
SQLITE = "SQLite (https://sqlite.org), in libsqlite3-sys, which its authors gave to the public domain."
# Where distributions keep the licence of the C library, and the notices of those who wrote parts of it.
LGPL = ["/usr/share/common-licenses/LGPL-2.1", "/usr/share/licenses/spdx/LGPL-2.1-or-later.txt", "/usr/share/licenses/glibc/COPYING.LIB"]
GLIBC_NOTICES = ["/usr/share/doc/libc6-dev/copyright", "/usr/share/licenses/glibc/LICENSES", "/usr/share/doc/glibc/LICENSES"]


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
            is_licence = LICENCE_FILE.match(file) or Path(place).name == LICENCE_FOLDER
            if is_licence and not is_source and path.is_file():
                yield path.relative_to(folder), path.read_text(encoding="utf-8", errors="replace").strip()


def repository(package):
    """The repository of a package, in one spelling."""
    return (package["repository"] or "").rstrip("/").removesuffix(".git")


def find_texts(packages):
    """The licences of each package: its own, or else those of another package from its repository, or the Apache License if it is
    under that."""
    own = {package["id"]: list(licence_texts(Path(package["manifest_path"]).parent)) for package in packages}
    shared = {}
    for package in packages:
        tops = [(path, text) for path, text in own[package["id"]] if len(path.parts) == 1]
        if tops and repository(package):
            shared.setdefault(repository(package), tops)

    apache = [(Path("LICENSE-APACHE"), (OWN.parent / "LICENSE-APACHE").read_text(encoding="utf-8").strip())]
    for package in packages:
        found = own[package["id"]] or shared.get(repository(package))
        if not found and "Apache-2.0" in (package["license"] or ""):
            found = apache
        yield package, bool(own[package["id"]]), found or []


def describe(package, has_own):
    """One line on a package; its authors, if it has no text that names them."""
    licence = package["license"] or "see its licence below"
    place = package["repository"] or package["homepage"] or "https://crates.io/crates/" + package["name"]
    authors = "" if has_own else "; its authors: " + (", ".join(package["authors"]) or "not named")
    return f"* {package['name']} {package['version']}: {licence}; {place}{authors}"


def glibc_texts():
    """The licence of the C library, and the notices of its parts."""
    licence = first_text(LGPL)
    if licence is None:
        sys.exit(f"notices.py: the C library is linked into the programs, and its licence is in none of {', '.join(LGPL)}")
    yield licence
    notices = first_text(GLIBC_NOTICES)
    if notices is not None:
        yield notices


def first_text(places):
    """The text of the first of these files that is there."""
    found = next((path for path in map(Path, places) if path.is_file()), None)
    return found and found.read_text(encoding="utf-8", errors="replace").strip()


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
    for package, has_own, found in find_texts(packages):
        title = f"{package['name']} {package['version']}"
        for path, text in found:
            texts.setdefault(text, []).append(title if len(path.parts) == 1 else f"{title} ({path})")
        if not found:
            sys.exit(f"notices.py: {title} has no text of its licence, {package['license']}")
        print(describe(package, has_own))

    if any(package["name"] == "libsqlite3-sys" for package in packages):
        print(f"* {SQLITE}")
    print(f"* {RUST}")
    texts.setdefault((OWN.parent / "LICENSE-APACHE").read_text(encoding="utf-8").strip(), []).append("The Rust standard library")
    if args.linked == "static" and "-gnu" in args.target:
        print(f"* {GLIBC}")
        for text in glibc_texts():
            texts.setdefault(text, []).append("The GNU C Library")
    for text, titles in texts.items():
        print("\n" + "=" * 100)
        print("\n".join(titles))
        print("-" * 100)
        print(text)


if __name__ == "__main__":
    sys.exit(main())
