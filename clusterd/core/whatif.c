#include "clusterd/core/whatif.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "clusterd/core/manager.h"
#include "clusterd/core/model_internal.h"

#define STEPS_MAX 200
#define STEP_MS 700000     /* between two looks: beyond every pause */

/* A copy on which the future is tried. */
struct future {
	struct model m;
	struct manager *mgr;
	uint64_t now_ms;
	char **why;          /* the leader's last reason for each domain's host, in the order of the domains; NULL: not placed */
};

static void apply(struct future *f, Gantry__Command *c)
{
	Gantry__CommandResult *result = NULL;
	struct buf packed = {0};
	struct err err = {0};

	c->version = MODEL_COMMAND_VERSION;
	c->time_ms = f->now_ms;
	pb_pack(c, &packed);
	if (model_apply(&f->m, f->m.state->applied_index + 1, f->m.state->applied_epoch, packed.data, packed.len, &result, &err) == 0)
		gantry__command_result__free_unpacked(result, NULL);
	buf_free(&packed);
}

/* A domain that runs has no reason any more: it is kept here. */
static void note_place(struct future *f, const Gantry__CmdDomainPlace *c)
{
	for (size_t i = 0; i < f->m.state->n_domains; i++) {
		if (!model__is(f->m.state->domains[i]->spec->uuid, c->uuid))
			continue;
		free(f->why[i]);
		f->why[i] = str_dup(c->reason);
	}
}

static void host_goes(struct future *f, const Gantry__Host *h, Gantry__HostState state)
{
	Gantry__Command c = GANTRY__COMMAND__INIT;
	Gantry__CmdHostState s = GANTRY__CMD_HOST_STATE__INIT;

	s.name = h->name;
	s.state = state;
	s.incarnation = h->incarnation;
	s.reason = s.proof = (char *)"what if it died";
	c.body_case = GANTRY__COMMAND__BODY_HOST_STATE;
	c.host_state = &s;
	apply(f, &c);
}

static void report(struct future *f, const Gantry__Domain *d, Gantry__DomainState state)
{
	Gantry__Command c = GANTRY__COMMAND__INIT;
	Gantry__CmdDomainReport r = GANTRY__CMD_DOMAIN_REPORT__INIT;

	r.uuid = d->spec->uuid;
	r.generation = d->generation;
	r.host = d->host;
	r.state = state;
	r.ready = state == DOM(RUNNING);
	c.body_case = GANTRY__COMMAND__BODY_DOMAIN_REPORT;
	c.domain_report = &r;
	apply(f, &c);
}

/* The agents do at once what they are told. */
static void hosts_obey(struct future *f)
{
	for (size_t i = 0; i < f->m.state->n_domains; i++) {
		const Gantry__Domain *d = f->m.state->domains[i];

		if (*d->host && d->state == DOM(STARTING))
			report(f, d, DOM(RUNNING));
		else if (*d->host && d->state == DOM(STOPPING))
			report(f, d, DOM(STOPPED));
	}
}

/* True: something was decided. */
static bool step(struct future *f, enum manager_event_type type, const uint32_t *members, size_t n)
{
	struct manager_event event = {.type = type, .now_ms = f->now_ms, .wall_ms = f->now_ms, .epoch = f->m.state->applied_epoch};
	const struct manager_action *actions;
	Gantry__Command **commands;
	size_t count, n_commands = 0;

	if (type == MANAGER_EVENT_MEMBERS) {
		event.u.members.members = event.u.members.synced = event.u.members.nodes = members;
		event.u.members.n_members = event.u.members.n_synced = event.u.members.n_nodes = n;
	}
	manager_step(f->mgr, &f->m, &event, &actions, &count);
	commands = count ? mem_alloc(count * sizeof(*commands)) : NULL;
	for (size_t i = 0; i < count; i++)
		if (actions[i].type == MANAGER_ACTION_PROPOSE && actions[i].command->body_case != GANTRY__COMMAND__BODY_HOST_STATE)
			commands[n_commands++] = pb_clone(actions[i].command);
	for (size_t i = 0; i < n_commands; i++) {
		if (commands[i]->body_case == GANTRY__COMMAND__BODY_DOMAIN_PLACE)
			note_place(f, commands[i]->domain_place);
		apply(f, commands[i]);
		gantry__command__free_unpacked(commands[i], NULL);
	}
	free(commands);
	hosts_obey(f);
	f->now_ms += STEP_MS;
	return n_commands;
}

static bool is_failed(const Gantry__Host *h, char *const *failed, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (model__is(h->name, failed[i]))
			return true;
	return false;
}

static size_t survivors(const struct model *m, char *const *failed, size_t n, uint32_t *ret)
{
	size_t count = 0;

	for (size_t i = 0; i < m->state->n_hosts; i++)
		if (m->state->hosts[i]->state == HOST(ONLINE) && !is_failed(m->state->hosts[i], failed, n))
			ret[count++] = m->state->hosts[i]->node_id;
	return count;
}

