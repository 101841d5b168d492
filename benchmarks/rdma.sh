#!/bin/bash
# The verbs transport beside perftest, and AllReduce over it beside our TCP, on emulated RDMA devices (docs/testing.md):
# all sides in turns within one run, each start anew, and medians into docs/benchmarking.md. Seconds there are those of
# an emulated machine; only ratios mean something.
# Environment: BUILD (build), ROUNDS (9), SIZES, DRIVERS (rxe siw), PARTS (links cost allreduce; the others' figures
# stay), DOC (the file to write), RDMA_DIR (where raw figures go).
# SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build} rounds=${ROUNDS:-9} drivers=${DRIVERS:-rxe siw} depth=8
sizes=${SIZES:-"65536 262144 1048576"}

# ---- inside the machine
perftest() { # program, column of its figure, arguments: that figure
	local devices ids=() server client port=$((20000 + BASHPID % 30000)) # each figure is a subshell's
	read -ra devices <<< "$VM_DEVS"
	ids=(-F -p $port -x "$VM_GID")
	[[ $VM_DEVS == rxe* ]] || ids=(-F -p $port -R)
	timeout 30 "$1" -d "${devices[-1]}" "${ids[@]}" "${@:3}" > /tmp/server 2>&1 &
	server=$!
	until grep -q ":$(printf %04X $port) .* 0A " /proc/net/tcp /proc/net/tcp6 ||
		rdma resource show cm_id | grep -q "LISTEN.*:$port " || ! kill -0 $server 2> /dev/null; do sleep 0.02; done
	client=$(timeout 30 "$1" -d "${devices[0]}" "${ids[@]}" "${@:3}" "$VM_PEER" 2>&1) || echo "$client" >&2
	wait $server
	awk -v c="$2" '/^ *#bytes/ { rows = 1; next } rows && /^ *[0-9]/ { print $c; exit }' <<< "$client"
}

ours() { # column, bytes, iterations, more
	TUTTI_TRANSPORTS=verbs timeout 60 "$build/bin/link_perf" -t verbs -p -q $depth -d "${VM_DEVS/ /,}" -b "$2" -e "$2" \
		-n "$3" "${@:4}" | awk -v c="$1" '!/^#/ { print $c }'
}

figure() { # side, bytes: microseconds of 8 bytes, MB/s of more
	local n=$((134217728 / $2))
	case $1:$2 in
	tutti:8) ours 2 8 4000 -R ;;
	staged:8) ours 2 8 4000 ;;
	tutti:*) ours 4 "$2" $n -R -s | awk '{ print $1 * 1000 }' ;;
	staged:*) ours 4 "$2" $n -s | awk '{ print $1 * 1000 }' ;;
	*:8) perftest "ib_$1_lat" 6 -s 8 -n 4000 ;;
	*) perftest "ib_$1_bw" 4 -s "$2" -n $n -t $depth -Q 1 | awk '{ print $1 * 1.048576 }' ;;
	esac
}

links() {
	local round size side order
	for ((round = 1; round <= rounds; round++)); do
		for size in 8 $sizes; do
			order='tutti send write staged'
			[ $((round % 2)) -eq 1 ] || order='staged write send tutti'
			for side in $order; do echo "$round $size $side $(figure $side "$size")"; done
		done
	done
}

# What the processors have been busy with, the kernel's part and all, in units of 10 ms.
processors() { awk '/^cpu / { print $4 + $7 + $8, $2 + $3 + $4 + $7 + $8; exit }' /proc/stat; }

# ns per KiB in the kernel, and in all: a long run less a short one, so that starts do not count. All is little more
# than the time by the clock, as both ends poll. Of our n messages another tenth goes before.
spent() { # side, bytes
	local n few=$((67108864 / $2)) at=()
	for n in $few $((8 * few)); do
		at+=($(processors))
		if [ "$1" = tutti ]; then
			ours 4 "$2" "$n" -R -s
		else
			perftest "ib_$1_bw" 4 -s "$2" -n "$n" -t $depth -Q 1
		fi > /dev/null
		at+=($(processors))
	done
	awk -v a="${at[*]}" -v bytes=$((7 * few * $2)) -v more="$([ "$1" = tutti ] && echo 1.1 || echo 1)" 'BEGIN {
		split(a, t, " ")
		for (i = 1; i <= 2; i++) print 1e7 * 1024 * ((t[i + 6] - t[i + 4]) - (t[i + 2] - t[i])) / (bytes * more)
	}'
}

cost() {
	local round size side kernel all
	for ((round = 1; round <= rounds; round++)); do
		for size in $sizes; do
			for side in tutti send write; do
				{ read -r kernel; read -r all; } <<< "$(spent $side "$size")"
				printf '%s\n' "$round $size $side $kernel" "$round $size ${side}_all $all"
			done
		done
	done
}

allreduce() { # in both hosts
	local round transport port=23000
	export TUTTI_RANK=$VM_HOST TUTTI_SIZE=2
	for ((round = 1; round <= rounds; round++)); do
		for transport in verbs tcp; do
			port=$((port + 1))
			TUTTI_ROOT=10.77.0.1:$port TUTTI_TRANSPORTS=$transport timeout 120 "$build/bin/all_reduce_perf" \
				-b 8 -e 8M -f 16 -n 5 -w 1 -c 0 |
				awk -v r=$round -v t=$transport '!/^#/ && NF > 6 { print r, $1, t, $6 }'
		done
	done
}

