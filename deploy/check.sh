#!/bin/bash
# Checks the files in this directory with the tools that read them.
#
#   deploy/check.sh                                             what this machine has tools for; the rest is skipped by name
#   ERGODIC_REQUIRE=systemd-analyze,shellcheck deploy/check.sh  here a missing one of these is a failure
#
# Tools it knows: systemd-analyze, shellcheck, hadolint, buildah. Nothing is built with cargo, downloaded, or left behind.
# Exit codes: 0 all well, 1 a check failed or a required tool is missing.

set -uo pipefail

# Above this exposure (0 is best, 100 worst; systemd-analyze prints it divided by ten) a unit is no longer hardened.
highest_exposure=20

cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
scratch=$(mktemp -d) || exit 1
trap 'rm -rf -- "$scratch"' EXIT
passed=0
failed=()
skipped=()

# check NAME COMMAND...: the command must succeed. Its output is shown only if it does not.
check() {
    local name=$1
    shift
    if "$@" >"$scratch/output" 2>&1; then
        echo "ok       $name"
        passed=$((passed + 1))
    else
        echo "FAILED   $name"
        sed 's/^/         | /' "$scratch/output"
        failed+=("$name")
    fi
}

required() {
    [[ ,${ERGODIC_REQUIRE//[[:space:]]/}, == *,$1,* ]]
}
ERGODIC_REQUIRE=${ERGODIC_REQUIRE:-}

# skip TOOL WHY: leaves a tool's checks out, unless they are required.
skip() {
    if required "$1"; then
        echo "FAILED   $1: required by ERGODIC_REQUIRE, but $2"
        failed+=("$1")
    else
        echo "skipped  $1: $2"
        skipped+=("$1")
    fi
}

have() {
    command -v "$1" >/dev/null && return
    skip "$1" "it is not installed"
    return 1
}

# Succeeds if the command does and says nothing: systemd-analyze verify only warns of an unknown key.
silently() {
    local said
    said=$("$@" 2>&1) && [[ -z $said ]] && return
    echo "${said:-it failed without a word}"
    return 1
}

# --- shell scripts ---

scripts=(check.sh release.sh cuda/build.sh cuda/check.sh debian/postinst debian/prerm debian/postrm slurm/workers.sbatch)
for script in "${scripts[@]}"; do
    check "bash -n $script" bash -n "$script"
done
if have shellcheck; then
    check "shellcheck ${scripts[*]}" shellcheck "${scripts[@]}"
fi

# --- Slurm: the script runs on bash alone; the worker is played by one that prints how it was called ---

cat >"$scratch/worker" <<'STUB'
#!/bin/sh
echo "cache $ERGODIC_CACHE"
echo "options $*"
STUB
chmod +x "$scratch/worker"

batch() {
    env -i PATH="$PATH" TMPDIR="$scratch" SLURM_JOB_ID=8 SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=1 SLURMD_NODENAME=n1 \
        SLURM_CPUS_ON_NODE=3 "$@" bash slurm/workers.sbatch --isa portable
}

batch_says() {
    local want=$1 said
    shift
    said=$(batch "$@" 2>&1)
    grep -qF -- "$want" <<<"$said" && return
    echo "expected: $want"
    echo "$said"
    return 1
}

batch_is_refused() {
    local rc=0
    batch "$@" || rc=$?
    [[ $rc == 2 ]]
}

url=ERGODIC_COORDINATOR=http://login1:7700
worker=ERGODIC_WORKER=$scratch/worker
check "workers.sbatch refuses to start without a coordinator" batch_is_refused "$worker"
check "workers.sbatch says which variable is missing" batch_says "ERGODIC_COORDINATOR is not set" "$worker"
check "workers.sbatch refuses a worker that is not there" batch_is_refused "$url" "ERGODIC_WORKER=$scratch/none"
check "workers.sbatch gives the node's CPUs and passes options on" \
    batch_says "options --slots 3 --name n1:7_1 --drain 20s --idle-exit 5m --isa portable" "$url" "$worker"
check "workers.sbatch prefers the task's CPUs" batch_says "--slots 2 " "$url" "$worker" SLURM_CPUS_PER_TASK=2
check "workers.sbatch keeps the cache on the node" batch_says "cache $scratch/ergodic-$(id -u)" "$url" "$worker"
check "workers.sbatch leaves a given cache alone" batch_says "cache /data/c" "$url" "$worker" ERGODIC_CACHE=/data/c

# --- CUDA: where there is no device, or none may be seen, the check says so and nothing else ---

says_that_there_is_no_device() {
    local said rc=0
    said=$(CUDA_VISIBLE_DEVICES='' bash cuda/check.sh "$@" 2>&1) || rc=$?
    [[ $rc == 4 && $said == *"there is no CUDA device here"* ]] && return
    echo "exit code $rc: $said"
    return 1
}
check "cuda/check.sh exits with 4 where there is no device" says_that_there_is_no_device
check "cuda/check.sh looks for a device before it looks for programs" says_that_there_is_no_device "$scratch/none"

# The folder is made before it is seen whether there is something to put into it.
packs_where_it_was_started() {
    local script=$PWD/cuda/check.sh
    (cd "$scratch" && bash "$script" pack packed)
    [[ -d $scratch/packed ]]
}
check "cuda/check.sh takes a folder as it is meant where it was started" packs_where_it_was_started

# --- systemd ---

# Every line is a comment or NAME=VALUE, and a name that is commented out is one that can be used.
is_environment() {
    local line='^(#?ERGODIC_[A-Z_]+=[^[:space:]].*|#|# .*|)$'
    ! grep -nvE "$line" "$1"
}
for file in systemd/*.env.example; do
    check "$file has only comments and settings" is_environment "$file"
done

if have systemd-analyze; then
    # A root of its own: the programs need not be installed here, and nothing of this machine's configuration is read.
    root=$scratch/root
    mkdir -p "$root/usr/local/bin" "$root/usr/lib/systemd" "$root/etc/systemd/system"
    # The units that ours refer to, such as network-online.target.
    for place in /usr/lib/systemd/system /lib/systemd/system; do
        [[ -d $place ]] && cp -r "$place" "$root/usr/lib/systemd/" && break
    done
    cp "$scratch/worker" "$root/usr/local/bin/ergodic"
    cp "$scratch/worker" "$root/usr/local/bin/ergodic-worker"
    cp systemd/*.service "$root/etc/systemd/system/"
    for unit in systemd/*.service; do
        check "systemd-analyze verify $unit" silently systemd-analyze --man=no --root="$root" verify "${unit##*/}"
        check "systemd-analyze security $unit, exposure at most $highest_exposure of 100" \
            systemd-analyze --no-pager security --offline=true --threshold="$highest_exposure" "$unit"
    done
fi

# --- Dockerfile ---

if have hadolint; then
    check "hadolint docker/Dockerfile" hadolint docker/Dockerfile
fi

# The last stage as it is shipped, with stand-ins for what the first one builds: its base image need not be fetched.
last_stage() {
    local image=$scratch/image store=(--storage-driver vfs --root "$scratch/layers" --runroot "$scratch/run") config want
    mkdir -p "$image/image/bin" "$image/image/empty"
    cp "$scratch/worker" "$image/image/bin/ergodic"
    cp "$scratch/worker" "$image/image/bin/ergodic-worker"
    echo '{"default":[{"type":"insecureAcceptAnything"}]}' >"$scratch/policy.json"
    buildah "${store[@]}" bud --isolation chroot --signature-policy "$scratch/policy.json" \
        --build-context build="$image" -f docker/Dockerfile -t ergodic-check "$image" || return
    config=$(buildah "${store[@]}" inspect --type image ergodic-check) || return
    config=${config//[[:space:]]/}
    for want in '"User":"65532:65532"' '"Entrypoint":["ergodic"]' '"7700/tcp"' '"/var/lib/ergodic"'; do
        grep -qF -- "$want" <<<"$config" || { echo "no $want in $config"; return 1; }
    done
}
if have buildah; then
    if [[ $(id -u) == 0 ]]; then
        check "buildah, last stage of docker/Dockerfile" last_stage
    else
        skip buildah "it is run here as root only"
    fi
fi

# --- the end ---

echo "$passed passed, ${#failed[@]} failed, ${#skipped[@]} skipped${skipped[*]:+: ${skipped[*]}}"
[[ ${#failed[@]} == 0 ]]
