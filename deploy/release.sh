#!/bin/bash
# Makes the files of a release: an archive and a Debian package, each with both programs, completions, manual pages, licences
# and notices of third-party software.
#
#   deploy/release.sh                  builds the programs without shared libraries, and packs them into target/release-files
#   deploy/release.sh --out DIR        packs into another directory
#   deploy/release.sh --programs DIR   packs the programs in DIR, which must run here, instead of building any
#   deploy/release.sh --target TRIPLE  builds for this platform [default: x86_64-unknown-linux-gnu]; its programs must run here
#
# The same revision, compiler, tools and place of the sources give the same bytes. Times in the files are those of the
# revision, or SOURCE_DATE_EPOCH. Without git, set SOURCE_DATE_EPOCH, ERGODIC_GIT_REVISION and ERGODIC_GIT_DATE.
# ERGODIC_MAINTAINER names who maintains the Debian package, as in "Ada Lovelace <ada@example.org>".
#
# Needs cargo, python3, binutils, GNU tar and gzip; dpkg-deb for the Debian package, which is left out without it.
# Exit codes: 0 all files are made, 1 something failed, 2 bad arguments.

set -euo pipefail
export LC_ALL=C TZ=UTC
umask 022

started_in=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

give_up() {
    echo "release.sh: $2" >&2
    exit "$1"
}

# --- arguments ---

target=x86_64-unknown-linux-gnu
programs=
out=$root/target/release-files
while (($# > 0)); do
    case $1 in
        --target | --programs | --out)
            (($# > 1)) || give_up 2 "$1: expected a value"
            case $1 in
                --target) target=$2 ;;
                --programs) programs=$(cd "$started_in" && realpath -e -- "$2") || give_up 2 "--programs $2: no such directory" ;;
                --out) out=$(cd "$started_in" && realpath -m -- "$2") ;;
            esac
            shift 2
            ;;
        *) give_up 2 "$1: unknown argument; expected --target, --programs or --out" ;;
    esac
done
for tool in cargo python3 readelf tar gzip sha256sum; do
    command -v "$tool" >/dev/null || give_up 1 "$tool is not installed"
done

# --- the revision ---

in_git() { [[ $(git rev-parse --show-toplevel 2>/dev/null) == "$root" ]]; }
if in_git; then
    : "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
    : "${ERGODIC_GIT_REVISION:=$(git describe --always --dirty --abbrev=12 --exclude='*')}"
    : "${ERGODIC_GIT_DATE:=$(git log -1 --format=%cs)}"
    case $ERGODIC_GIT_REVISION in
        *-dirty) echo "release.sh: there are changes that are not committed: the programs name their revision with -dirty" >&2 ;;
    esac
fi
[[ -n ${SOURCE_DATE_EPOCH:-} ]] || give_up 1 "SOURCE_DATE_EPOCH is not set, and there is no git repository that tells the time of the sources"
export SOURCE_DATE_EPOCH ERGODIC_GIT_REVISION="${ERGODIC_GIT_REVISION:-}" ERGODIC_GIT_DATE="${ERGODIC_GIT_DATE:-}"

scratch=$(mktemp -d)
trap 'rm -rf -- "$scratch"' EXIT

# --- the programs ---

# Paths of this machine get other names, in Rust and in the C of libraries.
build_programs() {
    local cargo_home sysroot compiler flags
    cargo_home=$(realpath -m -- "${CARGO_HOME:-$HOME/.cargo}")
    sysroot=$(rustc --print sysroot)
    compiler=$(rustc -vV | sed -n 's/^commit-hash: //p')
    flags='"-C", "target-feature=+crt-static"'
    flags+=", \"--remap-path-prefix=$root=/ergodic\", \"--remap-path-prefix=$cargo_home=/cargo\""
    flags+=", \"--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rustc/$compiler\""
    export CFLAGS="${CFLAGS:-} -ffile-prefix-map=$root=/ergodic -ffile-prefix-map=$cargo_home=/cargo"

    # Flags in the environment would take the place of these.
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS CARGO_INCREMENTAL=0 CARGO_TARGET_DIR="$root/target/release-build" \
        cargo build --release --locked --target "$target" --config "target.$target.rustflags=[$flags]" \
        -p ergodic -p ergodic-worker
    programs=$root/target/release-build/$target/release

    local program place
    for program in ergodic ergodic-worker; do
        ! is_dynamic "$programs/$program" || give_up 1 "$program is linked dynamically"
        for place in "$root" "$cargo_home"; do
            ! grep -qaF -- "$place/" "$programs/$program" || give_up 1 "$program names the directory $place of this machine"
        done
    done
}

is_dynamic() { readelf --program-headers "$1" 2>/dev/null | grep -q INTERP; }

[[ -n $programs ]] || build_programs
for program in ergodic ergodic-worker; do
    [[ -x $programs/$program ]] || give_up 1 "$programs/$program: there is no such program"
