#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Loads and exercises the BPF programs on the kernels people run, each in a virtual machine of its own:
#
#   tests/kernels/run.sh [SERIES...]      default: 6.1 6.12, Debian's stable kernels
#
# A machine is this system's root file system, read-only, under another kernel (virtme-ng): no image is built and
# nothing is written to /boot or /lib/modules. Kernel packages are unpacked to ${XDG_CACHE_HOME:-~/.cache}/nsp/kernels,
# logs go to build/kernels. The guest runs tests/kernels/smoke.py; the exit status is 1 when a kernel failed.
#
# What is missing is installed: QEMU and a few small tools by apt, virtme-ng into an environment under the cache.
# Needs an APT source that has the kernels (Debian 12 with security updates has both).
#
#   PYTHON   an interpreter that finds this project's packages and bcc; default: .venv/bin/python
#   NSP_KVM  0: do not even try hardware virtualisation. It is tried first, because emulation is some ten times
#            slower; inside another hypervisor it may hang at boot, hence the short limit for the trial.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly VIRTME_NG=1.42
readonly PYTHON=${PYTHON:-$PWD/.venv/bin/python}
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/nsp/kernels
readonly TOOL=${XDG_CACHE_HOME:-$HOME/.cache}/nsp/virtme-ng-$VIRTME_NG
readonly LOGS=$PWD/build/kernels
readonly MARK='nsp-smoke:' # outcome.py starts each of its lines with it
readonly BOOT_TRIAL_SECONDS=40
# Under emulation the compilation alone takes two minutes when the host is busy.
readonly RUN_SECONDS=900

say() { printf 'kernels: %s\n' "$*" >&2; }
die() {
	say "$@"
	exit 1
}

install_tools() {
	local -a packages=() run=()
	command -v qemu-system-x86_64 >/dev/null || packages+=(qemu-system-x86)
	command -v depmod >/dev/null || packages+=(kmod)
	command -v file >/dev/null || packages+=(file)
	command -v busybox >/dev/null || packages+=(busybox-static)
	if [ ${#packages[@]} -gt 0 ]; then
		say "installing: ${packages[*]}"
		run=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q install --no-install-recommends)
		[ "$(id -u)" = 0 ] || run=(sudo -n "${run[@]}")
		"${run[@]}" "${packages[@]}" >/dev/null || die "apt-get could not install ${packages[*]}"
	fi
	if ! [ -x "$TOOL/bin/vng" ]; then
		say "installing virtme-ng $VIRTME_NG"
		/usr/bin/python3 -m venv "$TOOL"
		"$TOOL/bin/python" -m pip --disable-pip-version-check install -q "virtme-ng==$VIRTME_NG"
	fi
	PATH=$TOOL/bin:$PATH # vng starts virtme-run by name
}

# The newest generic kernel of a series. The cloud flavour has no 9p, real-time is another kernel.
newest_package() { # newest_package SERIES
	apt-cache search --names-only "^linux-image-${1//./\\.}\\.[0-9.+~a-z-]*amd64\$" |
		cut -d' ' -f1 | { grep -v -e -cloud- -e -rt- || true; } | sort -V | tail -n1
}

# Unpacks a package beside the others, and moves it into place only when it is whole.
unpack() { # unpack PACKAGE
	local work=$CACHE/.$1.$$
	[ -d "$CACHE/$1" ] && return
	say "fetching $1"
	mkdir -p "$work/tree"
	(cd "$work" && apt-get -q download "$1" >/dev/null 2>&1 && dpkg-deb -x ./*.deb tree) || {
		rm -rf "$work"
		die "could not fetch $1"
	}
	depmod -b "$work/tree" "${1#linux-image-}"
	mv -T "$work/tree" "$CACHE/$1"
	rm -rf "$work"
}

# The guest has a /tmp of its own: what the host has there is shown to it by name.
shared_directories() {
	local directory
	for directory in "$PWD" "$(dirname "$(dirname "$PYTHON")")"; do
		case $directory in
		/tmp/* | /var/tmp/* | /run/*) printf -- '--rodir=%s\n' "$directory" ;;
		esac
	done
}

# Runs a command line in a guest; its console is our output.
guest() { # guest SECONDS PACKAGE COMMAND [VNG-OPTION...]
	local seconds=$1 image=$CACHE/$2/boot/vmlinuz-${2#linux-image-} command=$3
	local -a shared=()
	shift 3
	mapfile -t shared < <(shared_directories)
	# Verbose: without a terminal the command's output comes over the console or not at all.
	timeout --kill-after=5 "$seconds" vng --verbose --run "$image" --memory 3G --cpus 2 --user root \
		"${shared[@]}" "$@" -- "$command" </dev/null 2>&1 | tr -d '\r'
}

acceleration() { # acceleration PACKAGE: prints the option that this machine needs
	if [ "${NSP_KVM:-1}" = 1 ] && [ -w /dev/kvm ] &&
		guest $BOOT_TRIAL_SECONDS "$1" "echo $MARK booted" | grep -q "^$MARK booted"; then
		return
	fi
	say "no usable KVM here: emulating, which takes a few minutes a kernel"
	echo --disable-kvm
}

smoke() { # smoke PACKAGE [VNG-OPTION...]
	local package=$1 log=$LOGS/$1.log
	shift
	say "$package"
	guest $RUN_SECONDS "$package" "cd $PWD && exec $PYTHON -B -m tests.kernels.smoke 2>&1" "$@" >"$log" || true
	sed -n "s/^$MARK /  /p" "$log"
	grep -q "^$MARK passed" "$log" && return
	say "$package FAILED; the end of $log:"
	tail -n 40 "$log" >&2
	return 1
}

main() {
	local series package option
	local -a failed=() options=()
	[ "$(uname -m)" = x86_64 ] || die "only for x86_64 so far"
	[ $# -gt 0 ] || set -- 6.1 6.12
	mkdir -p "$CACHE" "$LOGS"
	install_tools
	for series in "$@"; do
		package=$(newest_package "$series")
		[ -n "$package" ] || die "no kernel $series in this system's package sources (apt-get update?)"
		unpack "$package"
		if [ -z "${option+set}" ]; then
			option=$(acceleration "$package")
			[ -z "$option" ] || options=("$option")
		fi
		smoke "$package" "${options[@]}" || failed+=("$series")
	done
	[ ${#failed[@]} -eq 0 ] || die "failed on: ${failed[*]}"
	say "passed on: $*"
}

main "$@"
