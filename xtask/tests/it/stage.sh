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
while [ $# -gt 0 ]; do
    case $1 in
    --spec) spec=$2 ;;
    --store) store=$2 ;;
    --shard) shard=$2 ;;
    esac
    shift
done
unit=${spec##*/}
unit=${unit%.json}
echo "$unit $shard" >>"$here/started"
trap 'echo "stopped" >&2; exit 143' TERM
tenths=0
while [ -f "$here/hang-$unit" ] && [ $tenths -lt 600 ]; do
    sleep 0.1
    tenths=$((tenths + 1))
done
if [ -f "$here/fail-$unit" ]; then
    echo "cannot write, the disk is full" >&2
    exit 74
fi
if [ "$shard" = whole ] || [ -f "$here/last-$shard" ]; then
    mkdir -p "$store"
    # A copy fails where another one makes the same folder in this moment.
    for _ in 1 2 3 4; do cp -R "$here/prepared/$unit/." "$store/" && exit 0; done
    exit 1
fi
