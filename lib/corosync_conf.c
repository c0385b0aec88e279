#include "lib/corosync_conf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/limits.h"

/* corosync waits half a token for knet's pings, whose thread wakes only each 200 ms: with a token up to this, idle
 * links would fall every few seconds unless their time-out is set apart. */
#define TOKEN_NEEDS_PING_SETTINGS_MS 400

static bool is_word(const char *text)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-";

	return text != NULL && *text != '\0' && text[strspn(text, allowed)] == '\0';
}

static bool nodes_are_valid(const struct corosync_conf *c)
{
	for (size_t i = 0; i < c->n_nodes; i++)
		if (!is_word(c->nodes[i].name) || !is_word(c->nodes[i].address) || c->nodes[i].node_id == 0)
			return false;
	return c->n_nodes > 0;
}

static void add_node(const struct corosync_conf_node *node, struct buf *out)
{
	buf_printf(out, "\tnode {\n\t\tring0_addr: %s\n\t\tname: %s\n\t\tnodeid: %u\n\t}\n", node->address, node->name, node->node_id);
}

static void add_two_node(struct buf *out)
{
	buf_printf(out, "\ttwo_node: 1\n\twait_for_all: 1\n");
}

int corosync_conf_render(const struct corosync_conf *c, struct buf *out)
{
	uint32_t token_ms = c->token_ms ? c->token_ms : COROSYNC_CONF_TOKEN_DEFAULT_MS;

	if (!nodes_are_valid(c) || !is_word(c->cluster_name) || token_ms < COROSYNC_CONF_TOKEN_MIN_MS ||
	    token_ms > COROSYNC_CONF_TOKEN_MAX_MS)
		return -EINVAL;
	buf_printf(out, "# Written by gantry from the cluster's list of hosts; the list and two_node follow it, the rest is yours.\n");
	/* token_coefficient 0: the token is what it says, however many hosts there are. */
	buf_printf(out,
		   "totem {\n\tversion: 2\n\tcluster_name: %s\n\ttransport: knet\n\tcrypto_cipher: aes256\n"
		   "\tcrypto_hash: sha256\n\ttoken: %u\n\ttoken_coefficient: 0\n",
		   c->cluster_name, token_ms);
	if (token_ms <= TOKEN_NEEDS_PING_SETTINGS_MS)
		buf_printf(out, "\tinterface {\n\t\tlinknumber: 0\n\t\tknet_ping_interval: 250\n"
				"\t\tknet_ping_timeout: 1000\n\t}\n");
	buf_printf(out, "}\n\nnodelist {\n");
	for (size_t i = 0; i < c->n_nodes; i++)
		add_node(&c->nodes[i], out);
	buf_printf(out, "}\n\nquorum {\n\tprovider: corosync_votequorum\n");
	if (c->n_nodes == 2)
		add_two_node(out);
	buf_printf(out, "}\n\nsystem {\n\tsched_rr: yes\n\tmove_to_root_cgroup: no\n}\n\n"
			"logging {\n\tto_stderr: yes\n\tto_logfile: no\n\tto_syslog: no\n\ttimestamp: hires\n}\n");
	return 0;
}

/* ---- a file that is there */

static void copy_trimmed(char *to, size_t size, const char *from, size_t len)
{
	while (len && strchr(" \t\r", *from)) {
		from++;
		len--;
	}
	while (len && strchr(" \t\r", from[len - 1]))
		len--;
	if (len >= size)
		len = size - 1;
	memcpy(to, from, len);
	to[len] = '\0';
}

static void open_section(struct corosync_conf_reader *r, const char *brace)
{
	r->type = COROSYNC_CONF_OPEN;
	copy_trimmed(r->key, sizeof(r->key), r->line, (size_t)(brace - r->line));
	if (r->depth < 3)
		memcpy(r->section[r->depth], r->key, sizeof(r->key));
	r->depth_after = r->depth + 1;
}

static void close_section(struct corosync_conf_reader *r)
{
	r->type = COROSYNC_CONF_CLOSE;
	r->unmatched = r->unmatched || !r->depth;
	if (r->depth)
		r->depth--;
	r->depth_after = r->depth;
	if (r->depth < 3)
		memcpy(r->key, r->section[r->depth], sizeof(r->key));
}

/* In this order corosync looks too: a brace in a value opens a section there as well. */
bool corosync_conf_next(struct corosync_conf_reader *r)
{
	const char *brace, *colon, *text;

	r->depth = r->depth_after;
	if (!*r->at)
		return false;
	r->line = r->at;
	r->len = strcspn(r->line, "\n");
	r->at += r->len + (r->line[r->len] == '\n');
	r->type = COROSYNC_CONF_OTHER;
	r->key[0] = r->value[0] = '\0';
	text = r->line + strspn(r->line, " \t\r");
	brace = memchr(r->line, '{', r->len);
	colon = memchr(r->line, ':', r->len);
	if (*text == '#')
		return true;
	if (brace) {
		open_section(r, brace);
	} else if (colon) {
		r->type = COROSYNC_CONF_KEY;
		copy_trimmed(r->key, sizeof(r->key), r->line, (size_t)(colon - r->line));
		copy_trimmed(r->value, sizeof(r->value), colon + 1, (size_t)(r->line + r->len - colon - 1));
	} else if (memchr(r->line, '}', r->len)) {
		close_section(r);
	}
	return true;
}

