#!/bin/sh
# Process 1 of an instance: what a machine image's own init and cloud-init would do, in that order.
# Ends on SIGTERM (which `shutdown` and its kin send), and with it ends every process of the instance.
trap 'exit 0' TERM
mount -t proc proc /proc
mkdir -p /run/lock /run/munge /var/log/slurm /var/spool/slurmd

if [ -e /etc/munge/munge.key ]; then
    chown -R munge:munge /etc/munge
    chmod 0700 /etc/munge
    systemctl restart munge || echo "init: munged did not start" >&2
fi

if [ -e /var/lib/cloud/instance/user-data.sh ]; then
    (
        /var/lib/cloud/instance/user-data.sh </dev/null
        echo "cloud-init: user data ended with status $?"
    ) &
fi

# Waiting is also what reaps the orphans that the user data leaves.
sleep infinity &
while :; do wait; done
