/* This host's agent: goals go down, reports come up. Goals are sent when they have changed, and only while this node is
 * current: those of an older state of the cluster could name a former owner. What a report asks for is proposed once at a
 * time; a refused proposal waits. */
#include "clusterd/core/node_internal.h"

#include <stdlib.h>
#include <string.h>

#include "lib/deadlines.h"

#define AGENT_REFUSED_MS 2000
#define AGENT_GONE_MS 3000    /* a restart of the agent is quicker and not worth telling the cluster */

bool node_agent_reports(const struct node *n)
{
	return n->agent.connected && n->agent.report;
}

const Gantry__AgentReport *node_agent_report(const struct node *n)
{
	return n->agent.report;
}

/* ---- proposing what a report asks for ---------------------------------------- */

static void request_free(struct node_agent_request *r)
{
	buf_free(&r->body);
	free(r);
}

static void request_remove(struct node_agent *a, struct node_agent_request *r)
{
	struct node_agent_request **at = &a->requests;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
	request_free(r);
}

static void on_result(void *data, const Gantry__CommandResult *result)
{
	struct node_agent_request *r = data;
	struct node *n = r->node;

	r->in_flight = false;
	if (result->status == GANTRY__STATUS__STATUS_OK) {
		request_remove(&n->agent, r);
		return;
	}
	if (result->status != GANTRY__STATUS__STATUS_RETRY)
		node__note(n, NODE_INFO, "what the agent reported was refused: %s", result->text);
	r->not_before_ms = n->now_ms + AGENT_REFUSED_MS;
}

static bool request_known(const struct node_agent *a, const struct buf *body)
{
	for (const struct node_agent_request *r = a->requests; r; r = r->next)
		if (r->body.len == body->len && !memcmp(r->body.data, body->data, body->len))
			return true;
	return false;
}

static void requests_age(struct node *n)
{
	for (struct node_agent_request *r = n->agent.requests, *next; r; r = next) {
		next = r->next;
		if (!r->in_flight && n->now_ms >= r->not_before_ms)
			request_remove(&n->agent, r);
	}
}

static void propose_once(struct node *n, Gantry__Command *command)
{
	struct buf body = {0};
	struct node_agent_request *r;

	pb_pack(command, &body);
	if (request_known(&n->agent, &body)) {
		buf_free(&body);
		return;
	}
	r = mem_alloc(sizeof(*r));
	*r = (struct node_agent_request){.node = n, .body = body, .in_flight = true, .next = n->agent.requests};
	n->agent.requests = r;
	node__propose(n, command, false, on_result, r, false);
}

static void propose_for_report(struct node *n)
{
	Gantry__Command **commands = NULL;
	size_t count = 0;

	model_commands_for_report(&n->model, n->host, n->agent.report, &commands, &count);
	for (size_t i = 0; i < count; i++) {
		propose_once(n, commands[i]);
		gantry__command__free_unpacked(commands[i], NULL);
	}
	free(commands);
}

/* The cluster is told that this host has no agent only after a while: agents are restarted. */
static void propose_agent_gone(struct node *n)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdHostInfo info = GANTRY__CMD_HOST_INFO__INIT;
	Gantry__Host host = GANTRY__HOST__INIT;
	const Gantry__Host *known = model_host(&n->model, n->host);

	if (!known || !known->agent_connected || n->now_ms - n->agent.gone_since_ms < AGENT_GONE_MS)
		return;
	host.node_id = known->node_id;
	host.name = known->name;
	host.address = known->address;
	info.host = &host;
	command.body_case = GANTRY__COMMAND__BODY_HOST_INFO;
	command.host_info = &info;
	propose_once(n, &command);
}

/* Applying what was proposed brings us here again: only one at a time, the outer one goes round once more. */
static void evaluate(struct node *n)
{
	struct node_agent *a = &n->agent;

	if (a->evaluating) {
		a->evaluate_again = true;
		return;
	}
	a->evaluating = true;
	do {
		a->evaluate_again = false;
		requests_age(n);
		if (!node_is_current(n) || !model_host(&n->model, n->host))
			break;
		if (a->report)
			propose_for_report(n);
		else
			propose_agent_gone(n);
	} while (a->evaluate_again);
	a->evaluating = false;
}

/* ---- goals and heartbeats ------------------------------------------------------ */

static void send_goals(struct node *n)
{
	struct node_action action = {.type = NODE_ACTION_GOALS};
	struct node_agent *a = &n->agent;
	Gantry__AgentGoals *goals;
	struct buf packed = {0};

	if (!a->connected || (!node_is_current(n) && !MUTANT(old_goals_obeyed)) || !model_host(&n->model, n->host))
		return;
	goals = model_goals_view(&n->model, n->host, 0, 0);
	pb_pack(goals, &packed);
	if (packed.len == a->goals_sent.len && a->goals_sent.data && !memcmp(packed.data, a->goals_sent.data, packed.len)) {
		buf_free(&packed);
	} else {
		buf_free(&a->goals_sent);
		a->goals_sent = packed;
		goals->epoch = n->model.state->applied_epoch;
		goals->index = n->model.state->applied_index;
		action.u.goals = goals;
		node__act(n, &action);
	}
	model_goals_view_free(goals);
}

static void send_quorum(struct node *n)
{
	struct node_action action = {.type = NODE_ACTION_QUORUM};
	struct clog_status st;

	if (!n->agent.connected || n->stopped)
		return;
	node_log_status(n, &st);
	n->agent.said_quorate = action.u.quorum.quorate = node_is_quorate(n);
	action.u.quorum.epoch = st.epoch;
	node__act(n, &action);
}

/* Most commands concern other hosts. */
void node__agent_model(struct node *n)
{
	if (!n->model.touched || !node_is_current(n))
		return;
	n->model.touched = false;
	/* What is to be started is started under a quorum that the agent knows of. */
	if (!n->agent.said_quorate)
		send_quorum(n);
	send_goals(n);
	evaluate(n);
}

void node__agent_membership(struct node *n)
{
	n->model.touched = true;
	send_quorum(n);
	node__agent_model(n);
}

void node__agent_tick(struct node *n)
{
	if (n->now_ms < n->agent.due_ms)
		return;
	n->agent.due_ms = n->now_ms + DEADLINE_HEARTBEAT_MS;
	send_quorum(n);
	/* What a report asks for was looked at when it came, and when the model changed: only what was refused is left. */
	if (!n->agent.report || n->agent.requests)
		evaluate(n);
}

/* ---- the connection --------------------------------------------------------------- */

void node__agent_connected(struct node *n, bool connected)
{
	struct node_agent *a = &n->agent;

	if (a->report)
		gantry__agent_report__free_unpacked(a->report, NULL);
	a->report = NULL;
	if (a->connected)
		a->gone_since_ms = n->now_ms;
	a->connected = connected;
	/* Whatever it has: the whole of the goals again. */
	buf_free(&a->goals_sent);
	if (!connected)
		return;
	send_quorum(n);
	send_goals(n);
}

void node__agent_report(struct node *n, Gantry__AgentReport *report)
{
	if (n->agent.report)
		gantry__agent_report__free_unpacked(n->agent.report, NULL);
	n->agent.report = report;
	if (report->host)
		report->host->agent_connected = true;
	evaluate(n);
}

void node__agent_free(struct node *n)
{
	struct node_agent *a = &n->agent;

	while (a->requests) {
		struct node_agent_request *next = a->requests->next;

		request_free(a->requests);
		a->requests = next;
	}
	if (a->report)
		gantry__agent_report__free_unpacked(a->report, NULL);
	a->report = NULL;
	buf_free(&a->goals_sent);
}
