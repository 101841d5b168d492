#!/bin/bash
# Compares AllReduce (float32 sum, 2 ranks on this machine) with Open MPI and MPICH, over shared memory and over
# TCP, and writes the table into docs/benchmarking.md. The sides take turns inside every round, each round
# starts all programs anew, and the table has medians: machines drift by factors between minutes and starts.
# Environment: BUILD (build), ROUNDS (9), RANKS (2), DOC (the file to write), PEERS_DIR (where raw figures go).
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
rounds=${ROUNDS:-9}
ranks=${RANKS:-2}
doc=${DOC:-docs/benchmarking.md}
work=${PEERS_DIR:-$build/peers}
peers="openmpi mpich"

install_peers() {
	local missing="" p sudo=""
	for p in $peers; do
		command -v "mpicc.$p" > /dev/null && command -v "mpirun.$p" > /dev/null && continue
		case $p in
		openmpi) missing="$missing openmpi-bin libopenmpi-dev" ;;
		mpich) missing="$missing mpich libmpich-dev" ;;
		esac
	done
	[ -z "$missing" ] && return 0
	echo "missing:$missing" >&2
	command -v apt-get > /dev/null || { echo "install them and run again" >&2; return 1; }
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo > /dev/null || { echo "needs root or sudo to install them" >&2; return 1; }
		sudo=sudo
	fi
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086
	$sudo apt-get install -y -q --no-install-recommends $missing > /dev/null 2>&1 ||
		{ $sudo apt-get update -q > /dev/null &&
		  $sudo apt-get install -y -q --no-install-recommends $missing > /dev/null; }
}

# MIN MAX FACTOR ITERS WARMUP: many calls where they are short. The warm-up of the first row is long, as
# tutti looks at its links while it runs.
parts=("8 32768 4 500 100" "131072 8388608 4 30 5" "33554432 134217728 4 5 2")

