/* The two sides of a migration: what agent/daemon/migration_host.c and migrate/ do, over the simulated network. Who goes on is read from
 * the goals (agent/core/migration_rule.h). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_agent_internal.h"

/* ---- finding ---- */

static struct sim_migration *of_domain(const struct sim_domain *d)
{
	for (struct sim_migration *m = d->agent->migrations; m; m = m->next)
		if (m->job.id == d->job_id && m->shape.key == d->shape.key)
			return m;
	return NULL;
}

static struct sim_domain *any_domain(const struct sim_migration *m)
{
	return domain_find(m->agent, m->shape.uuid, m->shape.key);
}

static struct sim_domain *domain_of(const struct sim_migration *m)
{
	struct sim_domain *d = any_domain(m);

	return d && d->job_id == m->job.id ? d : NULL;
}

struct sim_migration *migration_listed(const struct sim_agent *a, const struct sim_domain *d)
{
	for (struct sim_migration *m = a->migrations; m; m = m->next)
		if (m->listed && m->shape.key == d->shape.key && !strcmp(m->shape.uuid, d->shape.uuid))
			return m;
	return NULL;
}

static void changed(struct sim *s, struct sim_migration *m)
{
	struct sim_domain *d = any_domain(m);

	if (d)
		d->dirty = true;
	m->agent->report_now = true;
	agent_wake(s, m->agent);
}

/* ---- the engine ---- */

static void move(struct sim *s, struct sim_migration *m, enum side_state state, Gantry__MigrationStage stage)
{
	m->state = state;
	m->moved_us = s->now_us;
	if (stage)
		m->stage = stage;
	sim_trace(s, "%s: task %llu: %s side is at %d", m->agent->host->name, (unsigned long long)m->job.id, m->incoming ? "destination" : "source", (int)state);
	changed(s, m);
}

bool migration_stream_moves(struct sim *s, const struct sim_vm *source, struct sim_vm **ret_copy)
{
	struct sim_host *h = source->q.host;
	const struct sim_migration *m = NULL, *other;
	struct sim_vm *copy = NULL;

	if (!agent_is_running(h) || h->agent->hung)
		return false;
	for (struct sim_migration *x = h->agent->migrations; x && !m; x = x->next)
		if (!x->incoming && x->engine && x->shape.key == source->shape.key && (x->state == SIDE_COPYING || x->state == SIDE_SWITCHING || x->state == SIDE_PREPARING))
			m = x;
	if (!m || !m->peer || m->peer->frozen || !net_reaches(s, h, m->peer) || !net_reaches(s, m->peer, h))
		return false;
	other = channel_peer(m);
	if (!other || m->peer->agent->hung || (other->state != SIDE_COPYING && other->state != SIDE_SWITCHING))
		return false;
	for (struct sim_qemu *q = qemu_first(m->peer); q && !copy; q = q->next)
		if (q->job_id == m->job.id && !vm_of(q)->dying)
			copy = vm_of(q);
	if (!copy || s->now_us < copy->answers_from_us)
		return false;
	*ret_copy = copy;
	return true;
}

static void engine_begins(struct sim *s, struct sim_migration *m)
{
	m->engine = true;
	move(s, m, SIDE_GREETING, STAGE(PRE_MIGRATION));
	channel_open(s, m);
}

static void failed_is(struct sim *s, struct sim_migration *m, const char *reason)
{
	if (m->failed)
		return;
	m->failed = true;
	snprintf(m->reason, sizeof(m->reason), "%s", reason);
	sim_trace(s, "%s: task %llu: the %s side fails: %s", m->agent->host->name, (unsigned long long)m->job.id, m->incoming ? "destination" : "source", reason);
	changed(s, m);
}

void migration_fail(struct sim *s, struct sim_migration *m, const char *reason)
{
	enum side_state was = m->state;
	struct sim_domain *d = domain_of(m);

	if (m->state >= SIDE_COMPLETE)
		return;
	m->state = SIDE_FAILED;
	channel_post(s, m, LETTER_FAILED);
	/* Before the leases were offered the guest can run nowhere else: the useless copying stops at once. */
	if (!m->incoming && (was == SIDE_PREPARING || was == SIDE_COPYING) && d && d->vm && !d->vm_dead)
		vm_ask(s, m->agent->host, d->vm, VM_CANCEL);
	failed_is(s, m, reason);
}

