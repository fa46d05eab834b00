#!/usr/bin/env bash
# What a GPU tells in a few minutes, on a machine without a network: are the methods right on it, how fast are they at
# paper shapes (random data), and what does length cost. Each step has a time limit and is done once: called again with
# the same KEEP, the script goes on where it stopped. docs/gpus-and-clusters.md has the commands, and what comes back.
#
#   OUT=out WHEELS=wheels bash benchmarks/gpu_slot.sh
#
# OUT      folder for what is brought back: slot.tar.gz, packed anew after each step and every 20 seconds
# KEEP     folder of records, logs and notes of finished steps, outside of OUT (default: in the folder of temporary files)
# FROM     a slot.tar.gz of an earlier slot to go on from, where KEEP is new
# WHEELS   folder of wheels that the machine's Python lacks (pydantic and what it needs); none by default
# STASH    folder of original data that this call brings: moved to KEEP/mirror, where NAME.part-0, NAME.part-1, ... are
#          joined in their order, so that what is larger than a call may carry comes in several (with STEPS=machine
#          a call only brings its part)
# DATA     the sets to prepare from there, such as lfw_112; none by default
# DEVICE   cuda by default; cpu to rehearse
# TIER     paper by default; smoke or mini to rehearse
# COMPILE  --compile by default; --no-compile to rehearse, since compiling for a CPU takes minutes
# MINUTES  in all: no step begins after them (default: 9)
# CAMPAIGN words for `replications campaign`, which then takes the minutes that are left, as in "--tier mini"; it goes on
#          at each call
# BATCH, SWEEP_LENGTHS ("256 512 1024"), DOCTOR_SECONDS, SPEED_SECONDS, SWEEP_SECONDS: smaller ones to rehearse
# STEPS    only those whose name matches this pattern of the shell, such as 'speed-*'
set -u
die() {
    echo "$1" >&2
    exit 2
}
cd "$(dirname "$0")/.."
: "${OUT:?give a folder for what is brought back}" "${DEVICE:=cuda}" "${TIER:=paper}" "${MINUTES:=9}" "${STEPS:=*}" "${COMPILE:=--compile}"
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd)
KEEP=${KEEP:-${TMPDIR:-/tmp}/replications-slot-$DEVICE-$TIER}
[ -e "$KEEP/done" ] || [ -z "${FROM:-}" ] || { mkdir -p "$KEEP" && tar -xzf "$FROM" -C "$KEEP"; } ||
    die "FROM: $FROM cannot be unpacked"
mkdir -p "$KEEP/logs" "$KEEP/done" "$KEEP/work" && KEEP=$(cd "$KEEP" && pwd)
PYTHON=${PYTHON:-python}
export PYTHONPATH="$KEEP/site:$PWD" PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
failed=0

# Seconds by a clock that nobody sets, where there is one
now() {
    local up=$SECONDS
    [ ! -r /proc/uptime ] || read -r up _ < /proc/uptime
    echo "${up%.*}"
}

[[ $MINUTES =~ ^[1-9][0-9]*$ ]] || die "MINUTES is a whole number from 1 on, not '$MINUTES'"
command -v timeout > /dev/null || die "the command 'timeout' is missing: install coreutils"
END=$(($(now) + MINUTES * 60))

pack() {
    # Data stay here, so another machine has to prepare its own.
    tar -czf "$OUT/.slot.new" -C "$KEEP" --exclude=./site --exclude=./data --exclude=./mirror --exclude=./work \
        --exclude='./done/data*' . 2> /dev/null
    [ $? -gt 1 ] || mv "$OUT/.slot.new" "$OUT/slot.tar.gz" # 1: a log grew meanwhile
}

# The line that tells how a step ended
last() {
    grep -m 1 ' claims decided in ' "$KEEP/logs/$1.log" ||
        grep -v '^[0-9]* methods\? measured' "$KEEP/logs/$1.log" | tail -1
}

child='' packer=''
trap 'kill $child $packer 2> /dev/null; wait; pack; echo "interrupted: the same command goes on"; exit 130' INT TERM

# step NAME SECONDS COMMAND...: within its limit and what is left of the minutes; one in EACH is not done once for all
EACH=" machine campaign "
step() {
    local name=$1 limit=$2 begun
    begun=$(now)
    shift 2
    # shellcheck disable=SC2053
    [[ $name == $STEPS ]] || return 0
    [ -e "$KEEP/done/$name" ] && [[ $EACH != *" $name "* ]] && { echo "$name: done before"; return 0; }
    local left=$((END - $(now)))
    [ "$left" -gt 5 ] || { echo "$name: not begun, the $MINUTES minutes are over"; failed=1; return 0; }
    [ "$limit" -lt "$left" ] || limit=$left
    # Whatever ends this script, the records so far have been packed.
    (trap exit TERM; while sleep "${PACK_SECONDS:-20}" & wait $! && kill -0 $$; do pack; done) > /dev/null 2>&1 &
    packer=$!
    timeout -k 5 "$limit" "$@" > "$KEEP/logs/$name.log" 2>&1 &
    child=$!
    wait "$child"
    local code=$?
    kill "$packer" && wait "$packer" 2> /dev/null
    child='' packer=''
    if [ $code = 0 ]; then
        touch "$KEEP/done/$name"
        echo "$name: $(($(now) - begun)) s: $(last "$name")"
    else
        failed=1
        [ $code = 124 ] && echo "$name: stopped after $limit s" || echo "$name: failed ($code): $(last "$name")"
    fi
    pack
}

