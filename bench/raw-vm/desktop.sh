#!/bin/sh
# PID 1 of the bench's raw VM, second half: X, window manager and Chromium on a page of the guest's
# own. What the page says on its console goes to the serial line.
mkdir -p /dev/shm /dev/pts /home/person/.run
mount -t tmpfs shm /dev/shm
mount -t devpts -o gid=5,ptmxmode=0666 devpts /dev/pts
mount -t tmpfs tmp /tmp
mkdir -m 1777 /tmp/.X11-unix
chown person: /home/person/.run
/run/busybox ifconfig lo 127.0.0.1 up
/run/busybox httpd -p 127.0.0.1:8080 -h /run/page
cd /home/person || exit 1
export HOME=/home/person USER=person LANG=C.UTF-8 XDG_RUNTIME_DIR=/home/person/.run DISPLAY=:1
export DBUS_SESSION_BUS_ADDRESS=disabled: DBUS_SYSTEM_BUS_ADDRESS=disabled:
person() { setpriv --reuid 1000 --regid 1000 --clear-groups "$@"; }
person Xvnc :1 -geometry 1280x720 -depth 24 -SecurityTypes None -rfbport -1 \
  -nolisten tcp -noreset > /dev/null 2>&1 &
until [ -S /tmp/.X11-unix/X1 ]; do /run/busybox usleep 20000; done
person openbox > /dev/null 2>&1 &
# shellcheck disable=SC2046 # no flag holds a space
person chromium $(grep ^-- /run/flags) --user-data-dir=/home/person/.chromium \
  --window-size=1280,720 --enable-logging=stderr http://127.0.0.1:8080/ > /dev/null 2> /dev/console
