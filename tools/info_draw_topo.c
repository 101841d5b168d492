/* The picture of a machine: its tree from left to right, and beside it the GPUs in a circle, with direct links as wide
 * as they are and rings in colours. Places are found here; Graphviz draws. SPDX-License-Identifier: Apache-2.0 */
#include "info_draw.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROW = 34, COLUMN = 104, HALF_WIDTH = 38, HALF_HEIGHT = 14, STRAND = 4, WIDEST = 12 }; /* points */
enum { PCI_POINT = 8000 }; /* MB/s of a line of one point in the tree */

struct place {
	double x, y;
};

struct canvas {
	FILE *f;
	const struct shown *s;
	const struct tt_topo *t;
	struct place *tree;   /* of each node */
	struct place *circle; /* of what is in the circle */
	bool *round;          /* is it? */
	int ngpus;            /* in the circle */
};

/* ---- places ---- */

/* Cores are counted in what is above them; NVSwitches are in the circle alone. */
static bool in_tree(const struct tt_topo *t, int i)
{
	return t->nodes[i].kind != TT_NODE_CORE && t->nodes[i].kind != TT_NODE_NVSWITCH;
}

/* A row for each leaf, parents between their children. Nodes come in the order of the tree. */
static void place_tree(struct canvas *c)
{
	int n = c->t->nnodes, rows = 0;
	int *below = calloc((size_t)n, sizeof(*below));

	for (int i = n - 1; below && i >= 0; i--) {
		int parent = c->t->nodes[i].parent, level = 0;

		if (!in_tree(c->t, i))
			continue;
		c->tree[i].y = below[i] ? c->tree[i].y / below[i] : ROW * rows++;
		for (int up = parent; up >= 0; up = c->t->nodes[up].parent)
			level++;
		c->tree[i].x = COLUMN * level;
		if (parent >= 0) {
			c->tree[parent].y += c->tree[i].y;
			below[parent]++;
		}
	}
	free(below);
}

static bool takes_part(const struct canvas *c, int node)
{
	enum tt_node_kind k = c->t->nodes[node].kind;

	return k == TT_NODE_GPU || k == TT_NODE_NVSWITCH;
}

/* The k-th in the circle: along the first ring, so that it goes round. */
static int gpu_at(const struct canvas *c, int k)
{
	const struct tt_rings *r = c->s->rings;

	return c->s->gpu[r && r->count ? r->order[k] : (uint32_t)k];
}

static void place_circle(struct canvas *c)
{
	double radius, x = 0, y = 0;

	for (int i = 0; i < c->t->nlinks; i++)
		if (takes_part(c, c->t->links[i].from) && takes_part(c, c->t->links[i].to))
			c->ngpus = tt_topo_count(c->t, TT_NODE_GPU);
	radius = fmax(90, 24 * c->ngpus);
	for (int i = 0; i < c->t->nnodes; i++) {
		x = fmax(x, c->tree[i].x);
		y = fmax(y, c->tree[i].y);
		c->round[i] = c->ngpus && takes_part(c, i);
	}
	x += 2 * HALF_WIDTH + COLUMN / 2 + radius;
	for (int i = 0; i < c->t->nnodes; i++)
		c->circle[i] = (struct place){ x, y / 2 };
	for (int k = 0; k < c->ngpus; k++) {
		double angle = 2 * M_PI * k / c->ngpus;

		c->circle[gpu_at(c, k)].x += radius * sin(angle);
		c->circle[gpu_at(c, k)].y += radius * cos(angle);
	}
}

/* ---- nodes ---- */

static void put_text(FILE *f, const char *text)
{
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', f);
		fputc(*text < 0x20 || *text > 0x7e ? '?' : *text, f);
	}
}

static const char *fill_of(enum tt_node_kind kind)
{
	switch (kind) {
	case TT_NODE_GPU: return "#cfe8d5";
	case TT_NODE_NIC: return "#fde3c0";
	case TT_NODE_PORT: return "#fff5e6";
	case TT_NODE_NVSWITCH: return "#d9e6f5";
	case TT_NODE_NUMA: return "#eeeeee";
	default: return "white";
	}
}

