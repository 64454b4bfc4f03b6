#!/anteroom/busybox sh
# The nested machine's first program: drivers, the file tree of the machine that it runs on (read-only, with
# what is written kept in memory), and the command in it. How the command ended goes to the third serial port.
export PATH=/bin
/anteroom/busybox mkdir -p /bin /proc /sys /dev /below /above /host
/anteroom/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/$module"; done < /anteroom/modules
stty -F /dev/ttyS0 raw -echo
# By a pipe: a serial port is a terminal, on which programs would draw their progress.
mkfifo /said
cat /said > /dev/ttyS0 &
said=$!
exec > /said 2>&1

share() { mount -t 9p -o "trans=virtio,version=9p2000.L,msize=524288,$3" "$1" "$2"; }
share host /below cache=loose,ro
mount -t tmpfs -o size=50% above /above
mkdir /above/upper /above/work
mount -t overlay -o lowerdir=/below,upperdir=/above/upper,workdir=/above/work overlay /host
mount -t proc proc /host/proc
mount -t sysfs sys /host/sys
mount -t cgroup2 cgroup /host/sys/fs/cgroup
mount --bind /dev /host/dev
mkdir -p /host/dev/pts /host/dev/shm /host/out
mount -t devpts devpts /host/dev/pts
mount -t tmpfs shm /host/dev/shm
mount -t tmpfs run /host/run
mount -t tmpfs -o size=50% tmp /host/tmp
[ -e /anteroom/out ] && share out /host/out cache=none
# Folders that the machine has on disks of its own: a disk's letter, and where it belongs.
while read -r disk folder; do
  mkdir -p "/host$folder" "/disk$disk" "/above/upper$disk" "/above/work$disk"
  mount -t erofs -o ro "/dev/vd$disk" "/disk$disk"
  mount -t overlay -o "lowerdir=/disk$disk,upperdir=/above/upper$disk,workdir=/above/work$disk" overlay "/host$folder"
done < /anteroom/disks

# As udev has it.
chroot /host sh -c 'chgrp kvm /dev/kvm || chgrp 108 /dev/kvm' 2> /dev/null
chmod 660 /dev/kvm
# What each processor does when one stands still.
echo 1 > /proc/sys/kernel/softlockup_all_cpu_backtrace
hostname nested
ip link set lo up
cp /anteroom/command /host/run/command
chroot /host /bin/sh /run/command
echo "$?" > /dev/ttyS2
# All that was said is out when nobody has the pipe open; what the command left running may have it.
exec > /dev/null 2>&1
tries=50
while kill -0 "$said" && [ "$((tries -= 1))" -gt 0 ]; do sleep 0.1; done
sync
poweroff -f
