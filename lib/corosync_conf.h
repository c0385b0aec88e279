/* corosync.conf, as every host of a cluster has it: made from the list of hosts, never edited by hand. clusterctl
 * writes the first one, clusterd the later ones when hosts come and go. Pure: text only.
 *
 * votequorum is told of every node with one vote each; the platform's log counts its own quorum and only shows what
 * votequorum says, so nothing here (two_node and the like) loosens it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "lib/buf.h"

#define COROSYNC_CONF_TOKEN_DEFAULT_MS 1000
#define COROSYNC_CONF_TOKEN_MIN_MS 200
#define COROSYNC_CONF_TOKEN_MAX_MS 60000
#define COROSYNC_CONF_AUTHKEY_BYTES 256 /* corosync takes 128 to 4096 */

struct corosync_conf_node {
	const char *name;
	const char *address;
	uint32_t node_id;
};

struct corosync_conf {
	const char *cluster_name;
	uint32_t token_ms; /* a silent host is missed after so long; 0: the default */
	const struct corosync_conf_node *nodes;
	size_t n_nodes;
};

/* Appends the file's text to out. -EINVAL, and nothing appended: no nodes, a node id of 0, a token out of bounds, or a name or an
 * address with a character that the file's grammar does not bear. */
int corosync_conf_render(const struct corosync_conf *c, struct buf *out);
