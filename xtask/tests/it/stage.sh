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
for _ in $(seq 600); do
    [ -f "$here/hang-$unit" ] || break
    sleep 0.1
done
if [ -f "$here/fail-$unit" ]; then
    echo "cannot write, the disk is full" >&2
    exit 74
fi
if [ "$shard" = whole ] || [ -f "$here/last-$shard" ]; then
    from=$here/prepared/$unit
    # Two copies at once may both find a folder missing; mkdir does not mind.
    mkdir -p "$store"
    (cd "$from" && find . -type d -print0) | (cd "$store" && xargs -0 mkdir -p)
    cp -R "$from/." "$store/"
fi
