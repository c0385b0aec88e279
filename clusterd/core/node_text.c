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

/* One of those who are missing and not proven dead, for "confirm that it is off". */
static const char *to_confirm(const struct node *n, const struct clog_status *st)
{
	for (size_t i = 0; i < st->n_voters; i++) {
		const Gantry__Host *h = model_host_by_node(&n->model, st->voters[i]);

		if (h && !node__listed(st->members, st->n_members, h->node_id) && !node__listed(n->tie.proven, n->tie.n_proven, h->node_id))
			return h->name;
	}
	return "HOST";
}

static void proof_words(const struct node *n, const struct clog_status *st, struct buf *out)
{
	const struct node_tie *t = &n->tie;
	const char *comma = "";

	for (size_t i = 0; i < st->n_voters; i++) {
		const Gantry__Host *h = model_host_by_node(&n->model, st->voters[i]);
		bool proven = h && node__listed(t->proven, t->n_proven, h->node_id);

		if (!h || (!proven && !node__listed(t->fencing, t->n_fencing, h->node_id)))
			continue;
		buf_printf(out, "%s%s is %s", comma, h->name, proven ? "proven dead" : "being fenced");
		comma = ", ";
	}
	if (!t->failure[0])
		return;
	buf_printf(out, "%s%s%s. Bring it back, or confirm that it is off with 'clusterctl fence confirm %s --yes'", comma, t->failure,
		   t->again_ms > n->now_ms ? " (it is tried again)" : "", to_confirm(n, st));
}

/* What is done or waited for where half of the voters are here (node_tie.c). */
static void tie_words(const struct node *n, const struct clog_status *st, struct buf *out)
{
	const char *confirm = to_confirm(n, st);

	switch (node__tie_waits_for(n, st)) {
	case NODE_TIE_NONE:
		break;
	case NODE_TIE_PROOF:
		proof_words(n, st, out);
		break;
	case NODE_TIE_DECISION:
		buf_printf(out, "proven dead, this half goes on alone");
		break;
	case NODE_TIE_CLUSTERD:
		buf_printf(out, "corosync runs there and clusterd does not; a host that is alive is not fenced: see 'journalctl -u clusterd' there");
		break;
	case NODE_TIE_OTHERS:
		buf_printf(out, "the host of the lowest node id here sees to it that they are proven dead");
		break;
	case NODE_TIE_PERSON:
		buf_printf(out, "this clusterd has just begun and may have slept through what %s did: bring %s back; or, if it is off and did not run "
			   "longer than this host, confirm that it is off with 'clusterctl fence confirm %s --yes'", confirm, confirm, confirm);
		break;
	case NODE_TIE_COROSYNC:
		buf_printf(out, "corosync has not told yet whether there is a quorum device");
		break;
	case NODE_TIE_DEVICE:
		buf_printf(out, "the quorum device has not given its vote to this half: bring %s back, or confirm that it is off with "
			   "'clusterctl fence confirm %s --yes'", confirm, confirm);
		break;
	case NODE_TIE_NO_DEVICE:
		buf_printf(out, "two of four go on alone only with a quorum device: bring %s back, or confirm that it is off with "
			   "'clusterctl fence confirm %s --yes'", confirm, confirm);
		break;
	case NODE_TIE_DISARMED:
		buf_printf(out, "automatic action is off: nobody is fenced until its time is over; bring %s back, or confirm that it is off with "
			   "'clusterctl fence confirm %s --yes'", confirm, confirm);
		break;
	case NODE_TIE_COURTESY:
		buf_printf(out, "fenced in a few seconds, if it does not fence this host first");
		break;
	}
}

static void no_quorum(const struct node *n, const struct clog_status *st, struct buf *out)
{
	size_t here = voters_here(st), missing = st->n_voters - here;
	struct buf more = {0};

	buf_printf(out, "no quorum: %zu of %zu voters %s here", here, st->n_voters, here == 1 ? "is" : "are");
	if (here) {
		buf_printf(out, " (");
		names(n, st, true, out);
		buf_printf(out, ")");
	}
	buf_printf(out, "; ");
	names(n, st, false, out);
	buf_printf(out, " %s missing", missing == 1 ? "is" : "are");
	tie_words(n, st, &more);
	if (more.len)
		buf_printf(out, ": %s", buf_str(&more));
	buf_free(&more);
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

