#!/bin/sh
# Installs what is missing to build, check, fuzz, or run tests/vm; nothing where all is there.
# SPDX-License-Identifier: Apache-2.0
#   setup.sh build | check | fuzz | rdma
set -u

missing=
need() { # package, then a test command that succeeds where it is there
	package=$1
	shift
	"$@" > /dev/null 2>&1 || missing="$missing $package"
}

has_header() {
	echo "#include <$1>" | ${CC:-cc} -E -x c - -o /dev/null
}

need make command -v make
need gcc sh -c 'command -v "${CC:-gcc}"'
need libc6-dev has_header stdio.h
# RDMA and pictures are left out where these cannot be had.
wish() { # as need
	package=$1
	shift
	"$@" > /dev/null 2>&1 || wanted="$wanted $package"
}
wanted=
wish libibverbs-dev has_header infiniband/verbs.h
wish librdmacm-dev has_header rdma/rdma_cma.h
case "${1:-build}" in
build) ;;
check)
	need libcriterion-dev has_header criterion/criterion.h
	need pkg-config command -v pkg-config
	need binutils command -v nm
	wish graphviz command -v dot
	;;
fuzz) need clang command -v clang ;;
# Not rdma-core: it is udev rules, which the machine of tests/vm does without, and pulls udev and systemd.
rdma)
	PATH=$PATH:/usr/sbin:/sbin
	need qemu-system-x86 command -v qemu-system-x86_64
	need busybox-static sh -c 'busybox --list | grep -x cpio'
	need kmod command -v modprobe
	need iproute2 command -v rdma
	need xz-utils command -v xz
	need perftest command -v ib_send_bw
	need ibverbs-utils command -v ibv_devinfo
	need rdmacm-utils command -v rping
	need libibverbs-dev has_header infiniband/verbs.h
	need librdmacm-dev has_header rdma/rdma_cma.h
	need libibverbs1 sh -c 'ls /usr/lib/*/libibverbs.so.1'
	need librdmacm1 sh -c 'ls /usr/lib/*/librdmacm.so.1'
	need ibverbs-providers sh -c 'ls /usr/lib/*/libibverbs/librxe-*.so && ls /usr/lib/*/libibverbs/libsiw-*.so'
	;;
*)
	echo "usage: $0 build|check|fuzz|rdma" >&2
	exit 2
	;;
esac

[ -z "$missing$wanted" ] && exit 0
echo "missing:$missing$wanted" >&2
if ! command -v apt-get > /dev/null; then
	[ -z "$missing" ] && exit 0
	echo "install them with this system's package manager, then run again" >&2
	exit 1
fi
sudo=
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo > /dev/null || {
		[ -z "$missing" ] && exit 0
		echo "needs root or sudo to install them" >&2
		exit 1
	}
	sudo=sudo
fi
export DEBIAN_FRONTEND=noninteractive
# The lists may be stale or absent: a first try without them saves the minute they take.
install() {
	$sudo apt-get install -y -q --no-install-recommends "$@" > /dev/null 2>&1 ||
		{ $sudo apt-get update -q > /dev/null &&
		  $sudo apt-get install -y -q --no-install-recommends "$@" > /dev/null; }
}
# shellcheck disable=SC2086
install $missing $wanted && exit 0
[ -n "$wanted" ] || exit 1
echo "left out, as they cannot be installed:$wanted" >&2
# shellcheck disable=SC2086
[ -z "$missing" ] || install $missing
