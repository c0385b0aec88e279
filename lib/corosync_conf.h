/* corosync.conf, as every host of a cluster has it. clusterctl writes the first one; clusterd changes it when hosts come and
 * go: only the list of hosts and two_node are ours then, all else stays as an administrator left it. Pure: text only.
 *
 * votequorum is told of every node with one vote each; the platform's log counts its own quorum from its voters. What it takes
 * from votequorum is a quorum device's vote alone (clusterd/core/node_tie.c). With two hosts two_node lets corosync be
 * quorate with one of them; a device takes its place and the two exclude each other (votequorum(5)). */
#pragma once

#include <stdbool.h>
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

/* The same from `old`, the file as it is: nodes that are in c stay as they are written there (second links, votes), others go, new ones
 * are added; two_node and its wait_for_all stand at the end of quorum {} for exactly two nodes without a device, and nowhere otherwise. What this made
 * comes out as it is. c->cluster_name and token_ms do not matter. -EINVAL, and nothing appended: nodes as above, or braces that
 * do not match. */
int corosync_conf_update(const struct corosync_conf *c, const char *old, struct buf *out);

/* A line of the file in its section. corosync's grammar (coroparse.c): `NAME {`, `KEY: VALUE`, `}`, `# comment`, one a line. */
struct corosync_conf_reader {
	const char *at;            /* what is still to be read; begin with the text, all else zero */
	size_t depth;              /* sections around this line; an opening or closing line counts as outside of its own */
	char section[3][32];       /* their names, the outermost first */
	const char *line;          /* as it is written, without its end */
	size_t len;
	enum corosync_conf_line { COROSYNC_CONF_OTHER, COROSYNC_CONF_OPEN, COROSYNC_CONF_KEY, COROSYNC_CONF_CLOSE } type;
	char key[32], value[256];  /* OPEN, CLOSE: key is the section's name */
	size_t depth_after;
	bool unmatched;            /* a brace that closes nothing */
};
bool corosync_conf_next(struct corosync_conf_reader *r);
