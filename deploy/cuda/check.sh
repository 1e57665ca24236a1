#!/bin/bash
# Tries a worker on a GPU: the quickstart on cuda:0 and on the CPU beside it, in less than six minutes.
#
#   deploy/cuda/check.sh pack [DIR]     where build.sh ran: what is needed, stripped, into DIR (default target/cuda-check)
#   deploy/cuda/check.sh [DIR]          where the GPU is: the check, with what is in DIR
#
# It compares the losses of the first 20 steps of every cell (at most 1e-3 apart), the mean accuracies (within the noise of
# the repeats) and two runs on the GPU (the same bits), and prints what both train per second. CUDA's libraries must be found
# (see build.sh): in LD_LIBRARY_PATH, DIR/lib or /usr/local/cuda.
# Exit codes: 0 all well, 1 a comparison failed, 2 something is missing, 4 there is no device, 124 it took too long.

set -uo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2

most_mib=48
limit=360

say() { echo "cuda/check.sh: $*" >&2; }
give_up() {
    local code=$1
    shift
    say "$*"
    exit "$code"
}

# folder [DIR]: DIR as it was meant where this was started, or where packs are by default.
folder() {
    case ${1:-} in
        '') echo target/cuda-check ;;
        /*) echo "$1" ;;
        *) echo "$here/$1" ;;
    esac
}

pack() {
    local dir=$1 mib
    mkdir -p "$dir" || exit 2
    for program in target/cuda/release/ergodic-worker target/release/ergodic; do
        [[ -x $program ]] || give_up 2 "$program is not there: run deploy/cuda/build.sh and cargo build --release --locked"
        strip -o "$dir/${program##*/}" "$program" || exit 2
    done
    cp sweeps/quickstart.toml "$dir/" || exit 2
    mib=$((($(wc -c <"$dir/ergodic-worker") + 1048575) / 1048576))
    ((mib <= most_mib)) || give_up 1 "the stripped worker has $mib MiB; $most_mib at most are meant to be carried about"
    say "packed into $dir: the worker has $mib MiB"
}

if [[ ${1:-} == pack ]]; then
    pack "$(folder "${2:-}")"
    exit
fi
dir=$(folder "${1:-}")

# An empty list of visible devices hides all of them, as it does from CUDA itself.
has_device() {
    [[ -z ${CUDA_VISIBLE_DEVICES+set} || -n $CUDA_VISIBLE_DEVICES ]] || return 1
    compgen -G '/dev/nvidia[0-9]*' >/dev/null || { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }
}
has_device || give_up 4 "there is no CUDA device here: nothing was checked"

# A check that hangs is one that fails.
if [[ -z ${ERGODIC_CHECK_LIMITED:-} ]]; then
    ERGODIC_CHECK_LIMITED=1 exec timeout "$limit" deploy/cuda/check.sh "$dir"
fi

for file in ergodic ergodic-worker quickstart.toml; do
    [[ -e $dir/$file ]] || give_up 2 "$dir/$file is not there: run deploy/cuda/check.sh pack where it was built, and bring $dir here"
done
dir=$(cd "$dir" && pwd) || exit 2
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$dir/lib:/usr/local/cuda/lib64
"$dir/ergodic-worker" --version >/dev/null || give_up 2 "the worker does not start: CUDA's libraries are looked for in $LD_LIBRARY_PATH"

