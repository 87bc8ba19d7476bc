#!/bin/sh
# Gathers the root of an image in ./rootfs: `tagfall`, the programs of your services, the libraries that these load, and
# nothing else but certificates and two users.
#
#   ./rootfs.sh TAGFALL [PROGRAM…]      PROGRAM: a path here; it is put into /usr/local/bin
set -eu
[ $# -gt 0 ] || {
    echo "usage: $0 TAGFALL [PROGRAM…]" >&2
    exit 2
}

rm -rf rootfs homes
mkdir -p rootfs/usr/bin rootfs/usr/local/bin rootfs/etc/tagfall rootfs/run rootfs/tmp rootfs/var/lib homes/tagfall
chmod 1777 rootfs/tmp
cp "$1" rootfs/usr/bin/tagfall
tagfall=$1
shift
for program in "$@"; do cp "$program" rootfs/usr/local/bin/; done

# Each library where the loader will look for it. A program without any is not an error.
for program in "$tagfall" "$@"; do ldd "$program" 2>/dev/null || true; done |
    awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' | sort -u |
    while read -r library; do
        mkdir -p "rootfs$(dirname "$library")"
        cp -L "$library" "rootfs$library"
    done

# By which servers are checked, where the repository is reached by https.
certificates=/etc/ssl/certs/ca-certificates.crt
if [ -e "$certificates" ]; then
    mkdir -p rootfs/etc/ssl/certs
    cp -L "$certificates" "rootfs$certificates"
fi

cat >rootfs/etc/passwd <<'END'
root:x:0:0:root:/root:/nonexistent
tagfall:x:1000:1000:tagfall:/home/tagfall:/nonexistent
END
cat >rootfs/etc/group <<'END'
root:x:0:
tagfall:x:1000:
END