static void receive_source(struct sim *s, struct sim_migration *m, enum letter_what what)
{
	struct sim_domain *d = domain_of(m);

	if (what == LETTER_WELCOME && m->state == SIDE_GREETING) {
		move(s, m, SIDE_RESERVING, STAGE(RESERVATION));
		channel_post(s, m, LETTER_RESERVE);
	} else if (what == LETTER_RESERVED && m->state == SIDE_RESERVING) {
		move(s, m, SIDE_PREPARING, 0);
		if (d && d->vm)
			vm_ask(s, m->agent->host, d->vm, VM_MIGRATE);
	} else if (what == LETTER_COMPLETE && m->state == SIDE_VERIFYING) {
		move(s, m, SIDE_COMPLETE, STAGE(COMMITMENT));
	}
}

static void receive_destination(struct sim *s, struct sim_migration *m, enum letter_what what)
{
	struct sim_domain *d = domain_of(m);

	if (what == LETTER_RESERVE && m->state == SIDE_GREETING) {
		m->reserve_wanted = true;
		move(s, m, SIDE_RESERVING, STAGE(RESERVATION));
	} else if (what == LETTER_STOPPED && m->state == SIDE_COPYING) {
		move(s, m, SIDE_SWITCHING, STAGE(STOP_AND_COPY));
	} else if (what == LETTER_END && m->state == SIDE_SWITCHING) {
		move(s, m, SIDE_VERIFYING, 0);
		if (d && d->vm)
			vm_ask(s, m->agent->host, d->vm, VM_VERIFY);
	}
}

void migration_receive(struct sim *s, struct sim_migration *m, enum letter_what what)
{
	if (what == LETTER_FAILED)
		migration_fail(s, m, "the other side failed");
	else if (m->incoming)
		receive_destination(s, m, what);
	else
		receive_source(s, m, what);
}

/* The note comes before the word: after it COMMIT may be applied at any time, also while this agent restarts. */
static void verified(struct sim *s, struct sim_migration *m, struct sim_domain *d, int rc)
{
	struct sim_vm *vm = vm_find(m->agent->host, d->vm);

	if (m->state != SIDE_VERIFYING)
		return;
	if (rc < 0 || !vm || d->actual != ACTUAL_INCOMING) {
		migration_fail(s, m, "the copy is not whole");
		return;
	}
	domain_note(s, d, NOTE_COMPLETE);
	d->actual = ACTUAL_COMPLETE;
	vm_is_complete(s, vm);
	m->ready = true;
	move(s, m, SIDE_COMPLETE, STAGE(COMMITMENT));
	channel_post(s, m, LETTER_COMPLETE);
}

static void on_settled(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_migration *m;

	AGENT_EVENT(on_settled);
	m = migration_by_no(h->agent, arg);
	if (!m || m->settled)
		return;
	m->settled = true;
	m->state = SIDE_SETTLED;
	m->said_settled = true;
	changed(s, m);
}

static void settle_later(struct sim *s, struct sim_migration *m, int rc)
{
	m->settle_rc = rc;
	agent_after(s, m->agent, 1 * MS, on_settled, m->no, NULL);
}

void migration_vm_answered(struct sim *s, struct sim_domain *d, enum vm_command command, int rc)
{
	struct sim_migration *m = of_domain(d);

	if (command == VM_RESCUE && (!m || !m->engine)) {
		if (d->pending_qmp > 0)
			d->pending_qmp--;
		domain_settled(s, d, rc, "");
		return;
	}
	if (!m || !m->engine)
		return;
	switch (command) {
	case VM_MIGRATE:
		if (rc < 0)
			migration_fail(s, m, "QEMU cannot be told to migrate");
		else if (m->state == SIDE_PREPARING)
			move(s, m, SIDE_COPYING, STAGE(PRE_COPY));
		return;
	case VM_CONTINUE:
		if (rc < 0)
			migration_fail(s, m, "QEMU cannot be told to go on with the migration");
		return;
	case VM_INCOMING:
		if (m->state != SIDE_PREPARING)
			return;
		move(s, m, SIDE_COPYING, STAGE(PRE_COPY));
		channel_post(s, m, LETTER_RESERVED);
		return;
	case VM_VERIFY:
		verified(s, m, d, rc);
		return;
	case VM_RESCUE:
		if (m->state == SIDE_SETTLING)
			settle_later(s, m, rc);
		return;
	default:
		return;
	}
}