/* What is to be done with a file. */
struct update {
	const struct corosync_conf *conf;
	struct buf *out;
	bool has_nodelist, has_quorum, has_device, has_two_node;
	bool kept[LIMIT_HOSTS];
	struct buf node;              /* a node's section, until its end shows whether it stays */
	struct corosync_conf_node seen;
	char name[256], address[256];
};

static bool is_section(const struct corosync_conf_reader *r, size_t level, const char *name)
{
	return r->depth > level && strcmp(r->section[level], name) == 0;
}

static bool is_quorum_key(const struct corosync_conf_reader *r, const char *key)
{
	return r->type == COROSYNC_CONF_KEY && r->depth == 1 && is_section(r, 0, "quorum") && strcmp(r->key, key) == 0;
}

static bool scan(struct update *u, const char *old)
{
	struct corosync_conf_reader r = {.at = old};

	while (corosync_conf_next(&r)) {
		bool opens = r.type == COROSYNC_CONF_OPEN;

		u->has_nodelist = u->has_nodelist || (opens && !r.depth && !strcmp(r.key, "nodelist"));
		u->has_quorum = u->has_quorum || (opens && !r.depth && !strcmp(r.key, "quorum"));
		u->has_device = u->has_device || (opens && r.depth == 1 && is_section(&r, 0, "quorum") && !strcmp(r.key, "device"));
		u->has_two_node = u->has_two_node || is_quorum_key(&r, "two_node");
	}
	return !r.unmatched && r.depth == 0;
}

static bool wants_two_node(const struct update *u)
{
	return u->conf->n_nodes == 2 && !u->has_device;
}

static void copy_line(const struct corosync_conf_reader *r, struct buf *out)
{
	buf_append(out, r->line, r->len);
	buf_append(out, "\n", 1);
}

static void add_missing_nodes(struct update *u)
{
	for (size_t i = 0; i < u->conf->n_nodes; i++)
		if (!u->kept[i])
			add_node(&u->conf->nodes[i], u->out);
}

static void end_node(struct update *u)
{
	for (size_t i = 0; i < u->conf->n_nodes; i++) {
		const struct corosync_conf_node *want = &u->conf->nodes[i];

		/* Names may be left out; one that is there must be right. */
		if (u->kept[i] || want->node_id != u->seen.node_id || strcmp(want->address, u->address) != 0 ||
		    (u->name[0] && strcmp(want->name, u->name) != 0))
			continue;
		u->kept[i] = true;
		buf_append(u->out, u->node.data, u->node.len);
	}
	buf_consume(&u->node, u->node.len);
	u->seen.node_id = 0;
	u->name[0] = u->address[0] = '\0';
}

/* A line within nodelist {}. */
static void nodelist_line(struct update *u, const struct corosync_conf_reader *r)
{
	bool edge = r->type == COROSYNC_CONF_OPEN || r->type == COROSYNC_CONF_CLOSE;

	if (r->depth == 1 && !edge) {
		copy_line(r, u->out);
		return;
	}
	copy_line(r, &u->node);
	if (r->type == COROSYNC_CONF_CLOSE && r->depth == 1)
		end_node(u);
	else if (r->type == COROSYNC_CONF_KEY && !strcmp(r->key, "nodeid"))
		u->seen.node_id = (uint32_t)strtoul(r->value, NULL, 10);
	else if (r->type == COROSYNC_CONF_KEY && !strcmp(r->key, "name"))
		memcpy(u->name, r->value, sizeof(u->name));
	else if (r->type == COROSYNC_CONF_KEY && !strcmp(r->key, "ring0_addr"))
		memcpy(u->address, r->value, sizeof(u->address));
}

static void update_line(struct update *u, const struct corosync_conf_reader *r)
{
	bool ends = r->type == COROSYNC_CONF_CLOSE && !r->depth;
	bool ours = is_quorum_key(r, "two_node") || is_quorum_key(r, "wait_for_all");

	if (is_section(r, 0, "nodelist")) {
		nodelist_line(u, r);
		return;
	}
	/* wait_for_all without two_node is an administrator's own. */
	if (ours && (u->has_two_node || wants_two_node(u)))
		return;
	if (ends && !strcmp(r->key, "nodelist"))
		add_missing_nodes(u);
	if (ends && !strcmp(r->key, "quorum") && wants_two_node(u))
		add_two_node(u->out);
	copy_line(r, u->out);
}

int corosync_conf_update(const struct corosync_conf *c, const char *old, struct buf *out)
{
	struct update u = {.conf = c, .out = out};
	struct corosync_conf_reader r = {.at = old};

	if (!nodes_are_valid(c) || c->n_nodes > LIMIT_HOSTS || !scan(&u, old))
		return -EINVAL;
	while (corosync_conf_next(&r))
		update_line(&u, &r);
	if (!u.has_nodelist) {
		buf_printf(out, "nodelist {\n");
		add_missing_nodes(&u);
		buf_printf(out, "}\n");
	}
	if (!u.has_quorum)
		buf_printf(out, "quorum {\n\tprovider: corosync_votequorum\n");
	if (!u.has_quorum && wants_two_node(&u))
		add_two_node(out);
	if (!u.has_quorum)
		buf_printf(out, "}\n");
	buf_free(&u.node);
	return 0;
}
