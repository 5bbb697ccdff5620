#!/bin/sh
# provision.sh kernel|install FRONTEND: makes a Debian 12 a machine for that frontend.
#
#   kernel    installs the kernel that vagrant/kernels names for it, unless one of that series runs or is there
#   install   installs the packages that are missing, the binary from bin/ and the units, starts the daemon, and ends with
#             what doctor says: an error when disks are not served through that frontend
#
# Both do nothing for what is there already, so both can run again, and need no network when nothing is missing.
set -eu
step=$1 frontend=$2
checkout=$(cd "$(dirname "$0")/.." && pwd)
bin=$checkout/bin/glidefs-appliance
export DEBIAN_FRONTEND=noninteractive

say() { echo "provision: $*"; }

# suite NAME: lets apt see that suite; one that it didn't know, only for what is asked of it by version.
suite() {
	! apt-cache policy | grep -q "n=$1," || return 0
	case $1 in
	*-security) archive=debian-security ;;
	*) archive=debian ;;
	esac
	echo "deb http://deb.debian.org/$archive $1 main" >"/etc/apt/sources.list.d/$1.list"
	printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n' "$1" >"/etc/apt/preferences.d/$1"
}

# kernel installs the table's kernel as the package for any machine: the cloud's has no drivers for some.
kernel() {
	read -r series _ _ suites package version <<-LINE
		$(awk -v want="$frontend" '$2 == want' "$checkout/vagrant/kernels" | head -n 1)
	LINE
	case $(uname -r) in "$series".*)
		say "kernel $(uname -r) runs"
		return
		;;
	esac
	package=$(echo "$package" | sed 's/-cloud-/-/')
	if [ -e "/boot/vmlinuz-${package#linux-image-}" ]; then
		say "$package is there, and runs after a reboot"
		return
	fi
	suite "${suites%%,*}"
	apt-get update -q
	apt-get install -y -q --no-install-recommends "$package=$version"
	say "$package $version runs after a reboot"
}

packages() { # COMMAND:PACKAGE...
	missing=
	for pair; do
		command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
	done
	[ -n "$missing" ] || return 0
	say "installing$missing"
	apt-get update -q
	# shellcheck disable=SC2086 # the names are words
	apt-get install -y -q --no-install-recommends $missing
}

install() {
	packages fusermount3:fuse3 mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs modprobe:kmod blkid:util-linux losetup:mount fio:fio
	[ -x "$bin" ] || { say "$bin is missing; make build makes it"; exit 1; }
	"$checkout/systemd/install" "$bin" "" /usr/local
	systemctl enable glidefs-appliance.service
	systemctl restart glidefs-appliance.service
	systemctl is-active glidefs-appliance.service
	glidefs-appliance status
	glidefs-appliance doctor
	chosen=$(glidefs-appliance doctor | awk '$2 == "yes" { print $1; exit }')
	[ "$chosen" = "$(name)" ] || { say "disks are served through $chosen, not $(name)"; exit 1; }
}

# name is what the program calls the frontend.
name() {
	case $frontend in
	usercopy) echo ublk-copy ;;
	zerocopy) echo ublk-zc ;;
	*) echo "$frontend" ;;
	esac
}

case $step in
kernel) kernel ;;
install) install ;;
*)
	say "no step $step"
	exit 2
	;;
esac
