# Sourced by the lab's scripts: where things are, how to speak, how to get what is missing.
# shellcheck shell=sh disable=SC2034 # its variables are its users'

lab=$(cd "$(dirname "$0")" && pwd)
case $lab in */lib) lab=${lab%/lib} ;; esac

cache=${XDG_CACHE_HOME:-$HOME/.cache}/glidefs-appliance
kernels=$cache/kernels
images=$cache/images
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

PATH=$PATH:/usr/sbin:/sbin

say() { echo "lab: $*" >&2; }

# trouble is the lab's own failure: 125, so that it can't be taken for the command's.
trouble() {
	say "$*"
	exit 125
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# need PROGRAM:PACKAGE...: installs the packages of the programs (or files) that are missing.
need() {
	missing=
	for pair; do
		command -v "${pair%%:*}" >/dev/null || [ -e "${pair%%:*}" ] || missing="$missing ${pair#*:}"
	done
	[ -n "$missing" ] || return 0
	say "installing$missing"
	# shellcheck disable=SC2086 # the names are words
	{
		install_packages $missing >/dev/null 2>&1 && return
		as_root apt-get update -q >/dev/null || true
		install_packages $missing >/dev/null || trouble "can't install$missing"
	}
}

install_packages() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

# mirror debian|debian-security: the address that this host's apt uses for it, or Debian's own.
mirror() {
	# shellcheck disable=SC2016 # apt's variable
	uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		grep -E "/$1/?\$" | head -n 1) || true
	echo "${uri:-http://deb.debian.org/$1}"
}

# pin SERIES: sets frontend, below, suites, package and version from the table.
pin() {
	line=$(grep -E "^$(echo "$1" | sed 's/\./\\./g')[[:space:]]" "$lab/kernels") ||
		trouble "no kernel series '$1': there are$(awk '/^[0-9]/{printf " %s", $1}' "$lab/kernels")"
	read -r _ frontend below suites package version <<-LINE
		$line
	LINE
	export frontend below suites package version
}
