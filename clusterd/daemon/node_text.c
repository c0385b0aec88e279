#include "clusterd/daemon/cluster_node_internal.h"

#include <inttypes.h>
#include <string.h>

static bool listed(const uint32_t *list, size_t n, uint32_t node_id)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == node_id)
			return true;
	return false;
}

static size_t voters_here(const struct clog_status *st)
{
	size_t here = 0;

	for (size_t i = 0; i < st->n_voters; i++)
		here += listed(st->members, st->n_members, st->voters[i]);
	return here;
}

bool node__view_has_quorum(const struct cluster_node *node, const struct clog_status *st)
{
	return st->n_voters && voters_here(st) >= st->n_voters / 2 + 1;
}

/* "hostA, hostB" of the voters that are (or are not) members. */
static void names(const struct cluster_node *node, const struct clog_status *st, bool here, struct buf *out)
{
	const char *comma = "";

	for (size_t i = 0; i < st->n_voters; i++) {
		const Gantry__Host *h = model_host_by_node(&node->model, st->voters[i]);

		if (listed(st->members, st->n_members, st->voters[i]) != here)
			continue;
		if (h)
			buf_printf(out, "%s%s", comma, h->name);
		else
			buf_printf(out, "%snode %" PRIu32, comma, st->voters[i]);
		comma = ", ";
	}
}

static void no_quorum(const struct cluster_node *node, const struct clog_status *st, struct buf *out)
{
	size_t here = voters_here(st), missing = st->n_voters - here;

	buf_printf(out, "no quorum: %zu of %zu voters %s here", here, st->n_voters, here == 1 ? "is" : "are");
	if (here) {
		buf_printf(out, " (");
		names(node, st, true, out);
		buf_printf(out, ")");
	}
	buf_printf(out, "; ");
	names(node, st, false, out);
	buf_printf(out, " %s missing", missing == 1 ? "is" : "are");
}

const char *cluster_node_state_text(const struct cluster_node *node, struct buf *out)
{
	struct clog_status st;

	cluster_node_log_status(node, &st);
	if (node->stopped)
		buf_printf(out, "stepped out of the cluster: %s", node->stopped);
	else if (node->disk_failed)
		buf_printf(out, "faulty: %s; mend the disk, then restart clusterd", node->disk_failed);
	else if (st.phase == CLOG_FAULTY)
		buf_printf(out, "faulty: %s", st.text);
	else if (!node->connected)
		buf_printf(out, "not connected: %s", node->disconnected_why ? node->disconnected_why : "connecting to corosync");
	else if (st.phase == CLOG_NORMAL)
		buf_printf(out, cluster_node_is_current(node) ? "normal" : "normal, applying what was committed");
	else if (!st.n_voters)
		buf_printf(out, "no cluster yet: run 'clusterctl cluster init' here, or 'clusterctl cluster join'");
	else if (!node__view_has_quorum(node, &st))
		no_quorum(node, &st, out);
	else
		buf_printf(out, "syncing: %s", st.phase == CLOG_ADOPT ? "taking over the log" : "agreeing on the log");
	return buf_str(out);
}

size_t cluster_node_corosync_nodes(const struct cluster_node *node, const uint32_t **ret)
{
	*ret = node->nodes;
	return node->n_nodes;
}
