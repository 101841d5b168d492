# Faults of links and devices, for tests inside the machine of rdma-vm: source this there.
# LINK is net0 or net1. On one machine with two devices net0 is the own end of the wire and net1 the peer's;
# of two hosts, one breaks its own end, or the peer's by on_peer.
# A command takes 0.1 to 0.5 s here: measure from its end. SPDX-License-Identifier: Apache-2.0

# Both ends of the wire on one machine: its kernel would deliver straight. Local addresses are looked up only for
# what came in by a wire, and what goes from one end to the other goes out.
wire_rules() {
	[ "$VM_HOSTS:$VM_LINKS" = '1:net0 net1' ] || return 0
	set -- $VM_ADDRS
	for link in all net0 net1; do
		echo 1 > /proc/sys/net/ipv4/conf/$link/accept_local
		echo 0 > /proc/sys/net/ipv4/conf/$link/rp_filter
	done
	ip -batch - <<-RULES
		rule flush
		rule add pref 1 iif net0 lookup local
		rule add pref 2 iif net1 lookup local
		rule add pref 3 from $1 to $2 lookup 100
		rule add pref 4 from $2 to $1 lookup 101
		rule add pref 5 lookup local
		rule add pref 6 lookup main
		route replace $2 dev net0 src $1 table 100
		route replace $1 dev net1 src $2 table 101
		neigh replace $2 lladdr $(cat /sys/class/net/net1/address) dev net0 nud permanent
		neigh replace $1 lladdr $(cat /sys/class/net/net0/address) dev net1 nud permanent
	RULES
	ip rule del pref 0 2> /dev/null || :
}

link_down() { # LINK
	ip link set "$1" down
}

link_up() { # LINK: with the routes that it lost
	ip link set "$1" up && wire_rules
}

link_bounce() { # LINK SECONDS: down for at least so long
	link_down "$1" && sleep "$2" && link_up "$1"
}

# Loss is at the sending end. A device alone (no wire) loses nothing: its packets never leave it.
loss() { # LINK PERCENT: 0 ends it
	if [ "$2" = 0 ]; then
		tc qdisc del dev "$1" root
	else
		tc qdisc replace dev "$1" root netem loss "$2%" limit 10000
	fi
}

wire_loss() { # PERCENT: on all links, in both directions
	for link in $VM_LINKS; do loss "$link" "$1" || return; done
	[ "$VM_HOSTS" -eq 1 ] || on_peer "for link in \$VM_LINKS; do loss \$link $1 || exit; done"
}

address_of() { # LINK
	if [ "$1" = net0 ]; then echo "${VM_ADDRS%% *}"; else echo "${VM_ADDRS##* }"; fi
}

address_remove() { # LINK
	ip addr del "$(address_of "$1")/24" dev "$1"
}

address_add() { # LINK
	ip addr add "$(address_of "$1")/24" dev "$1" && wire_rules
}

# Waits in the kernel until the device's users have closed it, who learn of it only by rdma_cm.
device_delete() { # DEVICE
	rdma link delete "$1"
}

device_add() { # DEVICE: rxe0 over net0, and so on
	rdma link add "$1" type "${1%[01]}" netdev "net${1#???}"
}

# As if the card was pulled: does not wait, and cannot be undone. On one machine both ends of a wire go.
link_delete() { # LINK
	if [ -e "/sys/class/net/$1/device" ]; then
		echo 1 > "$(readlink -f "/sys/class/net/$1/device")/../remove"
	else
		ip link delete "$1"
	fi
}

machine_dies() { # [STATUS]: at once and without a word to the peer; STATUS is what the caller sees of this host
	echo "${1:-0}" > "$VM_SHARED/status.$VM_HOST"
	sync
	echo o > /proc/sysrq-trigger
	sleep inf
}

serve_peer() { # from here on, and while this shell lives, does what the other host asks by on_peer
	while sleep 0.1; do
		[ -e "$VM_SHARED/ask.$VM_HOST" ] || continue
		(eval "$(cat "$VM_SHARED/ask.$VM_HOST")")
		echo $? > "$VM_SHARED/answer.new"
		rm "$VM_SHARED/ask.$VM_HOST"
		mv "$VM_SHARED/answer.new" "$VM_SHARED/answer.$VM_HOST"
	done &
}

on_peer() { # COMMAND...: its status; 124 without an answer in 10 s
	rm -f "$VM_SHARED/answer.$((1 - VM_HOST))"
	echo "$*" > "$VM_SHARED/ask.new"
	mv "$VM_SHARED/ask.new" "$VM_SHARED/ask.$((1 - VM_HOST))"
	for _ in $(seq 100); do
		[ ! -s "$VM_SHARED/answer.$((1 - VM_HOST))" ] || return "$(cat "$VM_SHARED/answer.$((1 - VM_HOST))")"
		sleep 0.1
	done
	return 124
}
