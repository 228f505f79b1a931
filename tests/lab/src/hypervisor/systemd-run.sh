#!/bin/sh
# The image's systemd-run, as far as anything in an instance uses it: a program in the background, started anew if it
# fails, that writes to the console.
while :; do
    case "$1" in
    --*) shift;;
    *) break;;
    esac
done
(until "$@"; do sleep 5; done) &