void migration_vm_event(struct sim *s, struct sim_domain *d, enum vm_event event)
{
	struct sim_migration *m = of_domain(d);
	bool alive = m && m->engine && m->state < SIDE_COMPLETE;

	if (!m || !m->engine || m->incoming)
		return;
	/* From the hand-over on only a decision may let this guest run: a QEMU that resumes by itself is held again. */
	if (event == EVENT_RESUME && d->leases_handed && m->state <= SIDE_FAILED)
		vm_ask(s, d->agent->host, d->vm, VM_RESTOP);
	if (event == EVENT_PRESWITCH && (m->state == SIDE_PREPARING || m->state == SIDE_COPYING)) {
		m->hand_over_wanted = true;
		move(s, m, SIDE_HANDING_OVER, STAGE(STOP_AND_COPY));
	} else if (event == EVENT_SENT && m->state == SIDE_SWITCHING) {
		move(s, m, SIDE_VERIFYING, 0);
		channel_post(s, m, LETTER_END);
	} else if (event == EVENT_MIGRATION_FAILED && alive) {
		migration_fail(s, m, "QEMU's migration failed");
	}
}

void migration_vm_died(struct sim *s, struct sim_domain *d)
{
	struct sim_migration *m = of_domain(d);

	if (!m || !m->engine)
		return;
	if (m->state == SIDE_SETTLING && m->aborting)
		settle_later(s, m, -ESRCH);
	/* A destination that has died is no complete copy any more, whatever was reported. */
	if (m->incoming && m->state == SIDE_COMPLETE) {
		m->state = SIDE_FAILED;
		m->ready = false;
		failed_is(s, m, "QEMU of the complete copy has ended");
		return;
	}
	migration_fail(s, m, "QEMU has ended");
}

void migration_drop_vm(struct sim_domain *d)
{
	struct sim_migration *m = of_domain(d);

	if (m && m->engine && m->decided && !m->settled && m->aborting)
		m->aborting = false;
}

/* ---- the agent's part ---- */

static void start_source(struct sim *s, struct sim_migration *m)
{
	struct sim_domain *d = any_domain(m);
	bool paused;

	if (!d || domain_pending(d) > 0 || d->actual == ACTUAL_STARTING)
		return;
	m->tried = true;
	if (d->job_id == m->job.id && (d->actual == ACTUAL_OUTGOING || d->actual == ACTUAL_OUTGOING_HELD)) {
		failed_is(s, m, "the agent of the source was restarted during the migration");
		return;
	}
	if ((d->actual != ACTUAL_RUNNING && d->actual != ACTUAL_PAUSED) || d->generation != m->goal.source_generation) {
		failed_is(s, m, "the domain is not running on the source");
		return;
	}
	if (!m->peer || !d->qmp_ready) {
		failed_is(s, m, "QEMU does not answer");
		return;
	}
	paused = d->actual == ACTUAL_PAUSED;
	d->job_id = m->job.id;
	domain_note(s, d, NOTE_OUTGOING);
	d->actual = paused ? ACTUAL_OUTGOING_HELD : ACTUAL_OUTGOING;
	s->r->migrations++;
	sim_trace(s, "%s: task %llu: %s goes to %s", m->agent->host->name, (unsigned long long)m->job.id, d->shape.name, m->peer->name);
	engine_begins(s, m);
}

/* A copy that this agent found, not made: what it says depends on how far the old agent came. */
static void adopted_copy(struct sim *s, struct sim_migration *m, const struct sim_domain *d)
{
	/* QMP has not said yet what it does. */
	if (d->actual == ACTUAL_STARTING)
		return;
	m->tried = true;
	if (d->actual == ACTUAL_COMPLETE && !m->ready) {
		m->stage = STAGE(COMMITMENT);
		m->ready = true;
		changed(s, m);
	} else if (d->actual != ACTUAL_COMPLETE && d->actual != ACTUAL_RUNNING && d->actual != ACTUAL_PAUSED && !d->activating) {
		failed_is(s, m, "the agent of the destination was restarted during the migration");
	}
}

static void make_destination(struct sim *s, struct sim_migration *m)
{
	struct sim_domain *d = domain_of(m);

	if (d && d->adopted && d->actual != ACTUAL_ABSENT) {
		adopted_copy(s, m, d);
		return;
	}
	m->tried = true;
	engine_begins(s, m);
}

