#include "clusterd/core/node_internal.h"

#include <errno.h>

#define STATUS(x) GANTRY__STATUS__STATUS_##x

static void send_proposal(struct node *n, struct proposal *p)
{
	struct clog_event event = {.type = CLOG_EVENT_PROPOSE};

	/* A user makes the cluster here: there is nothing that this host could have forgotten. */
	if (p->first && n->forgetful)
		node__remember(n);
	p->sent = true;
	event.u.propose.command = p->packed.data;
	event.u.propose.len = p->packed.len;
	event.u.propose.cookie = p->cookie;
	node__clog(n, &event);
}

static void refuse_with_state(struct node *n, struct proposal *p, Gantry__Status status, const char *remedy)
{
	struct buf text = {0};

	node_state_text(n, &text);
	buf_printf(&text, "%s", remedy);
	proposals_refuse(&n->proposals, p, status, buf_str(&text));
	buf_free(&text);
}

/* The one place that decides whether a proposal goes, waits or is refused now. */
static void review(struct node *n, struct proposal *p)
{
	struct clog_status st;

	node_log_status(n, &st);
	if (n->stopped || st.phase == CLOG_FAULTY) {
		refuse_with_state(n, p, STATUS(UNAVAILABLE), "; ask another host of the cluster (clusterctl --host)");
	} else if (st.phase == CLOG_NORMAL || (p->first && !st.n_voters && st.phase == CLOG_SYNC)) {
		send_proposal(n, p);
	} else if (!p->patient) {
		refuse_with_state(n, p, STATUS(RETRY), "");
	} else if (n->clog && !st.n_voters && !p->first) {
		refuse_with_state(n, p, STATUS(UNAVAILABLE), "");
	} else if (n->clog && st.n_voters && !node__view_has_quorum(n, &st) && !n->tie.given) {
		refuse_with_state(n, p, STATUS(NO_QUORUM), "");
	} else if (n->now_ms >= p->deadline_ms) {
		refuse_with_state(n, p, STATUS(RETRY), "; try again");
	}
}

void node__proposals_review(struct node *n)
{
	/* Answers call back and may add proposals: by cookie, not by place. */
	for (struct proposal *p = proposals_after(&n->proposals, 0); p;) {
		uint64_t cookie = p->cookie;

		if (!p->sent)
			review(n, p);
		p = proposals_after(&n->proposals, cookie);
	}
}

bool node__proposals_wait(const struct node *n)
{
	for (size_t i = 0; i < n->proposals.n; i++)
		if (!n->proposals.list[i]->sent)
			return true;
	return false;
}

static size_t waiting(const struct node *n)
{
	size_t count = 0;

	for (size_t i = 0; i < n->proposals.n; i++)
		count += !n->proposals.list[i]->sent;
	return count;
}

void node__propose(struct node *n, Gantry__Command *command, bool patient, proposal_cb cb, void *data, bool free_data)
{
	struct proposal *p = proposals_add(&n->proposals);

	command->version = MODEL_COMMAND_VERSION;
	command->proposer = n->node_id;
	command->time_ms = n->wall_ms;
	pb_pack(command, &p->packed);
	p->cb = cb;
	p->data = data;
	p->free_data = free_data;
	p->patient = patient;
	p->repeatable = command->client[0] && command->seq;
	p->first = command->body_case == GANTRY__COMMAND__BODY_CLUSTER_INIT;
	p->deadline_ms = n->now_ms + NODE_HOLD_MS;
	if (waiting(n) > LIMIT_NODE_WAITING)
		p->patient = false;
	if (patient && command->body_case == GANTRY__COMMAND__BODY_FENCE_CONFIRM)
		node__tie_confirm(n, command->fence_confirm->host);
	review(n, p);
}

void node__committed(struct node *n, uint64_t cookie, const Gantry__CommandResult *result)
{
	struct proposal *p = proposals_find(&n->proposals, cookie);

	if (p)
		proposals_answer(&n->proposals, p, result);
}

void node__dropped(struct node *n, uint64_t cookie, int rc)
{
	struct proposal *p = proposals_find(&n->proposals, cookie);
	bool unsent = rc == -ENOTCONN;

	if (!p)
		return;
	if (rc == -E2BIG) {
		proposals_refuse(&n->proposals, p, STATUS(BAD_DATA), "the command is too large for the log");
	} else if (rc == -EBUSY) {
		proposals_refuse(&n->proposals, p, STATUS(RETRY), "too many commands are under way on this host; try again");
	} else if (p->patient && (unsent || p->repeatable)) {
		/* With its request id the model applies it once, however often it was sent. */
		p->sent = false;
		p->deadline_ms = n->now_ms + NODE_HOLD_MS;
		n->review_wanted = true;
	} else {
		proposals_refuse(&n->proposals, p, STATUS(RETRY), unsent ? "the cluster's membership changed; try again" :
			"the cluster's membership changed while the command was under way: it may have been done; look, then try again");
	}
}
