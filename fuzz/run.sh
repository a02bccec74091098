#!/usr/bin/env bash
# Runs fuzz targets one after the other and prints a table. What breaks one lies in target/fuzz/findings afterwards.
#
#   fuzz/run.sh [SECONDS] [TARGET...]     SECONDS for each, 600 if absent; all targets if none is named
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-600}
shift || true
if [ $# = 0 ]; then mapfile -t all < <(basename -s .rs src/bin/*.rs); set -- "${all[@]}"; fi
out=${CARGO_TARGET_DIR:-../target/fuzz}

cp ../Cargo.lock .
cargo build --release "${@/#/--bin=}"
# The readers take files; in memory that costs little.
TMPDIR=$(mktemp -d /dev/shm/flier-fuzz.XXXXXX)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
echo "| target | executions | coverage edges | minutes | findings |"
echo "|---|---|---|---|---|"
for target; do
    case $target in
        data_manifest) seeds=../data-manifests ;;
        image) seeds=../crates/clip-model/tests/golden/images ;;
        pipeline) seeds=../pipelines ;;
        safetensors) seeds=../crates/trainer/tests/golden/methods ;;
        shard) seeds=../crates/artifacts/tests/golden ;;
        *) seeds=seeds/$target ;;
    esac
    mkdir -p "$out/corpus/$target" "$out/findings/$target"
    # A process of its own for each round, so that one finding does not hide the rest.
    cargo run --quiet --release --bin "$target" -- "$out/corpus/$target" "$seeds" \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -artifact_prefix="$out/findings/$target/" \
        -fork=1 -ignore_crashes=1 -ignore_timeouts=1 -ignore_ooms=1 >"$out/$target.log" 2>&1 || true
    read -r executions edges < <(sed -n 's/^#\([0-9]*\): cov: \([0-9]*\) .*/\1 \2/p' "$out/$target.log" | tail -n 1) || true
    echo "| $target | $executions | $edges | $((seconds / 60)) | $(ls "$out/findings/$target" | wc -l) |"
done
