/* tutti-info --topo: the machine as the library sees it, this one or one in a file.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "info_draw.h"

/* ---- rings ---- */

/* A hop over a switch is two links. */
static unsigned hops_of(const struct shown *s, uint32_t ring)
{
	const uint32_t *order = s->rings->order + (size_t)ring * s->rings->n;
	unsigned links = 0;

	for (uint32_t i = 0; i < s->rings->n; i++)
		links += tt_graph_cap(s->graph, order[i], order[(i + 1) % s->rings->n]) ? 1 : 2;
	return links;
}

static bool find_gpus(struct shown *s)
{
	int n = 0;

	s->gpu = calloc((size_t)s->t->nnodes, sizeof(*s->gpu));
	for (int i = 0; s->gpu && i < s->t->nnodes; i++)
		if (s->t->nodes[i].kind == TT_NODE_GPU)
			s->gpu[n++] = i;
	return s->gpu && n > 1;
}

static tuttiResult_t find_trees(struct shown *s)
{
	TRY(tt_cut_bound(s->graph, &s->bound));
	TRY(tt_trees_find(s->graph, TT_ROOT_ANY, &s->trees));
	TRY(tt_cut_trees(s->graph, &s->tree_bound));
	return tt_cut_root(s->graph, 0, &s->root_bound);
}

static tuttiResult_t find_rings(struct shown *s)
{
	struct tt_rings *any;

	s->most = s->bound = s->tree_bound = s->root_bound = tt_frac(0, 1);
	if (!find_gpus(s))
		return tuttiSuccess;
	TRY(tt_topo_graph(s->t, &s->graph));
	TRY(tt_rings_find(s->graph, false, &s->rings));
	TRY(tt_rings_find(s->graph, true, &any));
	s->most = any->total;
	tt_rings_free(any);
	for (uint32_t i = 0; i < s->rings->count; i++)
		s->links_used += hops_of(s, i) * s->rings->weight[i] / s->rings->den;
	return find_trees(s);
}

static void show_rings(const struct shown *s)
{
	if (!s->rings)
		return;
	printf("%-10s %g whole ones of %u links, %.4g of any rate, bound %.4g%s\n", "rings",
	       tt_frac_value(s->rings->total), s->links_used, tt_frac_value(s->most), tt_frac_value(s->bound),
	       s->rings->best ? "" : " (there may be more)");
	for (uint32_t i = 0; i < s->rings->count; i++) {
		printf("%10s %u x", "", s->rings->weight[i] / s->rings->den);
		for (uint32_t k = 0; k < s->rings->n; k++)
			printf(" %s", s->t->nodes[s->gpu[s->rings->order[(size_t)i * s->rings->n + k]]].id);
		puts("");
	}
}

static void show_tree(const struct shown *s, const uint32_t *parent, uint32_t at)
{
	bool any = false;

	fputs(s->t->nodes[s->gpu[at]].id, stdout);
	for (uint32_t v = 0; v < s->trees->n; v++)
		if (parent[v] == at && v != at) {
			fputs(any ? " " : "(", stdout);
			show_tree(s, parent, v);
			any = true;
		}
	fputs(any ? ")" : "", stdout);
}

static void show_trees(const struct shown *s)
{
	const struct tt_trees *t = s->trees;

	if (!t || !t->count)
		return;
	printf("%-10s %.4g for allreduce in units of rings, %u of them, bound %.4g\n", "trees",
	       tt_frac_value(tt_trees_rings(t)), t->count, tt_frac_value(s->tree_bound));
	for (uint32_t i = 0; i < t->count; i++) {
		printf("%10s %.3g x ", "", (double)t->weight[i] / t->den);
		show_tree(s, t->parent + (size_t)i * t->n, t->root[i]);
		puts("");
	}
}

static const char *speed_text(uint32_t mbytes, char *out, size_t n)
{
	if (mbytes == TT_NO_LIMIT)
		snprintf(out, n, "speed not known");
	else
		snprintf(out, n, "%.3g GB/s", mbytes / 1e3);
	return out;
}

static uint32_t all_of(const struct tt_topo_link *l)
{
	uint64_t all = (uint64_t)l->bandwidth * l->count;

	return l->bandwidth == TT_NO_LIMIT || all >= TT_NO_LIMIT ? TT_NO_LIMIT : (uint32_t)all;
}

/* ---- text ---- */