static int cores_of(const struct tt_topo *t, int above)
{
	int n = 0;

	for (int i = tt_topo_next(t, TT_NODE_CORE, -1); i >= 0; i = tt_topo_next(t, TT_NODE_CORE, i))
		n += t->nodes[i].parent == above;
	return n;
}

static void put_node(const struct canvas *c, char prefix, int i, const struct place *at)
{
	const struct tt_topo_node *n = &c->t->nodes[i];
	const char *name = n->kind == TT_NODE_PORT && strchr(n->id, '/') ? strchr(n->id, '/') + 1 : n->id;
	int cores = cores_of(c->t, i);

	fprintf(c->f, "%c%d [class=%s, fillcolor=\"%s\", pos=\"%.0f,%.0f\", label=\"", prefix, i, tt_node_word(n->kind),
		fill_of(n->kind), at->x, at->y);
	if (strncmp(name, tt_node_word(n->kind), strlen(tt_node_word(n->kind))))
		fprintf(c->f, "%s\\n", tt_node_word(n->kind));
	put_text(c->f, name);
	if (cores)
		fprintf(c->f, "\\n%d core%s", cores, cores > 1 ? "s" : "");
	fputs("\"];\n", c->f);
}

/* ---- edges ---- */

/* As wide as it is fast, `one` being a line of one point. */
static void put_width(FILE *f, double mbytes, double one)
{
	if (mbytes >= TT_NO_LIMIT)
		fputs(", style=dashed", f);
	else
		fprintf(f, ", penwidth=%.1f", fmin(3 * WIDEST, fmax(0.5, mbytes / one)));
}

static void put_tree(const struct canvas *c)
{
	for (int i = 0; i < c->t->nnodes; i++)
		if (in_tree(c->t, i))
			put_node(c, 'n', i, &c->tree[i]);
	for (int i = 1; i < c->t->nnodes; i++) {
		if (!in_tree(c->t, i))
			continue;
		fprintf(c->f, "n%d -> n%d [class=tree, dir=none, color=\"#888888\"", c->t->nodes[i].parent, i);
		put_width(c->f, c->t->nodes[i].bandwidth, PCI_POINT);
		fputs("];\n", c->f);
	}
}

static const struct tt_topo_link *back_of(const struct tt_topo *t, const struct tt_topo_link *l)
{
	for (int i = 0; i < t->nlinks; i++)
		if (t->links[i].from == l->to && t->links[i].to == l->from && t->links[i].kind == l->kind &&
		    t->links[i].count == l->count && t->links[i].bandwidth == l->bandwidth)
			return &t->links[i];
	return NULL;
}

/* One line for both directions where they are alike, with room for a strand each way for every ring that it carries.
 * Those to CPUs are in the tree. */
static void put_links(const struct canvas *c)
{
	for (int i = 0; i < c->t->nlinks; i++) {
		const struct tt_topo_link *l = &c->t->links[i], *back = back_of(c->t, l);
		double speed = l->bandwidth == TT_NO_LIMIT ? INFINITY : (double)l->bandwidth * l->count;
		char prefix = c->round[l->from] && c->round[l->to] ? 'c' : 'n';

		if (back && back < l)
			continue;
		fprintf(c->f, "%c%d -> %c%d [class=link, color=\"#00000033\", dir=%s", prefix, l->from, prefix, l->to,
			back ? "none" : "forward");
		put_width(c->f, speed, (double)tt_topo_unit(c->t) / (2 * STRAND));
		fprintf(c->f, ", tooltip=\"%u %s, %.4g GB/s\"];\n", l->count, tt_link_word(l->kind), speed / 1e3);
	}
}

/* ---- rings: strands beside each other where they use the same link ---- */

