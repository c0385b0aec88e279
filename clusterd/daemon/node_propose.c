#include "clusterd/daemon/cluster_node_internal.h"

#include <errno.h>
#include <time.h>

#include "lib/limits.h"
#include "proto/pb.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x

static uint64_t wall_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void send_proposal(struct cluster_node *node, struct proposal *p)
{
	struct clog_event event = {.type = CLOG_EVENT_PROPOSE};

	/* A user makes the cluster here: there is nothing that this host could have forgotten. */
	if (p->first && node->forgetful) {
		node->forgetful = false;
		store_remember(node->store);
	}

	p->sent = true;
	event.u.propose.command = p->packed.data;
	event.u.propose.len = p->packed.len;
	event.u.propose.cookie = p->cookie;
	node__event(node, &event);
}

static void refuse_with_state(struct cluster_node *node, struct proposal *p, Gantry__Status status, const char *remedy)
{
	struct buf text = {0};

	cluster_node_state_text(node, &text);
	buf_printf(&text, "%s", remedy);
	proposals_refuse(&node->proposals, p, status, buf_str(&text));
	buf_free(&text);
}

/* The one place that decides whether a proposal goes, waits or is refused now. */
static void review(struct cluster_node *node, struct proposal *p)
{
	struct clog_status st;

	cluster_node_log_status(node, &st);
	if (node->stopped || st.phase == CLOG_FAULTY) {
		refuse_with_state(node, p, STATUS(UNAVAILABLE), "; ask another host of the cluster (clusterctl --host)");
	} else if (st.phase == CLOG_NORMAL || (p->first && !st.n_voters && st.phase == CLOG_SYNC)) {
		send_proposal(node, p);
	} else if (!p->patient) {
		refuse_with_state(node, p, STATUS(RETRY), "");
	} else if (node->clog && !st.n_voters && !p->first) {
		refuse_with_state(node, p, STATUS(UNAVAILABLE), "");
	} else if (node->clog && st.n_voters && !node__view_has_quorum(node, &st)) {
		refuse_with_state(node, p, STATUS(NO_QUORUM), "");
	} else if (uv_now(node->loop) >= p->deadline_ms) {
		refuse_with_state(node, p, STATUS(RETRY), "; try again");
	}
}

void node__proposals_review(struct cluster_node *node)
{
	/* Answers call back and may add proposals: by cookie, not by place. */
	for (struct proposal *p = proposals_after(&node->proposals, 0); p;) {
		uint64_t cookie = p->cookie;

		if (!p->sent)
			review(node, p);
		p = proposals_after(&node->proposals, cookie);
	}
}

bool node__proposals_wait(const struct cluster_node *node)
{
	for (size_t i = 0; i < node->proposals.n; i++)
		if (!node->proposals.list[i]->sent)
			return true;
	return false;
}

static size_t waiting(const struct cluster_node *node)
{
	size_t n = 0;

	for (size_t i = 0; i < node->proposals.n; i++)
		n += !node->proposals.list[i]->sent;
	return n;
}

void cluster_node_propose(struct cluster_node *node, Gantry__Command *command, bool patient, proposal_cb cb, void *data)
{
	struct proposal *p = proposals_add(&node->proposals);

	command->version = MODEL_COMMAND_VERSION;
	command->proposer = node->node_id;
	command->time_ms = wall_clock_ms();
	pb_pack(command, &p->packed);
	p->cb = cb;
	p->data = data;
	p->patient = patient;
	p->repeatable = command->client[0] && command->seq;
	p->first = command->body_case == GANTRY__COMMAND__BODY_CLUSTER_INIT;
	p->deadline_ms = uv_now(node->loop) + CLUSTER_NODE_HOLD_MS;
	if (waiting(node) > LIMIT_NODE_WAITING)
		p->patient = false;
	review(node, p);
}

void node__committed(struct cluster_node *node, uint64_t cookie, const Gantry__CommandResult *result)
{
	struct proposal *p = proposals_find(&node->proposals, cookie);

	if (p)
		proposals_answer(&node->proposals, p, result);
}

void node__dropped(struct cluster_node *node, uint64_t cookie, int rc)
{
	struct proposal *p = proposals_find(&node->proposals, cookie);
	bool unsent = rc == -ENOTCONN;

	if (!p)
		return;
	if (rc == -E2BIG) {
		proposals_refuse(&node->proposals, p, STATUS(BAD_DATA), "the command is too large for the log");
	} else if (rc == -EBUSY) {
		proposals_refuse(&node->proposals, p, STATUS(RETRY), "too many commands are under way on this host; try again");
	} else if (p->patient && (unsent || p->repeatable)) {
		/* With its request id the model applies it once, however often it was sent. */
		p->sent = false;
		p->deadline_ms = uv_now(node->loop) + CLUSTER_NODE_HOLD_MS;
		node->review_wanted = true;
	} else {
		proposals_refuse(&node->proposals, p, STATUS(RETRY), unsent ? "the cluster's membership changed; try again" :
			"the cluster's membership changed while the command was under way: it may have been done; look, then try again");
	}
}
