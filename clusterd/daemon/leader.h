/* What only the leader does: runs the manager over the model while this node leads an epoch and is current in it,
 * executes its actions (proposals, fences), and makes hosts that were let in voters once they hold the log.
 * A new epoch begins with a fresh manager: it finds everything in the model. */
#pragma once

#include <uv.h>

#include "clusterd/daemon/cluster_node.h"

struct leader;

struct leader *leader_new(uv_loop_t *loop, struct cluster_node *node);
/* Before the node is closed. Frees later, on the loop. */
void leader_close(struct leader *l);
