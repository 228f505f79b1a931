#!/bin/sh
# The image's systemctl, as far as anything in an instance uses it: `restart munge`.
if [ "$*" != "restart munge" ]; then
    echo "systemctl: this image knows \`restart munge\` alone" >&2
    exit 1
fi
if [ -e /run/munge/munged.pid ]; then
    old=$(cat /run/munge/munged.pid)
    kill "$old" 2>/dev/null
    while kill -0 "$old" 2>/dev/null; do sleep 0.05; done
fi
mkdir -p /run/munge /var/lib/munge /var/log/munge
chown munge:munge /run/munge /var/lib/munge /var/log/munge
chmod 0700 /var/lib/munge /var/log/munge
exec setpriv --reuid munge --regid munge --clear-groups munged --num-threads 2