static void run(struct future *f, char *const *failed, size_t n)
{
	uint32_t members[LIMIT_HOSTS];
	size_t n_members = survivors(&f->m, failed, n, members);

	for (size_t i = 0; i < f->m.state->n_hosts; i++) {
		const Gantry__Host *h = f->m.state->hosts[i];

		if (!is_failed(h, failed, n))
			continue;
		host_goes(f, h, HOST(LOST));
		host_goes(f, h, HOST(FENCING));
		host_goes(f, h, HOST(DEAD));
	}
	if (!n_members)
		return;
	step(f, MANAGER_EVENT_MEMBERS, members, n_members);
	for (unsigned i = 0; i < STEPS_MAX && step(f, MANAGER_EVENT_TICK, NULL, 0); i++)
		;
}

/* ---- what is told ---------------------------------------------------------------- */

static void tell_moves(const struct model *before, const struct future *f, Gantry__CtlPlan *plan)
{
	for (size_t i = 0; i < before->state->n_domains; i++) {
		/* None comes or goes. */
		const Gantry__Domain *was = before->state->domains[i], *is = f->m.state->domains[i];
		Gantry__PlanMove *move;

		if (!*was->host || (is->generation == was->generation && model__is(is->host, was->host)))
			continue;
		move = PB_NEW(Gantry__PlanMove, gantry__plan_move__init);
		pb_set_string(&move->domain, was->spec->name);
		pb_set_string(&move->from, was->host);
		pb_set_string(&move->to, is->host);
		pb_set_string(&move->reason, *is->host && f->why[i] ? f->why[i] : is->reason);
		move->priority = was->policy->priority;
		PB_APPEND(plan, moves, move);
	}
}

static void note(Gantry__CtlPlan *plan, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	pb_string_append(&plan->notes, &plan->n_notes, text);
}

static void tell_fences(const struct model *m, char *const *failed, size_t n, Gantry__CtlPlan *plan)
{
	size_t lost = 0, others = 0;

	for (size_t i = 0; i < m->state->n_hosts; i++) {
		const Gantry__Host *h = m->state->hosts[i];
		bool fails = is_failed(h, failed, n);

		others += h->state == HOST(ONLINE);
		lost += fails && h->state == HOST(ONLINE);
		if (fails && h->state == HOST(ONLINE) && !h->n_fence)
			note(plan, "%s has no fence device: its domains stay where they are until somebody confirms that it is off", h->name);
	}
	/* The one who looks is not among the others. */
	if (lost && others > 2 && lost * 100 > (others - 1) * model__fence_share(m))
		note(plan, "so many hosts at once are not fenced (more than %u %% of the others): somebody has to confirm that they are off", model__fence_share(m));
	if (model__disarmed(m))
		note(plan, "automatic action is off: nothing of this happens until it is on again");
}

static void tell_quorum(const struct model *m, char *const *failed, size_t n, Gantry__CtlPlan *plan)
{
	size_t left = 0, voters = m->state->n_voters;
	char text[160];

	for (size_t i = 0; i < m->state->n_hosts; i++) {
		const Gantry__Host *h = m->state->hosts[i];

		left += h->state == HOST(ONLINE) && !is_failed(h, failed, n) && model__is_voter(m->state, h->node_id);
	}
	plan->quorate = left * 2 > voters;
	snprintf(text, sizeof(text), "%zu of %zu voters are left%s", left, voters,
		 plan->quorate		? ""
		 : left * 2 == voters ? ": half of them go on alone only once the others are proven dead"
				      : ": no quorum, nothing is started until more are back");
	pb_set_string(&plan->quorum_text, text);
}

static const char *unknown(const struct model *m, char *const *failed, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!model_host(m, failed[i]))
			return failed[i];
	return NULL;
}

int whatif_fail(const struct model *m, char *const *failed, size_t n, Gantry__CtlPlan **ret, struct err *err)
{
	const char *nobody = unknown(m, failed, n);
	struct future f = {.m = {.state = NULL}};
	Gantry__CtlPlan *plan;

	if (nobody)
		return err_set_status(err, ENOENT, STATUS(NO_SUCH), "no host '%s'; see 'clusterctl host list'", nobody);
	plan = PB_NEW(Gantry__CtlPlan, gantry__ctl_plan__init);
	f.m.state = pb_clone(m->state);
	f.mgr = manager_new();
	f.why = mem_alloc((m->state->n_domains + 1) * sizeof(*f.why));
	f.now_ms = STEP_MS;
	for (size_t i = 0; i < m->state->n_domains; i++)
		if (f.now_ms < m->state->domains[i]->state_since_ms)
			f.now_ms = m->state->domains[i]->state_since_ms;
	f.now_ms += STEP_MS;
	/* Tried as if it were on: what is off is told. */
	if (f.m.state->ha)
		f.m.state->ha->disarmed = false;
	run(&f, failed, n);
	tell_moves(m, &f, plan);
	tell_fences(m, failed, n, plan);
	tell_quorum(m, failed, n, plan);
	for (size_t i = 0; i < m->state->n_domains; i++)
		free(f.why[i]);
	free(f.why);
	manager_free(f.mgr);
	model_free(&f.m);
	*ret = plan;
	return 0;
}