# ---- outside
# Lines "round size side figure": one row for each size, the medians of the sides in the order named, and the median
# [least-greatest] of the first one's figure divided by each other's of the same round; `most` of them.
table() { # file, sides, most
	awk -v sides="$2" -v most="${3:-99}" '
	function sort(a, n, i, k, t) {
		for (i = 2; i <= n; i++)
			for (k = i; k > 1 && a[k] < a[k - 1]; k--) { t = a[k]; a[k] = a[k - 1]; a[k - 1] = t }
	}
	function size_text(b) { return b < 1024 ? b " B" : b < 1048576 ? b / 1024 " KiB" : b / 1048576 " MiB" }
	NF == 4 { v[$2, $3, $1] = $4; if (!seen[$2]++) order[++norder] = $2; if ($1 > rounds) rounds = $1 }
	END {
		ns = split(sides, side, " ")
		for (o = 1; o <= norder; o++) {
			line = "| " size_text(order[o]) " |"
			for (s = 1; s <= ns; s++) {
				n = 0
				for (r = 1; r <= rounds; r++)
					if ((order[o], side[s], r) in v) a[++n] = v[order[o], side[s], r]
				sort(a, n)
				line = line sprintf(n && a[int((n + 1) / 2)] < 1000 ? " %.1f |" : " %.0f |", n ? a[int((n + 1) / 2)] : 0)
			}
			for (s = 2; s <= ns && s <= most + 1; s++) {
				n = 0
				for (r = 1; r <= rounds; r++)
					if ((order[o], side[s], r) in v && (order[o], side[1], r) in v && v[order[o], side[s], r] > 0)
						a[++n] = v[order[o], side[1], r] / v[order[o], side[s], r]
				sort(a, n)
				line = line sprintf(" %.2f [%.2f-%.2f] |", n ? a[int((n + 1) / 2)] : 0, a[1], a[n])
			}
			print line
		}
	}' "$1"
}

# perftest's rdma_cm goes by the loopback device between two addresses of one machine, whatever wire there is, so over
# soft-iWARP both sides do.
devices_of() { [ "$1" = rxe ] && echo 2 || echo 1; }

report() {
	local driver
	echo
	echo "Measured $(date +%F) with $rounds rounds, 2 emulated cores (at one core for each of two hosts below), $depth messages in flight."
	for driver in $drivers; do
		printf '\n%s, %s: 8 B in us of half a round trip, else MB/s; x: ours divided by theirs\n\n' \
			"$driver" "$([ "$(devices_of "$driver")" -eq 2 ] && echo two devices on a wire || echo one device)"
		echo '| size | tutti | ib_send | ib_write | tutti, not registered | x ib_send | x ib_write | x not registered |'
		echo '|---|---|---|---|---|---|---|---|'
		table "$work/links.$driver" 'tutti send write staged'
		if [ -s "$work/cost.$driver" ]; then
			printf '\n%s, processor time of both ends in ns per KiB, %s rounds: %s\n\n' "$driver" \
				"$(awk 'END { print $1 }' "$work/cost.$driver")" \
				'in the kernel, and in all with the polling of who waits; x: of the kernel, ours divided by theirs'
			echo '| size | tutti | ib_send | ib_write | tutti, all | ib_send, all | ib_write, all | x ib_send | x ib_write |'
			echo '|---|---|---|---|---|---|---|---|---|'
			table "$work/cost.$driver" 'tutti send write tutti_all send_all write_all' 2
		fi
		printf '\n%s, AllReduce of two hosts on a wire, us a call; x: verbs divided by tcp\n\n' "$driver"
		echo '| size | verbs | tcp | x tcp |'
		echo '|---|---|---|---|'
		table "$work/allreduce.$driver" 'verbs tcp'
	done
	echo
}

measure() { # driver
	local part
	for part in ${PARTS:-links cost allreduce}; do
		if [ "$part" = allreduce ]; then
			tests/vm/rdma-vm --transport "$1" --hosts 2 --timeout 900 -- benchmarks/rdma.sh allreduce > "$work/both" &&
				sed -n 's/^\[0\] //p' "$work/both" > "$work/allreduce.$1"
		else
			tests/vm/rdma-vm --transport "$1" --devices "$(devices_of "$1")" --timeout 1500 -- \
				benchmarks/rdma.sh "$part" > "$work/$part.$1"
		fi || return
	done
}

case ${1:-} in
links | cost | allreduce) "$1"; exit ;;
esac
work=${RDMA_DIR:-$build/rdma} doc=${DOC:-docs/benchmarking.md}
mkdir -p "$work"
if [ "${1:-}" != report ]; then # report: of what was measured before
	for driver in $drivers; do measure "$driver" || exit 1; done
fi
report > "$work/report"
cat "$work/report"
sed -i -e "/<!-- rdma:begin -->/,/<!-- rdma:end -->/{/<!-- rdma:begin -->/{p;r $work/report
};/<!-- rdma:end -->/p;d}" "$doc"
