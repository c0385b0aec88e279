/* corosync.conf as the model wants it: every member rewrites its own when hosts come and go (lib/corosync_conf.h says what stays),
 * and has it reloaded. Reading is for what we need of it only: the nodes. Owner of a corosync_seen: caller. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "clusterd/core/model.h"
#include "lib/buf.h"
#include "lib/err.h"

struct corosync_seen_node {
	uint32_t node_id;
	char *name, *address;
};

struct corosync_seen {
	struct corosync_seen_node *nodes;
	size_t n_nodes;
};

#define COROSYNC_CONF_MAX (256u << 10)

/* -ENOENT: there is none. */
int corosync_config_read(const char *path, struct corosync_seen *ret, struct err *err);
void corosync_config_parse(const char *text, struct corosync_seen *ret);
void corosync_seen_free(struct corosync_seen *seen);
/* The node of this name, else the one of this address, else NULL. */
const struct corosync_seen_node *corosync_seen_find(const struct corosync_seen *seen, const char *name, const char *address);

/* What the file should be for the hosts of the model. old: its text now; NULL: there is none. */
int corosync_config_render(const struct model *m, const char *old, struct buf *out, struct err *err);

struct corosync_config;
struct corosync_config *corosync_config_new(uv_loop_t *loop, const char *path, const char *own_host);
void corosync_config_free(struct corosync_config *cc);
/* The model may have changed: rewrites and reloads if the file names other hosts than it. A host that is in the
 * model no more leaves its file alone. Logs what it does and what fails; asks again at the next call. */
void corosync_config_follow(struct corosync_config *cc, const struct model *m);