static int level(const struct tt_topo *t, int node)
{
	int n = 0;

	while (n < 20 && (node = t->nodes[node].parent) > 0)
		n++;
	return n;
}

/* Worth a word: the ids of devices say less than their names, a port's name is in its id. */
static const char *shown_attr(const struct tt_topo *t, int i, const char *attr)
{
	bool numa = t->nodes[i].kind == TT_NODE_NUMA, port = t->nodes[i].kind == TT_NODE_PORT;

	if ((!numa && (!strcmp(attr, "vendor") || !strcmp(attr, "arch"))) || (port && !strcmp(attr, "name")))
		return NULL;
	return tt_topo_attr(t, i, attr);
}

static void show_node(const struct tt_topo *t, int i)
{
	static const char *const attrs[] = { "cpus", "arch", "vendor", "name", "netdev" };
	const struct tt_topo_node *n = &t->nodes[i];
	char text[32];

	printf("%*s%s %s", 2 + 2 * level(t, i), "", tt_node_word(n->kind), n->id);
	for (size_t k = 0; k < sizeof(attrs) / sizeof(attrs[0]); k++)
		if (shown_attr(t, i, attrs[k]))
			printf(" %s%s", k ? "" : "cpus ", shown_attr(t, i, attrs[k]));
	if (n->kind >= TT_NODE_PCI || n->bandwidth != TT_NO_LIMIT)
		printf(", %s", speed_text(n->bandwidth, text, sizeof(text)));
	puts("");
}

static void show_links(const struct tt_topo *t)
{
	char text[32];

	for (int i = 0; i < t->nlinks; i++) {
		const struct tt_topo_link *l = &t->links[i];

		printf("%-10s %s to %s: %u %s, %s\n", i ? "" : "links", t->nodes[l->from].id, t->nodes[l->to].id,
		       l->count, tt_link_word(l->kind), speed_text(all_of(l), text, sizeof(text)));
	}
}

static void show(const struct shown *s)
{
	const struct tt_topo *t = s->t;
	char text[32];

	printf("%-10s %s\n", "topology", t->source ? t->source : "");
	printf("%-10s %016llx\n", "digest", (unsigned long long)tt_topo_digest(t));
	printf("%-10s %d NUMA nodes, %d cores, %d GPUs, %d NICs with %d ports\n", "host",
	       tt_topo_count(t, TT_NODE_NUMA), tt_topo_count(t, TT_NODE_CORE), tt_topo_count(t, TT_NODE_GPU),
	       tt_topo_count(t, TT_NODE_NIC), tt_topo_count(t, TT_NODE_PORT));
	for (int i = 1; i < t->nnodes; i++)
		show_node(t, i);
	show_links(t);
	for (int i = 0; i < s->npairs; i++) {
		const struct tt_topo_pair *p = &s->pair[i];

		printf("%-10s %s ", i ? "" : "pairs", t->nodes[p->gpu].id);
		if (p->nic < 0)
			puts("no NIC");
		else
			printf("%s %s, %s\n", t->nodes[p->nic].id, tt_path_word(p->path.cls),
			       speed_text(p->path.bandwidth, text, sizeof(text)));
	}
	show_rings(s);
	show_trees(s);
	for (int i = 0; i < t->nassumed; i++)
		printf("%-10s %s\n", i ? "" : "assumed", t->assumed[i]);
}

/* ---- JSON ---- */

static void json_speed(uint32_t mbytes)
{
	if (mbytes == TT_NO_LIMIT)
		printf(", \"mbytes\": null");
	else
		printf(", \"mbytes\": %u", mbytes);
}

static void json_attr(const struct tt_topo *t, int node, const char *attr)
{
	if (!tt_topo_attr(t, node, attr))
		return;
	printf(", ");
	json_pair(attr, tt_topo_attr(t, node, attr));
}

static void json_ports(const struct tt_topo *t, int nic)
{
	bool any = false;

	printf(", \"ports\": [");
	for (int i = nic + 1; i < t->nnodes && t->nodes[i].parent == nic; i++) {
		printf(any ? ", {" : "{");
		json_pair("id", t->nodes[i].id);
		json_attr(t, i, "name");
		json_attr(t, i, "port");
		json_attr(t, i, "netdev");
		json_speed(t->nodes[i].bandwidth);
		printf("}");
		any = true;
	}
	printf("]");
}

