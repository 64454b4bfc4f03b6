#!/anteroom/busybox sh
# PID 1 of the bench's raw VM, first half: from the initramfs into the golden image.
b=/anteroom/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
while read -r module; do $b insmod "/$module"; done < /anteroom/modules
until [ -b /dev/vda ]; do $b usleep 2000; done
$b mkdir -p /lower /writes
$b mount -t erofs -o ro /dev/vda /lower
$b mount -t tmpfs writes /writes
$b mkdir /writes/upper /writes/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/writes/upper,workdir=/writes/work root /newroot
$b mount -t tmpfs run /newroot/run
$b cp /anteroom/busybox /anteroom/desktop /anteroom/flags /newroot/run/
$b mkdir /newroot/run/page
$b cp /anteroom/page.html /newroot/run/page/index.html
for folder in dev proc sys; do $b mount --move "/$folder" "/newroot/$folder"; done
exec $b switch_root /newroot /run/desktop