done
build=$("$programs/ergodic" -V)
build=${build#ergodic }
[[ $("$programs/ergodic-worker" -V) == "ergodic-worker $build" ]] || give_up 1 "the two programs in $programs are of different builds"
version=${build%%+*}

# --- a tree that can be unpacked into /usr/local or ~/.local ---

name=ergodic-$version-$target
tree=$scratch/$name
doc=$tree/share/doc/ergodic
mkdir -p "$tree/bin" "$doc/examples" "$tree/share/man/man1" "$tree/share/bash-completion/completions" \
    "$tree/share/zsh/site-functions" "$tree/share/fish/vendor_completions.d"
for program in ergodic ergodic-worker; do
    install -m 0755 "$programs/$program" "$tree/bin/"
    "$programs/$program" completions bash >"$tree/share/bash-completion/completions/$program"
    "$programs/$program" completions zsh >"$tree/share/zsh/site-functions/_$program"
    "$programs/$program" completions fish >"$tree/share/fish/vendor_completions.d/$program.fish"
    "$programs/$program" man "$tree/share/man/man1" 2>/dev/null
done
install -m 0644 LICENSE-MIT LICENSE-APACHE README.md CHANGELOG.md "$doc/"
install -m 0644 sweeps/*.toml deploy/systemd/* deploy/slurm/workers.sbatch "$doc/examples/"
"$programs/ergodic" --version >"$doc/VERSION"
linked=static
features=()
for program in ergodic ergodic-worker; do
    ! is_dynamic "$programs/$program" || linked=dynamic
    for feature in $("$programs/$program" --version | sed -n 's/^features: //p' | tr -d ,); do
        [[ $feature == none ]] || features+=("$program/$feature")
    done
done
python3 deploy/notices.py --target "$target" --linked "$linked" --features "${features[*]}" ergodic ergodic-worker \
    >"$doc/THIRD-PARTY.txt"

# pack DIR FILE: the bytes depend on names, contents and whether files are executable.
pack() {
    tar --create --directory "${1%/*}" --format=gnu --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 \
        --numeric-owner --mode=u+rwX,go+rX,go-w "${1##*/}" | gzip -9 --no-name >"$2"
}
mkdir -p "$scratch/files"
pack "$tree" "$scratch/files/$name.tar.gz"

# --- the Debian package ---

debian_architecture() {
    case $target in
        x86_64-*-linux-*) echo amd64 ;;
        aarch64-*-linux-*) echo arm64 ;;
        *) return 1 ;;
    esac
}

build_debian_package() {
    local architecture=$1 package=$scratch/debian share unit
    share=$package/usr/share
    mkdir -p "$package/DEBIAN" "$package/usr" "$package/usr/lib/systemd/system" "$package/etc/ergodic"
    cp -R "$tree/bin" "$tree/share" "$package/usr/"
    # Where Debian's shells look, and as its manual pages are.
    mv "$share/zsh/site-functions" "$share/zsh/vendor-completions"
    gzip -9 --no-name "$share/man/man1/"*.1

    for unit in ergodic ergodic-worker; do
        sed 's#/usr/local/bin/#/usr/bin/#g; s#/etc/systemd/system/#/usr/lib/systemd/system/#g' "deploy/systemd/$unit.service" \
            >"$package/usr/lib/systemd/system/$unit.service"
        rm "$share/doc/ergodic/examples/$unit.service"
    done
    install -m 0644 deploy/systemd/coordinator.env.example "$package/etc/ergodic/coordinator.env"
    install -m 0644 deploy/systemd/worker.env.example "$package/etc/ergodic/worker.env"
    rm "$share/doc/ergodic/examples/"*.env.example
    printf '/etc/ergodic/%s.env\n' coordinator worker >"$package/DEBIAN/conffiles"

    mv "$share/doc/ergodic/CHANGELOG.md" "$share/doc/ergodic/changelog"
    gzip -9 --no-name "$share/doc/ergodic/changelog"
    {
        echo "Ergodic is under the MIT licence or the Apache License, version 2.0, at your choice."
        echo "THIRD-PARTY.txt in this directory has the licences of the libraries in the programs."
        echo
        cat LICENSE-MIT
        echo
        cat LICENSE-APACHE
    } >"$share/doc/ergodic/copyright"
    rm "$share/doc/ergodic/LICENSE-MIT" "$share/doc/ergodic/LICENSE-APACHE"

    install -m 0755 deploy/debian/postinst deploy/debian/prerm deploy/debian/postrm "$package/DEBIAN/"
    {
        echo "Package: ergodic"
        echo "Version: $version"
        echo "Architecture: $architecture"
        echo "Maintainer: ${ERGODIC_MAINTAINER:-The Ergodic developers}"
        echo "Section: science"
        echo "Priority: optional"
        [[ $linked == static ]] || echo "Depends: libc6, libgcc-s1"
        echo "Installed-Size: $(find "$package" -type f -not -path '*/DEBIAN/*' -printf '%s\n' | awk '{ n += int(($1 + 1023) / 1024) } END { print n }')"
        echo "Description: sweeps of repeated neural-network trainings, with exact statistics"
        echo " Ergodic distributes the trials of a sweep to workers on any machines, stores each"
        echo " result exactly once, and prints tables, tests and figures."
    } >"$package/DEBIAN/control"

    # By them `dpkg --verify` finds damage.
    (cd "$package" && find etc usr -type f -print0 | sort --zero-terminated | xargs -0 md5sum >DEBIAN/md5sums)

    chmod -R u+rwX,go+rX,go-w "$package"
    dpkg-deb --root-owner-group -Zgzip --build "$package" "$scratch/files/ergodic_${version}_$architecture.deb" >/dev/null
}

if ! command -v dpkg-deb >/dev/null; then
    echo "release.sh: no Debian package: dpkg-deb is not installed" >&2
elif architecture=$(debian_architecture); then
    build_debian_package "$architecture"
else
    echo "release.sh: no Debian package: Debian has no name for $target" >&2
fi

# --- sums, last: whoever finds them finds what they are of ---

(cd "$scratch/files" && sha256sum -- * >"$scratch/SHA256SUMS")
mkdir -p "$out"
rm -f -- "$out/SHA256SUMS"
mv -- "$scratch/files/"* "$out/"
mv -- "$scratch/SHA256SUMS" "$out/"
echo "$out:"
cat "$out/SHA256SUMS"