static void json_nodes(const struct tt_topo *t, const char *name, enum tt_node_kind kind, const char *id)
{
	bool any = false;

	printf(",\n \"%s\": [", name);
	for (int i = tt_topo_next(t, kind, -1); i >= 0; i = tt_topo_next(t, kind, i)) {
		int numa = tt_topo_above(t, i, TT_NODE_NUMA);

		printf(any ? ",\n  {" : "\n  {");
		any = true;
		json_pair(id, t->nodes[i].id);
		if (numa >= 0 && numa != i) {
			printf(", ");
			json_pair("numa", t->nodes[numa].id);
		}
		json_attr(t, i, "cpus");
		json_attr(t, i, "package");
		json_attr(t, i, "vendor");
		json_attr(t, i, "name");
		json_speed(t->nodes[i].bandwidth);
		if (kind == TT_NODE_NIC)
			json_ports(t, i);
		printf("}");
	}
	printf("]");
}

static void json_links(const struct tt_topo *t)
{
	printf(",\n \"links\": [");
	for (int i = 0; i < t->nlinks; i++) {
		const struct tt_topo_link *l = &t->links[i];

		printf(i ? ",\n  {" : "\n  {");
		json_pair("kind", tt_link_word(l->kind));
		printf(", ");
		json_pair("from", t->nodes[l->from].id);
		printf(", ");
		json_pair("to", t->nodes[l->to].id);
		printf(", \"count\": %u", l->count);
		json_speed(all_of(l));
		printf("}");
	}
	printf("]");
}

static void json_pairs(const struct shown *s)
{
	printf(",\n \"gpu_nic\": [");
	for (int i = 0; i < s->npairs; i++) {
		const struct tt_topo_pair *p = &s->pair[i];

		printf(i ? ",\n  {" : "\n  {");
		json_pair("gpu", s->t->nodes[p->gpu].id);
		printf(", ");
		if (p->nic < 0) {
			printf("\"nic\": null, \"distance\": null}");
			continue;
		}
		json_pair("nic", s->t->nodes[p->nic].id);
		printf(", ");
		json_pair("distance", tt_path_word(p->path.cls));
		json_speed(p->path.bandwidth);
		printf("}");
	}
	printf("]");
}

static void json_frac(const char *name, struct tt_frac f)
{
	if (f.den)
		printf(", \"%s\": %.10g", name, tt_frac_value(f));
	else
		printf(", \"%s\": null", name);
}

/* Each ring as often as it is there. */
static void json_rings(const struct shown *s)
{
	const struct tt_rings *r = s->rings;
	bool any = false;

	printf(",\n \"rings\": {\"count\": %g", r ? tt_frac_value(r->total) : 0);
	json_frac("fractional", s->most);
	printf(", \"orders\": [");
	for (uint32_t i = 0; r && i < r->count; i++)
		for (uint32_t k = 0; k < r->weight[i] / r->den; k++) {
			printf(any ? ",\n  [" : "\n  [");
			any = true;
			for (uint32_t j = 0; j < r->n; j++) {
				printf(j ? ", " : "");
				json_string(s->t->nodes[s->gpu[r->order[(size_t)i * r->n + j]]].id);
			}
			printf("]");
		}
	printf("]}");
	json_frac("bound", s->bound);
	printf(", \"links_used\": %u", s->links_used);
}

static void json_trees(const struct shown *s)
{
	const struct tt_trees *t = s->trees;

	printf(",\n \"trees\": {\"count\": %u", t ? t->count : 0);
	json_frac("rings", t && t->count ? tt_trees_rings(t) : tt_frac(0, 1));
	json_frac("bound", t ? s->tree_bound : tt_frac(0, 1));
	printf(", \"parents\": [");
	for (uint32_t i = 0; t && i < t->count; i++) {
		printf("%s\n  {\"rings\": %.10g, \"parent\": {", i ? "," : "",
		       (double)t->weight[i] / t->den);
		for (uint32_t v = 0; v < t->n; v++) {
			printf(v ? ", " : "");
			json_pair(s->t->nodes[s->gpu[v]].id, s->t->nodes[s->gpu[t->parent[i * t->n + v]]].id);
		}
		printf("}}");
	}
	printf("]}");
}

