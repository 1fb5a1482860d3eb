#!/bin/bash
# Builds what the guest boots from: the distribution's kernel and an initramfs with busybox, ndctl, mkfs.ext4 and the
# programs in DIR/programs. usage: image.sh DIR -> DIR/vmlinuz, DIR/initrd
# Exits with 3 if the kernel cannot be fetched.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin # as in run.sh
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=$1
modules=(nfit nd_pmem crc32c_generic ext4)

# The kernel package changes its name with each security update: ask the meta-package which one it is today.
package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
version=${package#linux-image-}
kernel=$dir/kernel-$version
if [[ ! -e $kernel/complete ]]; then
    rm -rf "$dir"/kernel-* "$dir"/deb
    mkdir -p "$dir/deb"
    (cd "$dir/deb" && apt-get download -qq -o APT::Sandbox::User=root "$package") || exit 3
    dpkg-deb -x "$dir/deb/$package"_*.deb "$kernel"
    depmod -b "$kernel" "$version"
    rm -rf "$dir/deb"
    touch "$kernel/complete"
fi
cp "$kernel/boot/vmlinuz-$version" "$dir/vmlinuz"

root=$dir/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,nv,etc,run} "$root/lib/modules/$version"
cp "$here/init" "$root/init"
chmod +x "$root/init"
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in sh mount umount modprobe cat echo cut tr sed uname mkdir rm poweroff; do
    ln -s busybox "$root/bin/$applet"
done

# Modules with all that they need. From modules.dep: modprobe would leave out what the host's own kernel has built in.
modules_of=$kernel/lib/modules/$version
cp "$modules_of"/modules.{builtin,builtin.modinfo,order} "$root/lib/modules/$version/"
for module in "${modules[@]}"; do
    sed -n "s|^\([^:]*/$module\.ko[^:]*\):|\1|p" "$modules_of/modules.dep"
done | tr ' ' '\n' | sort -u | while read -r file; do
    mkdir -p "$root/lib/modules/$version/$(dirname "$file")"
    cp "$modules_of/$file" "$root/lib/modules/$version/$file"
done
depmod -b "$root" "$version"

for program in "$dir"/programs/*; do # statically linked
    strip -o "$root/bin/$(basename "$program")" "$program"
done
# Programs with the shared libraries they name.
for program in ndctl mkfs.ext4; do
    path=$(command -v "$program")
    cp -L "$path" "$root/bin/$program"
    ldd "$path" | grep -o '/[^ ]*\.so[^ ]*' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
done
(cd "$root" && find . | cpio -o -H newc --quiet) > "$dir/initrd" # unpacking it is slower than reading it here