static uint32_t hop_of(const struct tt_rings *r, uint32_t i, uint32_t k)
{
	return r->order[(size_t)i * r->n + k % r->n];
}

/* Which of the strands between a and b this one is, and how many there are. */
static uint32_t strands(const struct tt_rings *r, uint32_t a, uint32_t b, uint32_t ring, uint32_t *mine)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < r->count; i++)
		for (uint32_t k = 0; k < r->n; k++) {
			uint32_t x = hop_of(r, i, k), y = hop_of(r, i, k + 1);

			if ((x != a || y != b) && (x != b || y != a))
				continue;
			if (i == ring && x == a)
				*mine = n;
			n++;
		}
	return n;
}

/* From the border of one box to that of the other, moved to the side. */
static void put_strand(const struct canvas *c, struct place from, struct place to, double side)
{
	double dx = to.x - from.x, dy = to.y - from.y, len = hypot(dx, dy);
	double cut = fmin(HALF_WIDTH * len / fmax(fabs(dx), 1e-9), HALF_HEIGHT * len / fmax(fabs(dy), 1e-9)) + 1;
	struct place a, b, head;

	dx /= len;
	dy /= len;
	a = (struct place){ from.x + dx * cut - dy * side, from.y + dy * cut + dx * side };
	head = (struct place){ to.x - dx * cut - dy * side, to.y - dy * cut + dx * side };
	b = (struct place){ head.x - 6 * dx, head.y - 6 * dy };
	fprintf(c->f, ", pos=\"e,%.1f,%.1f %.1f,%.1f %.1f,%.1f %.1f,%.1f %.1f,%.1f\"", head.x, head.y, a.x, a.y, a.x,
		a.y, b.x, b.y, b.x, b.y);
}

static void put_rings(const struct canvas *c)
{
	const struct tt_rings *r = c->s->rings;

	for (uint32_t i = 0; r && i < r->count; i++)
		for (uint32_t k = 0; k < r->n; k++) {
			uint32_t a = hop_of(r, i, k), b = hop_of(r, i, k + 1), mine = 0, n = strands(r, a, b, i, &mine);
			int from = c->s->gpu[a], to = c->s->gpu[b];
			double side = STRAND * (mine - (n - 1) / 2.0);

			fprintf(c->f, "c%d -> c%d [class=ring, color=\"%s\"", from, to, draw_colour(i));
			/* To the same side seen from both ends. */
			put_strand(c, c->circle[from], c->circle[to], a < b ? side : -side);
			fputs("];\n", c->f);
		}
}

static void put_all(struct canvas *c)
{
	place_tree(c);
	place_circle(c);
	fputs("digraph machine {\ngraph [outputorder=edgesfirst, splines=line, fontname=Helvetica, fontsize=11, "
	      "label=\"", c->f);
	put_text(c->f, c->t->source ? c->t->source : "");
	fputs("\"];\nnode [shape=box, style=\"rounded,filled\", fontname=Helvetica, fontsize=9, margin=\"0.05,0.02\", "
	      "width=1, height=0.36];\nedge [arrowsize=0.5];\n", c->f);
	put_tree(c);
	for (int i = 0; i < c->t->nnodes; i++)
		if (c->round[i])
			put_node(c, 'c', i, &c->circle[i]);
	put_links(c);
	put_rings(c);
	fputs("}\n", c->f);
}

int draw_machine(const struct shown *s, const char *file)
{
	size_t n = (size_t)s->t->nnodes;
	struct canvas c = { .f = draw_begin(file), .s = s, .t = s->t };
	int status = 1;

	c.tree = calloc(n, sizeof(*c.tree));
	c.circle = calloc(n, sizeof(*c.circle));
	c.round = calloc(n, sizeof(*c.round));
	if (c.f && c.tree && c.circle && c.round) {
		put_all(&c);
		status = draw_end(c.f, file);
	} else if (c.f) {
		fclose(c.f);
	}
	free(c.tree);
	free(c.circle);
	free(c.round);
	return status;
}