static void json(const struct shown *s, const struct hosts *h, const struct topo_wish *w)
{
	const struct tt_topo *t = s->t;

	json_pair("source", t->source ? t->source : "");
	printf(",\n \"digest\": \"%016llx\"", (unsigned long long)tt_topo_digest(t));
	json_nodes(t, "numa", TT_NODE_NUMA, "id");
	json_nodes(t, "cores", TT_NODE_CORE, "id");
	json_nodes(t, "gpus", TT_NODE_GPU, "bus_id");
	json_nodes(t, "nics", TT_NODE_NIC, "bus_id");
	json_links(t);
	json_pairs(s);
	json_rings(s);
	json_trees(s);
	if (h)
		hosts_json(h, w->explain, w->nexplain);
	printf(",\n \"assumed\": [");
	for (int i = 0; i < t->nassumed; i++) {
		printf(i ? ",\n  " : "\n  ");
		json_string(t->assumed[i]);
	}
	printf("]");
}

/* ---- */

static int print_form(const struct tt_topo *t, const char *form)
{
	char *text = NULL;
	tuttiResult_t r = strcmp(form, "nccl") ? tt_topo_write(t, &text) : tt_topo_to_nccl(t, &text);

	if (r == tuttiSuccess)
		fputs(text, stdout);
	free(text);
	return r != tuttiSuccess;
}

/* One host, and what is asked of many like it. */
struct view {
	struct shown s;
	struct hosts *h;
};

static bool look(struct view *v, const struct topo_wish *w)
{
	if (tt_topo_pairs(v->s.t, &v->s.pair, &v->s.npairs) != tuttiSuccess || find_rings(&v->s) != tuttiSuccess)
		return false;
	v->h = w->hosts ? hosts_new(&v->s, w->hosts) : NULL;
	return v->h || !w->hosts;
}

/* The others of a file beside the first one, in the same words. */
static void print_json(const struct view *v, int n, const struct topo_wish *w)
{
	printf("{");
	json(&v->s, v->h, w);
	for (int i = 1; i < n; i++) {
		printf(i > 1 ? ",\n{" : ",\n \"others\": [\n{");
		json(&v[i].s, v[i].h, w);
		printf("}");
	}
	printf(n > 1 ? "]}\n" : "}\n");
}

static void print(const struct view *v, int n, const struct topo_wish *w)
{
	if (w->json) {
		print_json(v, n, w);
		return;
	}
	for (int i = 0; i < n; i++) {
		if (i)
			puts("");
		if (v[i].h && n > 1)
			printf("%s\n", v[i].s.t->source);
		if (v[i].h)
			hosts_show(v[i].h, w->explain, w->nexplain);
		else
			show(&v[i].s);
	}
}

static void view_free(struct view *v)
{
	hosts_free(v->h);
	tt_trees_free(v->s.trees);
	tt_rings_free(v->s.rings);
	tt_graph_free(v->s.graph);
	free(v->s.gpu);
	free(v->s.pair);
	tt_topo_free(v->s.t);
}

static bool load(struct view *v, const char *file, int host)
{
	char name[4096];

	if (!file)
		return tt_topo_local(&v->s.t) == tuttiSuccess;
	snprintf(name, sizeof(name), "%s#%d", file, host + 1);
	return tt_topo_load(host ? name : file, NULL, &v->s.t) == tuttiSuccess;
}

/* All hosts of a file, if not one of them is asked for as FILE#2, or a form or a picture, which have place for one. */
static struct view *load_all(const struct topo_wish *w, int *n)
{
	bool one = w->form || w->draw || !w->file || access(w->file, F_OK);
	struct view *v = calloc(1, sizeof(*v)), *all;
	bool good = v && load(v, w->file, 0);

	*n = 1;
	all = good && !one && v->s.t->hosts > 1 ? calloc((size_t)v->s.t->hosts, sizeof(*all)) : NULL;
	if (all) {
		*all = *v;
		free(v);
		v = all;
	}
	for (; all && good && *n < all->s.t->hosts; ++*n)
		good = load(&v[*n], w->file, *n);
	if (good)
		return v;
	for (int i = 0; v && i < *n; i++)
		view_free(&v[i]);
	free(v);
	return NULL;
}

/* Errors are in the log, which by default shows them. */
int info_topo(const struct topo_wish *w)
{
	int n;
	struct view *v = load_all(w, &n);
	bool good = v;

	if (v && w->form) {
		good = !print_form(v->s.t, w->form);
	} else {
		for (int i = 0; good && i < n; i++)
			good = look(&v[i], w) && (!w->draw || !draw_machine(&v[i].s, w->draw));
		if (good)
			print(v, n, w);
	}
	for (int i = 0; v && i < n; i++)
		view_free(&v[i]);
	free(v);
	return !good;
}
