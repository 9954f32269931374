#!/usr/bin/env bash
# A SLURM cluster of four virtual nodes on this machine, for trying sweeps and for the tests. Needs root and Debian's packages:
#   apt-get install --no-install-recommends slurm-wlm munge slurmdbd mariadb-server
#   scripts/slurm_sandbox.sh up|down|status
# `down` succeeds, too, where there is nothing or only half of it. MAX_ARRAY_SIZE=4 makes a site of short arrays.
# Each node claims 4 CPUs, 16 GB and 8 GPUs (of any device files); nothing is enforced. Partitions: batch, and urgent, which
# preempts it. Accounting by slurmdbd and MariaDB. Everything waits with a limit; `up` on a running cluster mends and keeps it.
# It owns /etc/slurm on the machine: where there is a slurm.conf that is not its own, it refuses.
set -euo pipefail

NODES=4
CPUS_PER_NODE=4
HOST=$(hostname -s)
CONF=/etc/slurm
MARK="# written by slurm_sandbox.sh"
DATA=/var/lib/slurm_sandbox   # state of controller, nodes and database; removed by `down`
LOG=/var/log/slurm
SOCKET=$DATA/mysql/mysql.sock
NAMES=$(seq -f 'c%g' -s ' ' "$NODES")

die() { echo "slurm_sandbox: $*" >&2; exit 1; }

# await SECONDS WHAT COMMAND...: until the command succeeds
await() {
    local seconds=$1 what=$2; shift 2
    local end=$((SECONDS + seconds))
    until timeout 10 "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { tail -n 5 "$LOG"/*.log >&2 || true; die "$what did not come up within $seconds s"; }
        sleep 0.2
    done
}

# a pid file may be left over, and its number taken by another program since
running() { [ -s "$1" ] && grep -qsE '^(slurm|munged|mariadbd)' "/proc/$(cat "$1")/comm"; }

check() {
    [ "$(id -u)" = 0 ] || die "needs root"
    for program in slurmctld slurmd slurmdbd munged mariadbd; do
        PATH=$PATH:/usr/sbin command -v $program >/dev/null || die "$program is not installed; apt-get install --no-install-recommends slurm-wlm munge slurmdbd mariadb-server"
    done
    if [ -s $CONF/slurm.conf ] && ! grep -qF "$MARK" $CONF/slurm.conf; then
        die "$CONF/slurm.conf belongs to another cluster; this machine is left alone"
    fi
}

folders() {
    mkdir -p $CONF $LOG $DATA/ctld $DATA/run $DATA/mysql /run/munge /var/log/munge /var/lib/munge
    for name in $NAMES; do mkdir -p "$DATA/$name"; done
    chown munge: /run/munge /var/log/munge /var/lib/munge /etc/munge
    chown mysql: $DATA/mysql
    chmod 711 $DATA
    # torch's rendezvous looks the nodes' names up
    grep -q ' c1 ' /etc/hosts || echo "127.0.0.1 $NAMES # slurm sandbox" >> /etc/hosts
}

configure() {
    cat > $CONF/slurm.conf.new <<CONFIG
$MARK
ClusterName=sandbox
SlurmctldHost=$HOST(127.0.0.1)
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
ReturnToService=2
SlurmdTimeout=20
KillWait=5
MinJobAge=86400
MaxArraySize=${MAX_ARRAY_SIZE:-1001}
MaxJobCount=50000
SlurmctldPort=6817
SlurmctldPidFile=$DATA/run/slurmctld.pid
SlurmdPidFile=$DATA/run/slurmd-%n.pid
SlurmdSpoolDir=$DATA/%n
StateSaveLocation=$DATA/ctld
SlurmctldLogFile=$LOG/slurmctld.log
SlurmdLogFile=$LOG/slurmd-%n.log
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=6819
AccountingStorageEnforce=associations
NodeName=c[1-$NODES] NodeAddr=127.0.0.1 NodeHostname=$HOST Port=[17001-$((17000 + NODES))] CPUs=$CPUS_PER_NODE Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS_PER_NODE ThreadsPerCore=1 RealMemory=16000 Gres=gpu:mi250x:8 State=UNKNOWN
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent Nodes=ALL Default=NO MaxTime=INFINITE State=UP PriorityTier=10
CONFIG
    # what runs by other settings is started anew
    cmp -s $CONF/slurm.conf.new $CONF/slurm.conf || stop_slurm
    mv $CONF/slurm.conf.new $CONF/slurm.conf
    # nodes with a bare count stay invalid
    echo "NodeName=c[1-$NODES] Name=gpu Type=mi250x File=$GPU_FILES" > $CONF/gres.conf
    cat > $CONF/slurmdbd.conf <<CONFIG
$MARK
AuthType=auth/munge
DbdHost=localhost
DbdPort=6819
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=33306
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile=$LOG/slurmdbd.log
PidFile=$DATA/run/slurmdbd.pid
CONFIG
    chmod 600 $CONF/slurmdbd.conf
}

