#!/bin/bash
# The planner's choice beside every forced algorithm, over numbers of ranks and transports; the tables go into
# docs/benchmarking.md. SPDX-License-Identifier: Apache-2.0
# Environment: BUILD, ROUNDS (9), STARTS (3), RANKS ("2 4 8"), TRANSPORTS ("shm tcp"), COLLECTIVES (allreduce), MAX (64M),
# DOC (docs/benchmarking.md).
set -u
cd "$(dirname "$0")/.." || exit 1
build=${BUILD:-build} doc=${DOC:-docs/benchmarking.md} work=${BUILD:-build}/plan
rounds=${ROUNDS:-9} starts=${STARTS:-3}

one() { # transport, ranks, collective, start
	TUTTI_TRANSPORTS=$1 timeout 600 "$build/bin/tutti-run" -n "$2" "$build/bin/plan_perf" -c "$3" -e "${MAX:-64M}" \
		-n "$rounds" > "$work/$1-$2-$3-$4" || echo "plan_perf over $1 with $2 ranks failed" >&2
}

# Medians over the starts, of the times and of the ratios; the names of choice and best are those of the medians.
merge() { # files of one setting
	awk -F'|' '
		function trim(s) { gsub(/^ +| +$/, "", s); return s }
		function median(list,   v, n, i, j, t) {
			n = split(list, v, " ")
			for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j] + 0 < v[j - 1] + 0; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
			return n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
		}
		FNR == 1 && NR == 1 { title = $0 }
		/^\| size/ { for (i = 6; i < NF; i++) name[i] = trim($i); columns = NF - 1; next }
		/^\|---/ || !/^\|/ { next }
		{
			s = trim($2)
			if (!(s in choice)) { order[++sizes] = s; choice[s] = trim($3) }
			for (i = 6; i <= columns; i++) {
				us[s, i] = us[s, i] " " $i
				if (name[i] == choice[s]) mine = $i + 0
			}
			for (i = 6; i <= columns; i++) x[s, i] = x[s, i] " " mine / $i
		}
		END {
			print title "\n"
			printf "| size | choice | best | x |"
			for (i = 6; i <= columns; i++) printf " %s |", name[i]
			printf "\n|---|---|---|---|"
			for (i = 6; i <= columns; i++) printf "---|"
			print ""
			for (k = 1; k <= sizes; k++) {
				s = order[k]; best = 6
				for (i = 6; i <= columns; i++) if (median(us[s, i]) < median(us[s, best])) best = i
				printf "| %s | %s | %s | %.2f |", s, choice[s], name[best], median(x[s, best])
				for (i = 6; i <= columns; i++) printf " %.4g |", median(us[s, i])
				print ""
			}
		}' "$@"
}

publish() {
	local begin='<!-- plan:begin -->' end='<!-- plan:end -->'
	cat "$work/table.md"
	grep -qF "$begin" "$doc" || { echo "$doc has no markers: not written" >&2; return 1; }
	awk -v begin="$begin" -v end="$end" -v file="$work/table.md" '
		index($0, end) { skip = 0 }
		!skip
		index($0, begin) { skip = 1; while ((getline line < file) > 0) print line }' "$doc" > "$work/doc" &&
		cat "$work/doc" > "$doc"
}

mkdir -p "$work" || exit 1
[ -x "$build/bin/plan_perf" ] || { echo "$build/bin/plan_perf: run make first" >&2; exit 1; }
{
	printf '\nMeasured %s, %s cores (%s); ' "$(date +%Y-%m-%d)" "$(nproc)" \
		"$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
	echo "medians of $starts starts of $rounds turns each."
	for transport in ${TRANSPORTS:-shm tcp}; do
		for ranks in ${RANKS:-2 4 8}; do
			for coll in ${COLLECTIVES:-allreduce}; do
				for start in $(seq "$starts"); do
					one "$transport" "$ranks" "$coll" "$start"
				done
				printf '\n%s: ' "$transport"
				merge "$work/$transport-$ranks-$coll"-*
			done
		done
	done
	echo
} > "$work/table.md"
publish
