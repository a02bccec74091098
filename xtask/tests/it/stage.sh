#!/bin/sh
# Stands for a stage: commits what the test prepared for the unit, or does what a file beside it asks for.
here=$(dirname "$0")
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
unit=$(basename "$spec" .json)
echo "$unit $shard" >>"$here/started"
if [ -f "$here/hang-$unit" ]; then
    trap 'echo "stopped" >&2; exit 143' TERM
    sleep 60 &
    wait
fi
if [ -f "$here/fail-$unit" ]; then
    echo "cannot write, the disk is full" >&2
    exit 74
fi
if [ "$shard" = whole ]; then
    from=$here/prepared/$unit
    # Two copies at once may both find a folder missing; mkdir does not mind.
    find "$from" -type d | while read -r folder; do
        mkdir -p "$store/${folder#"$from"}"
    done
    cp -R "$from/." "$store/"
fi