devices() { # stand-ins of the GPUs: device files that are there, else plain files; SLURM only wants them to exist
    GPU_FILES=/dev/tty[0-7]
    for number in 0 1 2 3 4 5 6 7; do
        [ -c "/dev/tty$number" ] || GPU_FILES=$DATA/gpu[0-7]
        touch "$DATA/gpu$number"
    done
}

start_munge() {
    running /run/munge/munged.pid && return
    [ -s /etc/munge/munge.key ] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none; }
    chown munge: /etc/munge/munge.key && chmod 400 /etc/munge/munge.key
    rm -f /run/munge/munge.socket.2*
    runuser -u munge -- /usr/sbin/munged
    await 10 munged munge -n
}

start_database() {
    running $DATA/mysql/mariadb.pid || {
        [ -d $DATA/mysql/mysql ] || mariadb-install-db --user=mysql --datadir=$DATA/mysql --skip-test-db >$LOG/mariadb-install.log 2>&1
        setsid mariadbd --no-defaults --user=mysql --datadir=$DATA/mysql --socket=$SOCKET \
            --pid-file=$DATA/mysql/mariadb.pid --bind-address=127.0.0.1 --port=33306 --skip-name-resolve --innodb-buffer-pool-size=64M \
            --innodb-flush-log-at-trx-commit=0 </dev/null >$LOG/mariadb.log 2>&1 &
    }
    await 60 mariadbd mariadb --socket=$SOCKET -e 'select 1'
    timeout 20 mariadb --socket=$SOCKET -e "create database if not exists slurm_acct_db;
        create user if not exists slurm@127.0.0.1 identified by 'slurm';
        grant all on slurm_acct_db.* to slurm@127.0.0.1"
}

start_slurm() {
    running $DATA/run/slurmdbd.pid || slurmdbd
    await 30 slurmdbd sacctmgr -n show cluster
    running $DATA/run/slurmctld.pid || slurmctld
    await 30 slurmctld scontrol ping
    for name in $NAMES; do
        running "$DATA/run/slurmd-$name.pid" || slurmd -N "$name"
    done
    # a node that was down is taken back
    timeout 10 scontrol update "nodename=c[1-$NODES]" state=resume >/dev/null 2>&1 || true
    await 60 "the nodes" bash -c "[ \$(sinfo -h -p batch -N -t idle,mix,alloc -o %N | sort -u | wc -l) = $NODES ]"
}

up() {
    check
    folders
    devices
    configure
    start_munge
    start_database
    start_slurm
    sinfo
}

stop() { # by the id in a pid file
    running "$1" || return 0
    kill "$(cat "$1" 2>/dev/null)" 2>/dev/null || true
    for _ in $(seq 50); do running "$1" || return 0; sleep 0.1; done
    kill -9 "$(cat "$1" 2>/dev/null)" 2>/dev/null || true
}

stop_slurm() {
    for name in $NAMES; do stop "$DATA/run/slurmd-$name.pid"; done
    stop $DATA/run/slurmctld.pid
}

down() {
    [ "$(id -u)" = 0 ] || die "needs root"
    [ -d $DATA ] || grep -qsF "$MARK" $CONF/slurm.conf || { echo "slurm_sandbox: nothing to take down"; return; }
    timeout 20 scancel --state=RUNNING --user=root 2>/dev/null || true
    timeout 20 scancel --user=root 2>/dev/null || true
    stop_slurm
    stop $DATA/run/slurmdbd.pid
    stop $DATA/mysql/mariadb.pid
    stop /run/munge/munged.pid
    rm -rf $DATA $CONF/slurm.conf $CONF/gres.conf $CONF/slurmdbd.conf
}

export PATH=$PATH:/usr/sbin:/sbin
case "${1:-}" in
    up) up ;;
    down) down ;;
    status) timeout 10 sinfo && timeout 10 squeue ;;
    *) die "usage: $0 up|down|status" ;;
esac
