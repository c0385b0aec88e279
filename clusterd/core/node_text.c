#include "clusterd/core/node_internal.h"

#include <inttypes.h>

bool node__listed(const uint32_t *list, size_t n, uint32_t node_id)
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
		here += node__listed(st->members, st->n_members, st->voters[i]);
	return here;
}

bool node__view_has_quorum(const struct node *n, const struct clog_status *st)
{
	return st->n_voters && voters_here(st) >= st->n_voters / 2 + 1;
}

/* "hostA, hostB" of the voters that are (or are not) members. */
static void names(const struct node *n, const struct clog_status *st, bool here, struct buf *out)
{
	const char *comma = "";

	for (size_t i = 0; i < st->n_voters; i++) {
		const Gantry__Host *h = model_host_by_node(&n->model, st->voters[i]);

		if (node__listed(st->members, st->n_members, st->voters[i]) != here)
			continue;
		if (h)
			buf_printf(out, "%s%s", comma, h->name);
		else
			buf_printf(out, "%snode %" PRIu32, comma, st->voters[i]);
		comma = ", ";
	}
}

static void no_quorum(const struct node *n, const struct clog_status *st, struct buf *out)
{
	size_t here = voters_here(st), missing = st->n_voters - here;

	buf_printf(out, "no quorum: %zu of %zu voters %s here", here, st->n_voters, here == 1 ? "is" : "are");
	if (here) {
		buf_printf(out, " (");
		names(n, st, true, out);
		buf_printf(out, ")");
	}
	buf_printf(out, "; ");
	names(n, st, false, out);
	buf_printf(out, " %s missing", missing == 1 ? "is" : "are");
}

const char *node_state_text(const struct node *n, struct buf *out)
{
	struct clog_status st;

	node_log_status(n, &st);
	if (n->stopped)
		buf_printf(out, "stepped out of the cluster: %s", n->stopped);
	else if (st.phase == CLOG_FAULTY)
		buf_printf(out, "faulty: %s", st.text);
	else if (!n->connected)
		buf_printf(out, "not connected: %s", n->disconnected_why ? n->disconnected_why : "connecting to corosync");
	else if (st.phase == CLOG_NORMAL)
		buf_printf(out, node_is_current(n) ? "normal" : "normal, applying what was committed");
	else if (!st.n_voters)
		buf_printf(out, "no cluster yet: run 'clusterctl cluster init' here, or 'clusterctl cluster join'");
	else if (!node__view_has_quorum(n, &st))
		no_quorum(n, &st, out);
	else
		buf_printf(out, "syncing: %s", st.phase == CLOG_ADOPT ? "taking over the log" : "agreeing on the log");
	return buf_str(out);
}

