#!/usr/bin/env bash
# A Slurm cluster on one machine, for the tests: several nodes and fake GPUs on loopback, without systemd, munge or cgroups.
#
#   slurm.sh install              Debian's packages, if they are missing (root, apt-get)
#   slurm.sh up DIR [NODES]       starts it with all its files below DIR
#   slurm.sh start DIR DAEMON     starts one daemon again: `slurmctld`, or a node such as `n2`
#   slurm.sh stop DIR DAEMON      ends one daemon as a crash does
#   slurm.sh down DIR             ends what `up` started, by process id
#
# Clients find it by SLURM_CONF=DIR/slurm.conf. Exit code 69: it cannot be had here, the message says why.
set -euo pipefail

usage() { sed -n '4,8s/^# *//p' "$0" >&2; exit 2; }
unavailable() { echo "no Slurm here: $1" >&2; exit 69; }

# Debian keeps the daemons out of the path of ordinary users.
PATH=$PATH:/usr/sbin:/sbin
packages=(slurmctld slurmd slurm-client slurm-wlm-basic-plugins)

is_installed() { command -v slurmctld && command -v slurmd && command -v sbatch; } >/dev/null

install_packages() {
    is_installed && return
    command -v apt-get >/dev/null || unavailable "slurmctld and slurmd are not installed and there is no apt-get"
    [ "$(id -u)" = 0 ] || unavailable "it is not installed; as root: apt-get install ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    local log
    log=$(mktemp)
    if ! { apt-get install -y --no-install-recommends "${packages[@]}" ||
        { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; }; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        unavailable "apt-get cannot install ${packages[*]}"
    fi
    rm -f "$log"
}

# A port range that nothing listens on: controller, then one port for each node.
free_ports() {
    python3 - "$1" <<'PYTHON'
import os, socket, sys
count = int(sys.argv[1])
for first in range(20000 + os.getpid() * 64 % 20000, 60000, 64):
    sockets = []
    try:
        for port in range(first, first + count):
            sockets.append(socket.socket())
            sockets[-1].bind(("127.0.0.1", port))
    except OSError:
        continue
    finally:
        for each in sockets:
            each.close()
    print(first)
    sys.exit()
sys.exit("no free ports")
PYTHON
}

configure() {
    local folder=$1 nodes=$2 host port
    host=$(hostname -s)
    port=$(free_ports $((nodes + 1)))
    mkdir -p "$folder"/{state,log,run}
    for gpu in 0 1; do
        # Slurm wants a device file for each GPU; these are the null device.
        [ -e "$folder/gpu$gpu" ] || mknod "$folder/gpu$gpu" c 1 3
    done
    echo "NodeName=n[1-$nodes] Name=gpu File=$folder/gpu[0-1]" >"$folder/gres.conf"
    {
        cat <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/run/slurmctld.pid
SlurmdPidFile=$folder/run/%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
# Small, so that a short test needs several arrays.
MaxArraySize=${MAX_ARRAY_SIZE:-21}
MinJobAge=3600
KillWait=2
MessageTimeout=10
SlurmdTimeout=20
ReturnToService=1
CONF
        for i in $(seq "$nodes"); do
            mkdir -p "$folder/spool/n$i"
            echo "NodeName=n$i NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + i)) CPUs=$(nproc) RealMemory=4000 Gres=gpu:2 State=UNKNOWN"
        done
        echo "PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=0"
        echo "PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF"
    } >"$folder/slurm.conf"
}

start() { if [ "$2" = slurmctld ]; then slurmctld; else slurmd -N "$2"; fi; }

wait_until_idle() {
    for _ in $(seq 400); do
        [ "$(sinfo -h -N -p debug -o %T 2>/dev/null | grep -c '^idle$')" = "$2" ] && return
        sleep 0.05
    done
    tail -n 20 "$1"/log/*.log >&2
    unavailable "the daemons were started and the nodes did not become idle; their logs are above"
}

is_ours() { [ -n "$1" ] && tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | grep -q '^\(/usr/sbin/\)\?slurm'; }

stop() {
    local pid
    pid=$(cat "$1/run/$2.pid" 2>/dev/null || true)
    is_ours "$pid" || return 0
    kill -9 "$pid"
    while is_ours "$pid"; do sleep 0.02; done
}

# Ends the processes that watch over tasks; they outlive their daemon and have its log open.
end_steps() {
    local pid
    for pid in $(pgrep -x slurmstepd || true); do
        if ls -l "/proc/$pid/fd" 2>/dev/null | grep -qF " $1/"; then kill -9 "$pid" || true; fi
    done
}

down() {
    local pids pid alive
    pids=$(cat "$1"/run/*.pid 2>/dev/null || true)
    [ -n "$pids" ] || return 0
    timeout 5 scancel --state=pending --quiet -p debug -p urgent 2>/dev/null || true
    timeout 5 scancel --quiet -p debug -p urgent 2>/dev/null || true
    for _ in $(seq 60); do
        [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break
        sleep 0.1
    done
    timeout 5 scontrol shutdown 2>/dev/null || true
    for _ in $(seq 100); do
        alive=
        for pid in $pids; do is_ours "$pid" && alive=1; done
        [ -z "$alive" ] && break
        sleep 0.1
    done
    for pid in $pids; do
        if is_ours "$pid"; then kill -9 "$pid" || true; fi
    done
    end_steps "$1"
}

case ${1:-} in
install)
    install_packages
    ;;
up | start | stop | down)
    [ -n "${2:-}" ] || usage
    folder=$(realpath -m "$2")
    export SLURM_CONF=$folder/slurm.conf
    case $1 in
    up)
        is_installed || unavailable "it is not installed; run \`$0 install\`"
        [ "$(id -u)" = 0 ] || unavailable "its test configuration needs root"
        configure "$folder" "${3:-3}"
        start "$folder" slurmctld
        for i in $(seq "${3:-3}"); do start "$folder" "n$i"; done
        wait_until_idle "$folder" "${3:-3}"
        ;;
    start) start "$folder" "$3" ;;
    stop) stop "$folder" "$3" ;;
    down) down "$folder" ;;
    esac
    ;;
*)
    usage
    ;;
esac