static void reserve(struct sim *s, struct sim_migration *m)
{
	struct sim_domain *d = domain_get(s, m->agent, &m->shape);
	const char *reason = "";

	m->reserve_wanted = false;
	if (m->engine && !m->decided && domain_start_copy(s, d, m, &reason) < 0)
		migration_fail(s, m, reason);
}

void migration_reserved(struct sim *s, struct sim_domain *d, int rc, const char *reason)
{
	struct sim_migration *m = of_domain(d);

	if (!m || !m->engine || m->decided || m->state != SIDE_RESERVING)
		return;
	if (rc < 0) {
		migration_fail(s, m, reason);
		return;
	}
	move(s, m, SIDE_PREPARING, 0);
	vm_ask(s, m->agent->host, d->vm, VM_INCOMING);
}

static void on_handed(struct sim *s, struct sim_domain *d, int rc, const char *text)
{
	struct sim_migration *m = of_domain(d);

	domain_changed(s, d);
	if (!m || !m->engine || m->decided || m->state != SIDE_HANDING_OVER)
		return;
	if (rc < 0) {
		migration_fail(s, m, "the leases could not be handed over");
		return;
	}
	channel_post(s, m, LETTER_STOPPED);
	move(s, m, SIDE_SWITCHING, STAGE(STOP_AND_COPY));
	vm_ask(s, m->agent->host, d->vm, VM_CONTINUE);
}

static void hand_over(struct sim *s, struct sim_migration *m)
{
	struct sim_domain *d = domain_of(m);

	m->hand_over_wanted = false;
	if (!m->engine || m->decided || !d)
		return;
	domain_held(s, d);
	if (!d->leases) {
		migration_fail(s, m, "this agent does not hold the leases");
		return;
	}
	/* From the attempt on: a record that was perhaps written must be taken back. */
	d->leases_handed = true;
	d->leases->held = false;
	d->pending_store++;
	store_ask(s, d, STORE_HAND_OVER, m->peer_name, m->job.generation, on_handed);
}

static void decide(struct sim *s, struct sim_migration *m, bool commit)
{
	struct sim_domain *d = domain_of(m);

	if (m->decided)
		return;
	m->decided = true;
	m->committed = commit;
	sim_trace(s, "%s: task %llu: %s", m->agent->host->name, (unsigned long long)m->job.id, commit ? "committed" : "aborted");
	if (!m->engine) {
		m->settled = true;
		return;
	}
	m->ready = false;
	m->state = SIDE_SETTLING;
	m->peer_no = 0;
	if (!m->incoming && !commit && d && d->vm && !d->vm_dead)
		vm_ask(s, m->agent->host, d->vm, VM_RESCUE);
	else
		settle_later(s, m, !m->incoming && !commit ? -ESRCH : 0);
}

void migration_activated(struct sim *s, struct sim_domain *d)
{
	struct sim_migration *m = of_domain(d);

	if (!m)
		return;
	m->running = true;
	m->stage = STAGE(ACTIVATION);
	decide(s, m, true);
	changed(s, m);
}

void migration_abort_source(struct sim *s, struct sim_domain *d)
{
	struct sim_migration *m = of_domain(d);

	if (m && m->engine) {
		m->aborting = true;
		decide(s, m, false);
		return;
	}
	d->pending_qmp++;
	vm_ask(s, d->agent->host, d->vm, VM_RESCUE);
}

static void read_decision(struct sim *s, struct sim_migration *m)
{
	struct sim_domain *d = any_domain(m);
	enum migration_decision decision;

	if (m->decided)
		return;
	decision = migration_rule_decision(&(struct migration_facts){
		.job_id = m->job.id, .incoming = m->incoming, .source_generation = m->goal.source_generation, .domain_here = domain_of(m) != NULL,
		.goal = m->listed ? &m->goal : NULL, .owner = d && d->has_goal ? &d->goal : NULL,
	});
	if (decision == MIGRATION_COMMITTED || decision == MIGRATION_ABORTED)
		decide(s, m, decision == MIGRATION_COMMITTED);
}

static void settle(struct sim *s, struct sim_migration *m)
{
	struct sim_domain *d = domain_of(m);

	m->engine = false;
	if (!m->aborting)
		return;
	m->aborting = false;
	if (d)
		domain_settled(s, d, m->settle_rc, "");
}