# speed NAME METHOD [OPTION...]: one method on random data; a record stays even where a later one fails
speed() {
    local name=$1 method=$2
    shift 2
    step "speed-$name" "${SPEED_SECONDS:-90}" "$PYTHON" -m replications throughput "$method" --synthetic \
        --tier "$TIER" --device "$DEVICE" --results "$KEEP/results" --done "$KEEP/work/$name.json" "$@"
}

sweep() {
    step "sweep-$1" "${SWEEP_SECONDS:-60}" "$PYTHON" -m benchmarks.length_sweep "$2" --tier "$TIER" \
        --device "$DEVICE" --out "$KEEP/sweeps/$1.json" ${SWEEP_LENGTHS:+--lengths $SWEEP_LENGTHS}
}

if [ -n "${WHEELS:-}" ]; then
    compgen -G "$WHEELS/*.whl" > /dev/null || die "WHEELS: there is no wheel in $WHEELS"
    for wheel in "$WHEELS"/*.whl; do
        "$PYTHON" -m zipfile -e "$wheel" "$KEEP/site" || die "WHEELS: $wheel cannot be unpacked"
    done
fi
if [ -n "${STASH:-}" ]; then
    [ -d "$STASH" ] || die "STASH: there is no folder $STASH"
    mkdir -p "$KEEP/mirror" && cp -R "$STASH"/. "$KEEP/mirror" || die "STASH: $STASH cannot be copied to $KEEP/mirror"
    find "$KEEP/mirror" -name '*.part-0' | while read -r first; do
        whole=${first%.part-0} number=0
        while [ -e "$whole.part-$number" ]; do
            cat "$whole.part-$number"
            number=$((number + 1))
        done > "$whole"
        echo "stash: $(basename "$whole") of $number parts, $(wc -c < "$whole") bytes"
    done
fi
# Without torch, the packages or the card nothing can follow: its line says what is missing.
MACHINE="
import sys
try:
    import torch
    from replications.errors import UserError
    from replications.measurement.hardware import resolve_device
    from replications.spec import RunSpec
except ModuleNotFoundError as error:
    sys.exit(f'error: {error}: bring its wheel, and those that it needs, in WHEELS')
try:
    device = resolve_device('$DEVICE')
    torch.ones(8, device=device).sum().item()
except (UserError, RuntimeError) as error:
    sys.exit(' '.join(f'error: {error}'.split()))
print('torch', torch.__version__, 'on', torch.cuda.get_device_name(device) if device.type == 'cuda' else device)
"
wanted=$STEPS STEPS=machine
step machine 90 "$PYTHON" -c "$MACHINE"
STEPS=$wanted
[ $failed = 0 ] || exit 1
step data 90 "$PYTHON" -m replications fetch --tier smoke --data-root "$KEEP/data"
for name in ${DATA:-}; do
    mkdir -p "$KEEP/mirror"
    step "data-$name" 120 "$PYTHON" -m replications fetch "$name" --data-root "$KEEP/data" --data-mirror "$KEEP/mirror"
done
if "$PYTHON" -m replications doctor --help > /dev/null 2>&1; then
    step doctor "${DOCTOR_SECONDS:-150}" "$PYTHON" -m replications doctor --device "$DEVICE" --out "$KEEP/doctor.jsonl" \
        --limit "$((${DOCTOR_SECONDS:-150} * 4 / 5))" --data-root "$KEEP/data"
    ! grep -q 'checks are left' "$KEEP/logs/doctor.log" 2> /dev/null || rm -f "$KEEP/done/doctor"
fi

# What the figures to reach are about comes first. Batches are those that fit 80 GB with room.
speed mae mae/mae "$COMPILE" --batch "${BATCH:-256}"
speed vit vit/vit "$COMPILE" --batch "${BATCH:-256}"
speed arcface arcface/arcface --batch "${BATCH:-512}"
speed arcface-compiled arcface/arcface "$COMPILE" --batch "${BATCH:-512}"
speed votenet votenet/votenet
speed detr detr/detr --batch "${BATCH:-16}"
speed pointnet2 pointnet2/ssg
speed pointconv pointconv/pointconv
sweep flash flash/flash
sweep linear linear_attention/linear
# Each of these fills what is left.
speed mae-eager mae/mae --no-compile --batch "${BATCH:-256}"
speed vit-eager vit/vit --no-compile --batch "${BATCH:-256}"
if [ "$DEVICE" != cpu ]; then
    # Small enough to wait for launches: what a captured step gains.
    TIER=standard speed small-eager arcface/arcface
    TIER=standard speed small-captured arcface/arcface --set recipe.capture=true
    speed arcface-max arcface/arcface --batch max
fi
# What is left of the minutes goes to claims: CAMPAIGN="--tier standard --targets face_verification" for LFW.
LEFT=$(((END - $(now) - 15) / 6)) # tenths of a minute
if [ -n "${CAMPAIGN:-}" ] && [ "$LEFT" -le 0 ]; then
    echo "campaign: not begun, the $MINUTES minutes are over"
    failed=1
elif [ -n "${CAMPAIGN:-}" ]; then
    # shellcheck disable=SC2086
    step campaign "$((LEFT * 6 + 15))" "$PYTHON" -m replications campaign $CAMPAIGN --minutes "$((LEFT / 10)).$((LEFT % 10))" \
        --device "$DEVICE" --runs-per-gpu "${RUNS_PER_GPU:-8}" --data-root "$KEEP/data" --work "$KEEP/work" \
        --results "$KEEP/results"
fi
pack
exit $failed
