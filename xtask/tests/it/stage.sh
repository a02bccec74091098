#!/bin/sh
# Stands for a stage: commits what the test prepared for the unit, or does what a file beside it asks for.
here=${0%/*}
if [ "$1" = report ]; then
    while [ $# -gt 0 ]; do
        if [ "$1" = --out ]; then out=$2; fi
        shift
    done
    echo report >>"$here/started"
    echo "<html></html>" >"$out/report.html"
    exit 0
fi
shard=whole
logs=
while [ $# -gt 0 ]; do
    case $1 in
    --store) store=$2 ;;
    --shard) shard=$2 ;;
    --unit-logs) logs=yes ;;
    esac
    shift
done
echo "${0##*/}" >>"$here/processes"
trap 'echo "stopped" >&2; exit 143' TERM

# Computes one unit; gives its exit code.
compute() {
    echo "$unit $shard" >>"$here/started"
    tenths=0
    while [ -f "$here/hang-$unit" ] && [ $tenths -lt 600 ]; do
        sleep 0.1
        tenths=$((tenths + 1))
    done
    if [ -f "$here/die-$unit" ]; then kill -KILL $$; fi
    if [ -f "$here/fail-$unit" ]; then
        echo "cannot write, the disk is full" >&2
        return 74
    fi
    if [ "$shard" = whole ] || [ -f "$here/last-$shard" ]; then
        mkdir -p "$store"
        # A copy fails where another one makes the same folder in this moment.
        for _ in 1 2 3 4; do cp -R "$here/prepared/$unit/." "$store/" && return 0; done
        return 1
    fi
}

while IFS= read -r spec; do
    unit=${spec##*/}
    unit=${unit%.json}
    if [ -n "$logs" ]; then
        exec 2>>"$store/logs/$(cat "$here/keys/$unit").log"
    fi
    compute
    echo $?
done