# One start of one side over one medium: "bytes us" lines on stdout.
run_side() { # side, medium, part
	local side=$1 medium=$2 lo hi factor iters warmup root=""
	read -r lo hi factor iters warmup <<< "$3"
	[ "$(id -u)" -eq 0 ] && root=--allow-run-as-root
	# shellcheck disable=SC2086
	case $side/$medium in
	tutti/*)
		TUTTI_TRANSPORTS=$medium timeout 120 "$build/bin/tutti-run" -n "$ranks" "$build/bin/all_reduce_perf" \
			-b "$lo" -e "$hi" -f "$factor" -n "$iters" -w "$warmup" -c 0 | awk '!/^#/ { print $1, $6 }'
		;;
	openmpi/shm)
		timeout 120 mpirun.openmpi $root --mca pml ob1 --mca btl self,vader -n "$ranks" \
			"$work/openmpi" "$lo" "$hi" "$factor" "$iters" "$warmup"
		;;
	openmpi/tcp)
		timeout 120 mpirun.openmpi $root --mca pml ob1 --mca btl self,tcp --mca btl_tcp_if_include lo \
			-n "$ranks" "$work/openmpi" "$lo" "$hi" "$factor" "$iters" "$warmup"
		;;
	mpich/shm)
		timeout 120 mpirun.mpich -n "$ranks" "$work/mpich" "$lo" "$hi" "$factor" "$iters" "$warmup"
		;;
	mpich/tcp)
		MPIR_CVAR_NOLOCAL=1 MPIR_CVAR_CH4_SHM_ENABLE=0 UCX_TLS=tcp,self UCX_NET_DEVICES=lo FI_PROVIDER=tcp \
			timeout 120 mpirun.mpich -n "$ranks" "$work/mpich" "$lo" "$hi" "$factor" "$iters" "$warmup"
		;;
	esac
}

# Raw figures: round medium bytes side us. The side that begins changes from round to round.
measure() {
	local round medium part side order
	: > "$work/raw"
	for round in $(seq "$rounds"); do
		for medium in shm tcp; do
			for part in "${parts[@]}"; do
				order="tutti $peers"
				[ $((round % 2)) -eq 0 ] && order="$(echo "$peers" | tr ' ' '\n' | tac | tr '\n' ' ') tutti"
				for side in $order; do
					run_side "$side" "$medium" "$part" 2> "$work/error" |
						sed "s/^\([0-9]*\) /$round $medium \1 $side /" >> "$work/raw"
					[ "${PIPESTATUS[0]}" -eq 0 ] ||
						{ echo "$side over $medium failed: $(tail -n 2 "$work/error")" >&2; }
				done
			done
		done
		echo "round $round of $rounds" >&2
	done
}

# Medians of the times, and of the ratios inside each round (peer / tutti: above 1 tutti is faster).
table() {
	awk '
	function median(list, n, part, i, j, t) {
		n = split(list, part, " ")
		for (i = 1; i <= n; i++)
			for (j = i + 1; j <= n; j++)
				if (part[j] + 0 < part[i] + 0) { t = part[i]; part[i] = part[j]; part[j] = t }
		low = n ? part[1] : 0; high = n ? part[n] : 0
		return n ? (n % 2 ? part[(n + 1) / 2] : (part[n / 2] + part[n / 2 + 1]) / 2) : -1
	}
	function size(b) { return b >= 1048576 ? b / 1048576 " MiB" : b >= 1024 ? b / 1024 " KiB" : b " B" }
	function us_text(v) { return v < 0 ? "-" : v < 100 ? sprintf("%.2f", v) : sprintf("%.0f", v) }
	function ratio(list, m) { m = median(list); return m < 0 ? "-" : sprintf("%.2f [%.2f-%.2f]", m, low, high) }
	{
		us[$1, $2, $3, $4] = $5; all[$2, $3, $4] = all[$2, $3, $4] " " $5
		if (!(($2, $3) in seen)) { seen[$2, $3] = 1; sizes[$2, ++n[$2]] = $3 }
		if ($1 > rounds) rounds = $1
	}
	END {
		split("shm tcp", media, " "); split("openmpi mpich", peer, " ")
		for (m = 1; m <= 2; m++) {
			medium = media[m]
			printf "\n%s\n\n", medium == "shm" ? "Shared memory" : "TCP on the loopback"
			print "| size | tutti us | tutti GB/s | Open MPI us | MPICH us | x Open MPI | x MPICH |"
			print "|---|---|---|---|---|---|---|"
			for (i = 1; i <= n[medium]; i++) sorted[i] = sizes[medium, i]
			for (i = 1; i <= n[medium]; i++)
				for (j = i + 1; j <= n[medium]; j++)
					if (sorted[j] + 0 < sorted[i] + 0) { t = sorted[i]; sorted[i] = sorted[j]; sorted[j] = t }
			for (i = 1; i <= n[medium]; i++) {
				b = sorted[i]; mine = median(all[medium, b, "tutti"])
				for (p = 1; p <= 2; p++) {
					list = ""
					for (r = 1; r <= rounds; r++)
						if (us[r, medium, b, "tutti"] > 0 && us[r, medium, b, peer[p]] > 0)
							list = list " " us[r, medium, b, peer[p]] / us[r, medium, b, "tutti"]
					x[p] = ratio(list)
				}
				gbs = (mine > 0) ? sprintf("%.2f", b / mine / 1000) : "-"
				printf("| %s | %s | %s | %s | %s | %s | %s |\n", size(b), us_text(mine), gbs,
					us_text(median(all[medium, b, "openmpi"])),
					us_text(median(all[medium, b, "mpich"])), x[1], x[2])
			}
		}
	}' "$work/raw"
}

heading() {
	echo
	echo "Measured $(date +%Y-%m-%d) with $rounds starts a side, $ranks ranks as processes," \
		"$(nproc) cores ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)), Linux $(uname -r | cut -d- -f1)."
	echo "tutti $(sed -n 's/^#define TUTTI_\(MAJOR\|MINOR\|PATCH\) //p' include/tutti.h | paste -sd.)," \
		"Open MPI $(mpirun.openmpi --version 2> /dev/null | awk 'NR == 1 { print $NF }')," \
		"MPICH $(mpichversion 2> /dev/null | sed -n 's/^MPICH Version:[[:space:]]*//p')."
	echo "Times are medians of microseconds a call; x is the median [least-greatest] over the starts of the" \
		"peer's time divided by tutti's in the same round: above 1 tutti is faster."
}

# Replaces what is between the markers in the document.
publish() {
	local begin='<!-- peers:begin -->' end='<!-- peers:end -->'
	{ heading; table; echo; } > "$work/table.md"
	cat "$work/table.md"
	grep -qF "$begin" "$doc" 2> /dev/null || { echo "$doc has no markers: not written" >&2; return 0; }
	awk -v begin="$begin" -v end="$end" -v file="$work/table.md" '
		index($0, end) { skip = 0 }
		!skip
		index($0, begin) { skip = 1; while ((getline line < file) > 0) print line }' "$doc" > "$work/doc" &&
		cat "$work/doc" > "$doc"
}

mkdir -p "$work" || exit 1
install_peers || exit 1
[ -x "$build/bin/all_reduce_perf" ] || { echo "$build/bin/all_reduce_perf: run make first" >&2; exit 1; }
for p in $peers; do
	"mpicc.$p" -std=c17 -D_GNU_SOURCE -O2 benchmarks/peers/peer_allreduce.c -o "$work/$p" || exit 1
done
measure
publish
