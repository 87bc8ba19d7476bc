#!/bin/sh
# A systemd of the test's own as the first process of namespaces of its own, over a copy of this machine's files that is thrown
# away; the kernel's settings are out of its reach.
#
#   systemd.sh NAME FOLDER     NAME of its cgroups, which the caller removes; FOLDER is at /mnt inside, its `unit` is installed
set -eu
name=$1 folder=$2

if [ "${3:-}" != inside ]; then
    # In every hierarchy a group of its own, which is then the root of what it can see.
    cut -d: -f2 /proc/self/cgroup | while read -r controllers; do
        case $controllers in
        '') for dir in /sys/fs/cgroup /sys/fs/cgroup/unified; do if [ -e "$dir/cgroup.controllers" ]; then break; fi; done ;;
        name=*) dir=/sys/fs/cgroup/${controllers#name=} ;;
        *) dir=/sys/fs/cgroup/$controllers ;;
        esac
        mkdir -p "$dir/$name"
        # Nobody may be put into a group of these that has none.
        for file in cpuset.cpus cpuset.mems; do
            if [ -e "$dir/$name/$file" ] && [ "$controllers" = cpuset ]; then cat "$dir/$file" >"$dir/$name/$file"; fi
        done
        echo $$ >"$dir/$name/cgroup.procs"
    done
    exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc "$0" "$name" "$folder" inside
fi

root=$folder/root
mount --make-rprivate /
mkdir -p "$root" "$folder/over"
mount -t tmpfs tmpfs "$folder/over"
mkdir "$folder/over/upper" "$folder/over/work" "$folder/over/share"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/over/upper,workdir=$folder/over/work" "$root"
hybrid=false
if [ -d /sys/fs/cgroup/systemd ]; then hybrid=true; fi
cd "$root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
if $hybrid; then
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
else
    mount -t cgroup2 cgroup2 sys/fs/cgroup
fi
mount -t tmpfs tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm old 2>/dev/null || true
ln -s /proc/self/fd dev/fd
mount --bind "$folder" mnt
echo 5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e >etc/machine-id
rm -rf etc/systemd/system/*.wants etc/tagfall var/lib/tagfall
mkdir -p etc/tagfall etc/systemd/system
cp mnt/unit etc/systemd/system/tagfall.service
cp mnt/supervisor.toml etc/tagfall/
cp mnt/tagfall usr/bin/tagfall
printf '[Unit]\nDescription=Nothing but what the test starts\n' >etc/systemd/system/test.target
pivot_root . old
cd /
umount -l /old
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=test.target --show-status=0