static void begin(struct sim *s, struct sim_migration *m)
{
	struct sim_domain *d = domain_of(m);

	if (m->tried || m->decided)
		return;
	if (m->job.committed || m->job.state != GANTRY__JOB_STATE__JOB_STATE_RUNNING) {
		if (m->incoming && d && d->adopted)
			adopted_copy(s, m, d);
	} else if (m->incoming) {
		make_destination(s, m);
	} else {
		start_source(s, m);
	}
}

static void look_for_copy(struct sim *s, struct sim_migration *m)
{
	if (m->incoming && m->engine && !m->decided && migration_rule_copy_is_lost(&m->job, m->stage))
		failed_is(s, m, "the destination was restarted during the migration");
}

void migration_take_goal(struct sim *s, struct sim_agent *a, const Gantry__MigrationGoal *goal)
{
	struct sim_migration *m = migration_by_job(a, goal->job->id);
	struct sim_domain *d;

	if (!m) {
		m = mem_alloc(sizeof(*m));
		m->no = ++s->seq;
		m->agent = a;
		m->incoming = goal->incoming;
		m->peer = sim_host_by_name(s, goal->peer_host);
		snprintf(m->peer_name, sizeof(m->peer_name), "%s", goal->peer_host);
		shape_of(s, goal->spec, &m->shape);
		gantry__migration_goal__init(&m->goal);
		gantry__job__init(&m->job);
		m->goal.job = &m->job;
		m->goal.incoming = goal->incoming;
		m->next = a->migrations;
		a->migrations = m;
	}
	m->listed = true;
	m->goal.source_generation = goal->source_generation;
	m->job.id = goal->job->id;
	m->job.state = goal->job->state;
	m->job.committed = goal->job->committed;
	m->job.stage = goal->job->stage;
	m->job.generation = goal->job->generation;
	d = any_domain(m);
	if (d)
		d->dirty = true;
}

void migrations_update(struct sim *s, struct sim_agent *a)
{
	if (!a->has_goals)
		return;
	for (struct sim_migration **p = &a->migrations; *p;) {
		struct sim_migration *m = *p;
		struct sim_domain *d = any_domain(m);

		if (d)
			d->dirty = true;
		if (m->listed)
			begin(s, m);
		look_for_copy(s, m);
		if (m->reserve_wanted)
			reserve(s, m);
		if (m->hand_over_wanted)
			hand_over(s, m);
		read_decision(s, m);
		if (m->settled)
			settle(s, m);
		if (!m->listed && m->settled && !m->engine) {
			*p = m->next;
			free(m);
			a->report_now = true;
			continue;
		}
		p = &m->next;
	}
}

bool migrations_active(const struct sim_agent *a)
{
	for (const struct sim_migration *m = a->migrations; m; m = m->next)
		if (m->engine)
			return true;
	return false;
}

void migrations_report(const struct sim_agent *a, Gantry__AgentReport *report)
{
	for (const struct sim_migration *m = a->migrations; m; m = m->next) {
		Gantry__MigrationReport *r = PB_NEW(Gantry__MigrationReport, gantry__migration_report__init);

		r->job_id = m->job.id;
		r->incoming = m->incoming;
		r->stage = m->stage;
		r->ready_to_commit = m->ready;
		r->failed = m->failed;
		r->settled = m->said_settled;
		r->running = m->running;
		if (m->reason[0])
			pb_set_string(&r->reason, m->reason);
		PB_APPEND(report, migrations, r);
	}
}

void migrations_free(struct sim_agent *a)
{
	while (a->migrations) {
		struct sim_migration *m = a->migrations;

		a->migrations = m->next;
		free(m);
	}
}

uint64_t migration_in_progress(struct sim *s, struct sim_host **ret_source, struct sim_host **ret_destination)
{
	for (unsigned i = 1; i <= s->o.hosts; i++) {
		struct sim_agent *a = s->host[i].agent;

		for (struct sim_migration *m = a ? a->migrations : NULL; m; m = m->next) {
			if (m->incoming || !m->engine || m->state >= SIDE_FAILED || !m->peer)
				continue;
			*ret_source = a->host;
			*ret_destination = m->peer;
			return m->job.id;
		}
	}
	return 0;
}
