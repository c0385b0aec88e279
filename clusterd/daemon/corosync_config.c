#include "clusterd/daemon/corosync_config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/atomic_file.h"
#include "lib/cleanup.h"
#include "lib/corosync_conf.h"
#include "lib/limits.h"
#include "lib/log.h"
#include "lib/subprocess.h"

#define RELOAD_TIMEOUT_MS 10000

struct corosync_config {
	uv_loop_t *loop;
	char *path, *own_host;
	struct subprocess *reload;
	bool reload_again;
	bool freed;               /* waits for the reload to end */
	bool said_failed;
	struct buf followed;      /* the hosts that the file was last found or made to name */
};

static void seen_add(struct corosync_seen *seen)
{
	seen->nodes = mem_realloc(seen->nodes, (seen->n_nodes + 1) * sizeof(*seen->nodes));
	seen->nodes[seen->n_nodes++] = (struct corosync_seen_node){0};
}

static void node_key(struct corosync_seen_node *node, const char *key, const char *value)
{
	char **text = NULL;

	if (!strcmp(key, "nodeid"))
		node->node_id = (uint32_t)strtoul(value, NULL, 10);
	else if (!strcmp(key, "name"))
		text = &node->name;
	else if (!strcmp(key, "ring0_addr"))
		text = &node->address;
	if (!text)
		return;
	free(*text);
	*text = str_dup(value);
}

void corosync_config_parse(const char *text, struct corosync_seen *ret)
{
	struct corosync_conf_reader r = {.at = text};

	*ret = (struct corosync_seen){0};
	while (corosync_conf_next(&r)) {
		bool node = r.depth >= 1 && !strcmp(r.section[0], "nodelist");

		if (node && r.type == COROSYNC_CONF_OPEN && r.depth == 1 && !strcmp(r.key, "node"))
			seen_add(ret);
		else if (node && r.type == COROSYNC_CONF_KEY && r.depth == 2 && ret->n_nodes)
			node_key(&ret->nodes[ret->n_nodes - 1], r.key, r.value);
	}
}

int corosync_config_read(const char *path, struct corosync_seen *ret, struct err *err)
{
	struct buf text = {0};
	int rc = atomic_file_read(path, COROSYNC_CONF_MAX, &text, err);

	if (rc == 0)
		corosync_config_parse(buf_str(&text), ret);
	buf_free(&text);
	return rc;
}

void corosync_seen_free(struct corosync_seen *seen)
{
	for (size_t i = 0; i < seen->n_nodes; i++) {
		free(seen->nodes[i].name);
		free(seen->nodes[i].address);
	}
	free(seen->nodes);
	*seen = (struct corosync_seen){0};
}

const struct corosync_seen_node *corosync_seen_find(const struct corosync_seen *seen, const char *name, const char *address)
{
	for (size_t i = 0; i < seen->n_nodes; i++)
		if (seen->nodes[i].name && !strcmp(seen->nodes[i].name, name))
			return &seen->nodes[i];
	for (size_t i = 0; i < seen->n_nodes; i++)
		if (seen->nodes[i].address && !strcmp(seen->nodes[i].address, address))
			return &seen->nodes[i];
	return NULL;
}

int corosync_config_render(const struct model *m, const char *old, struct buf *out, struct err *err)
{
	struct corosync_conf_node nodes[LIMIT_HOSTS];
	struct corosync_conf conf = {.cluster_name = m->state->cluster_name, .nodes = nodes};
	int rc;

	for (size_t i = 0; i < m->state->n_hosts && i < LIMIT_HOSTS; i++) {
		const Gantry__Host *h = m->state->hosts[i];

		nodes[conf.n_nodes++] = (struct corosync_conf_node){.name = h->name, .address = h->address, .node_id = h->node_id};
	}
	rc = old ? corosync_conf_update(&conf, old, out) : corosync_conf_render(&conf, out);
	if (rc < 0)
		return err_set(err, -rc, "corosync.conf cannot be made from the hosts of the cluster%s",
			       old ? ": the braces of the present one do not match; mend it" : "");
	return 0;
}

/* ---- following the model */

static void reload(struct corosync_config *cc);

static void on_reloaded(void *data, const struct subprocess_result *result)
{
	struct corosync_config *cc = data;

	cc->reload = NULL;
	if (cc->freed) {
		corosync_config_free(cc);
		return;
	}
	if (result->rc < 0)
		log_warning("corosync-cfgtool -R: %s", strerror(-result->rc));
	else if (result->exit_status)
		log_warning("corosync-cfgtool -R ended with %d: %s%s; corosync reads its new hosts when it starts next", result->exit_status,
			    result->err_out, result->out);
	if (cc->reload_again)
		reload(cc);
}

static void reload(struct corosync_config *cc)
{
	static const char *const argv[] = {"corosync-cfgtool", "-R", NULL};
	struct subprocess_options options = {.argv = argv, .timeout_ms = RELOAD_TIMEOUT_MS};
	struct err err = {0};

	cc->reload_again = cc->reload != NULL;
	if (cc->reload)
		return;
	if (subprocess_run(cc->loop, &options, on_reloaded, cc, &cc->reload, &err) < 0)
		log_warning("corosync was not asked to read its new configuration: %s", err.text);
}

struct corosync_config *corosync_config_new(uv_loop_t *loop, const char *path, const char *own_host)
{
	struct corosync_config *cc = mem_alloc(sizeof(*cc));

	cc->loop = loop;
	cc->path = str_dup(path);
	cc->own_host = str_dup(own_host);
	return cc;
}

void corosync_config_free(struct corosync_config *cc)
{
	if (!cc)
		return;
	if (cc->reload) {
		cc->freed = true;
		subprocess_cancel(cc->reload);
		return;
	}
	free(cc->path);
	free(cc->own_host);
	buf_free(&cc->followed);
	free(cc);
}

/* The file is read only when the hosts have changed: this comes after each command. */
static bool is_followed(struct corosync_config *cc, const struct model *m)
{
	struct buf now = {0};
	bool same;

	for (size_t i = 0; i < m->state->n_hosts; i++)
		buf_printf(&now, "%" PRIu32 " %s %s\n", m->state->hosts[i]->node_id, m->state->hosts[i]->name,
			   m->state->hosts[i]->address);
	same = now.len == cc->followed.len && !memcmp(buf_str(&now), buf_str(&cc->followed), now.len);
	buf_free(&cc->followed);
	cc->followed = now;
	return same;
}

void corosync_config_follow(struct corosync_config *cc, const struct model *m)
{
	struct buf old = {0}, text = {0};
	struct err err = {0};
	int rc;

	if (!model_host(m, cc->own_host) || is_followed(cc, m))
		return;
	rc = atomic_file_read(cc->path, COROSYNC_CONF_MAX, &old, &err);
	if (rc == 0 || rc == -ENOENT)
		rc = corosync_config_render(m, rc == 0 ? buf_str(&old) : NULL, &text, &err);
	if (rc == 0 && strcmp(buf_str(&old), buf_str(&text)) != 0) {
		rc = atomic_file_write(cc->path, text.data, text.len, 0644, &err);
		if (rc == 0) {
			log_notice("%s now names %zu hosts", cc->path, m->state->n_hosts);
			reload(cc);
		}
	}
	if (rc < 0) {
		if (!cc->said_failed)
			log_error("corosync does not learn of the new hosts: %s", err.text);
		buf_consume(&cc->followed, cc->followed.len);
	}
	cc->said_failed = rc < 0;
	buf_free(&old);
	buf_free(&text);
}