scratch=$(mktemp -d) || exit 2
running=()
finish() {
    ((${#running[@]} == 0)) || kill "${running[@]}" 2>/dev/null
    wait
    rm -rf -- "$scratch"
}
trap finish EXIT
trap 'exit 2' INT TERM
begun=$SECONDS

# train STORE DEVICE NUMERICS SETTING...: the quickstart in a store of its own, to its end. Its id is left in STORE.id, the
# coordinator's address in STORE.url.
train() {
    local store=$scratch/$1 device=$2 numerics=$3 url='' settings=()
    shift 3
    for setting in "$@"; do settings+=(--set "$setting"); done
    "$dir/ergodic" serve --listen 127.0.0.1:0 --store "$store" >"$store.out" 2>"$store.log" &
    running+=($!)
    for _ in {1..100}; do
        url=$(grep -ohm1 'http://127[^ ]*' "$store.out" "$store.log" | head -n1)
        [[ -n $url ]] && break
        sleep 0.1
    done
    [[ -n $url ]] || give_up 2 "the coordinator did not start: $(tail -n3 "$store.log")"
    echo "$url" >"$store.url"
    "$dir/ergodic-worker" --coordinator "$url" --device "$device" --slots 1 >"$store.worker" 2>&1 &
    running+=($!)
    # A class of CUDA is settled by the worker that has joined.
    for _ in {1..300}; do
        "$dir/ergodic" workers --coordinator "$url" --format csv 2>/dev/null | grep -q "$numerics" && break
        sleep 0.1
    done
    "$dir/ergodic" launch "$dir/quickstart.toml" --coordinator "$url" --set "numerics=\"$numerics\"" "${settings[@]}" \
        >"$store.id" || give_up 2 "the sweep was not accepted; the worker says: $(tail -n3 "$store.worker")"
    "$dir/ergodic" watch "$(cat "$store.id")" --coordinator "$url" >/dev/null 2>&1
}

# ask STORE COMMAND...: as CSV, about the sweep that is there.
ask() {
    local store=$scratch/$1 command=$2
    shift 2
    "$dir/ergodic" "$command" "$(cat "$store.id")" --coordinator "$(cat "$store.url")" --format csv "$@"
}

# column FILE NAME...: these columns of a CSV, which has no commas within fields.
column() {
    local file=$1
    shift
    awk -F, -v names="$*" '
        NR == 1 { n = split(names, want, " "); for (i = 1; i <= NF; i++) at[$i] = i
                  for (i = 1; i <= n; i++) if (!(want[i] in at)) { print "no column " want[i] > "/dev/stderr"; exit 1 } next }
        { line = $at[want[1]]; for (i = 2; i <= n; i++) line = line "," $at[want[i]]; print line }' "$file"
}

failed=0
verdict() {
    local name=$1
    shift
    if "$@"; then echo "ok       $name"; else echo "FAILED   $name"; failed=1; fi
}

# Two files of lines "cell,step,value": no value further apart than 1e-3, and some compared.
losses_agree() {
    awk -F, 'NR == FNR { cpu[$1 "," $2] = $3; next }
        ($1 "," $2) in cpu && $2 <= 20 {
            n++; d = $3 - cpu[$1 "," $2]; if (d < 0) d = -d
            if (d > worst) { worst = d; where = "cell " $1 ", step " $2 }
        }
        END { printf "         %d losses compared; furthest apart %.1e (%s)\n", n, worst, where; exit !(n >= 20 && worst <= 1e-3) }' "$1" "$2"
}

# Two files of lines "cell,value": of each cell, means not further apart than four standard errors of their difference.
means_agree() {
    awk -F, 'NR == FNR { n[$1]++; a[$1] += $2; aa[$1] += $2 * $2; next } { m[$1]++; b[$1] += $2; bb[$1] += $2 * $2 }
        END { for (c in n) { if (n[c] != m[c] || n[c] < 2) { print "         cell " c ": " n[c] " and " m[c] " repeats"; bad = 1; continue }
                d = a[c] / n[c] - b[c] / m[c]; v = (aa[c] - a[c]^2 / n[c] + bb[c] - b[c]^2 / m[c]) / (n[c] - 1) / n[c]
                printf "         cell %d: %.4f on the CPU, %+.4f on the GPU\n", c, a[c] / n[c], -d
                if (d * d > 16 * v + 1e-6) bad = 1; cells++ }
              exit bad || cells == 0 }' "$1" "$2"
}

steps=('measure.every="1 step"' 'measure.metrics=["train_loss"]' 'repeats=1')
train cpu-steps cpu cpu-f32 "${steps[@]}"
train gpu-steps cuda:0 cuda-f32 "${steps[@]}"
for store in cpu-steps gpu-steps; do
    ask "$store" curves --metric train_loss >"$scratch/$store.csv" && column "$scratch/$store.csv" lr wd step mean |
        awk -F, '{ print $1 " " $2 "," $3 "," $4 }' >"$scratch/$store.lines"
done
verdict "losses of the first 20 steps" losses_agree "$scratch/cpu-steps.lines" "$scratch/gpu-steps.lines"

train cpu cpu cpu-f32
train gpu cuda:0 cuda-f32
train again cuda:0 cuda-f32
for store in cpu gpu again; do
    ask "$store" trials >"$scratch/$store.csv" && column "$scratch/$store.csv" cell test_acc >"$scratch/$store.lines"
    column "$scratch/$store.csv" cell repeat outcome step digest >"$scratch/$store.digests"
done
verdict "accuracies within the noise of the repeats" means_agree "$scratch/cpu.lines" "$scratch/gpu.lines"
same_bits() { [[ -s $scratch/gpu.digests ]] && cmp "$scratch/gpu.digests" "$scratch/again.digests"; }
verdict "the same bits twice on the GPU" same_bits

for workload in cnn4 preresnet20; do
    for device in cpu cuda:0; do
        echo "-- bench on $device"
        "$dir/ergodic-worker" bench --workload "$workload" --device "$device" --steps 20 || failed=1
    done
done
say "took $((SECONDS - begun)) s"
[[ $failed == 0 ]]
