/* How a domain starts and runs, and what it does after a COMMIT or an ABORT (agent/daemon: domain_start, domain_run). */
#include <errno.h>
#include <stdio.h>

#include "tests/sim/sim_agent_internal.h"

/* As the daemon has them. */
#define POWERDOWN_EVERY_US (10 * SECOND)
#define CONT_EVERY_US SECOND
#define ACTIVATE_AGAIN_US (200 * MS)
#define ACTIVATE_RETRY_US (30 * SECOND)
#define SETTLE_AGAIN_US (500 * MS)
#define START_RETRY_US (30 * SECOND)
#define START_PAUSE_US (500 * MS)
#define START_PAUSE_MAX_US (5 * SECOND)

static bool may_pass(int rc)
{
	return rc == -EAGAIN || rc == -EBUSY || rc == -EIO || rc == -ETIMEDOUT || rc == -ENOTCONN;
}

/* ---- starts ---- */

static void start_failed(struct sim *s, struct sim_domain *d, int rc, const char *text)
{
	uint64_t pause = START_PAUSE_US << (d->tries < 4 ? d->tries : 4);

	if (d->actual == ACTUAL_STOPPING)
		return;
	if (d->copy) {
		migration_reserved(s, d, rc, text);
		domain_end_begin(s, d, END_GONE, text);
		return;
	}
	if (!may_pass(rc) || s->now_us >= d->retry_until) {
		domain_end_begin(s, d, END_FAILED, text);
		return;
	}
	d->tries++;
	pause = pause < START_PAUSE_MAX_US ? pause : START_PAUSE_MAX_US;
	d->not_before = s->now_us + pause;
	domain_look_in(s, d, pause);
	domain_end_begin(s, d, END_RETRY, text);
}

static void launch(struct sim *s, struct sim_domain *d)
{
	d->vm = vm_start(s, d->agent->host, &d->shape, d->generation, d->copy, d->job_id);
	domain_note(s, d, d->copy ? NOTE_INCOMING : NOTE_STARTING);
}

void domain_leases_ask(struct sim *s, struct sim_domain *d, store_done done)
{
	d->leases_asked = true;
	domain_ask_store(s, d, STORE_ACQUIRE, done);
}

void domain_leases_done(struct sim *s, struct sim_domain *d, int rc)
{
	d->leases_asked = false;
	if (rc < 0)
		return;
	d->leases_handed = false;
	store_renewal_begin(s, d);
}

void store_lease_lost(struct sim *s, struct sim_domain *d, const char *text)
{
	/* Paused, and given to the destination: what happens next is the log's decision. */
	if (!d->leases_handed)
		domain_end_begin(s, d, END_CRASHED, text);
}

static void on_leased(struct sim *s, struct sim_domain *d, int rc, const char *text)
{
	domain_leases_done(s, d, rc);
	if (d->actual == ACTUAL_STOPPING)
		domain_changed(s, d);
	else if (rc == 0)
		launch(s, d);
	else
		start_failed(s, d, rc, text);
}

static void on_checked(struct sim *s, struct sim_domain *d, int rc, const char *text)
{
	if (d->actual == ACTUAL_STOPPING)
		domain_changed(s, d);
	else if (rc < 0)
		start_failed(s, d, rc, text);
	else if (d->copy)
		launch(s, d);
	else
		domain_leases_ask(s, d, on_leased);
}

static void start_begin(struct sim *s, struct sim_domain *d, uint64_t generation, bool copy)
{
	d->generation = generation;
	d->copy = copy;
	d->has_run = false;
	d->actual = ACTUAL_STARTING;
	domain_ask_store(s, d, STORE_CHECK, on_checked);
	domain_changed(s, d);
}

void domain_start(struct sim *s, struct sim_domain *d)
{
	if (domain_pending(d) > 0 || d->not_before > s->now_us)
		return;
	if (!d->retry_until || d->generation != d->goal.generation) {
		d->retry_until = s->now_us + START_RETRY_US;
		d->tries = 0;
	}
	d->ha = d->goal.ha;
	d->job_id = 0;
	start_begin(s, d, d->goal.generation, false);
}

int domain_start_copy(struct sim *s, struct sim_domain *d, const struct sim_migration *m, const char **ret_reason)
{
	uint64_t used = 0, total = d->agent->host->memory_bytes;

	for (const struct sim_domain *other = d->agent->domains; other; other = other->next)
		used += other->actual != ACTUAL_ABSENT ? other->shape.memory_bytes : 0;
	if (d->actual != ACTUAL_ABSENT || domain_pending(d) > 0) {
		*ret_reason = "an older QEMU of it is still on the destination";
		return -EBUSY;
	}
	if (d->shape.memory_bytes > (total > used ? total - used : 0)) {
		*ret_reason = "the destination has not so much memory free";
		return -ENOMEM;
	}
	d->job_id = m->job.id;
	start_begin(s, d, m->job.generation, true);
	return 0;
}

/* ---- run and pause ---- */

static bool goal_paused(const struct sim_domain *d)
{
	return d->has_goal && d->goal.goal == GOAL(PAUSED);
}

/* A guest that moved here was ready before. */
static void is_running(struct sim_domain *d)
{
	if (!d->activating && d->policy.ready_by == GANTRY__READY_BY__READY_BY_TIME)
		d->ready_at = d->agent->host->sim->now_us + d->policy.ready_s * SECOND;

	d->actual = ACTUAL_RUNNING;
	d->activating = false;
	domain_set_trouble(d, "");
	d->has_run = true;
	d->retry_until = d->tries = d->not_before = 0;
}

static void adopt_ready(struct sim *s, struct sim_domain *d)
{
	if (d->actual != ACTUAL_STOPPING && d->actual != ACTUAL_INCOMING && d->actual != ACTUAL_COMPLETE)
		domain_ask(s, d, VM_ADOPT_STATUS);
}

void domain_vm_ready(struct sim *s, struct sim_domain *d)
{
	domain_changed(s, d);
	if (d->adopted) {
		adopt_ready(s, d);
		return;
	}
	if (d->actual != ACTUAL_STARTING)
		return;
	if (d->copy) {
		d->actual = ACTUAL_INCOMING;
		migration_reserved(s, d, 0, "");
	} else if (goal_paused(d)) {
		is_running(d);
		d->actual = ACTUAL_PAUSED;
		domain_note(s, d, NOTE_RUNNING);
	} else {
		domain_ask(s, d, VM_FIRST_CONT);
	}
}

void domain_pause(struct sim *s, struct sim_domain *d)
{
	if (d->not_before > s->now_us || !d->qmp_ready)
		return;
	domain_ask(s, d, VM_STOP);
	d->actual = ACTUAL_STARTING;
}

void domain_unpause(struct sim *s, struct sim_domain *d)
{
	if (d->guest_shutdown || d->guest_panicked || !d->qmp_ready)
		return;
	if (d->cont_at && s->now_us - d->cont_at < CONT_EVERY_US) {
		domain_look_in(s, d, d->cont_at + CONT_EVERY_US - s->now_us);
		return;
	}
	d->cont_at = s->now_us;
	domain_ask(s, d, VM_CONT);
	d->actual = ACTUAL_STARTING;
}

void domain_shut_down(struct sim *s, struct sim_domain *d)
{
	d->stop_asked = true;
	if (d->powerdown_at && s->now_us - d->powerdown_at < POWERDOWN_EVERY_US)
		return;
	d->powerdown_at = s->now_us;
	domain_look_in(s, d, POWERDOWN_EVERY_US);
	if (d->qmp_ready)
		domain_ask(s, d, VM_POWERDOWN);
}

/* ---- the destination after COMMIT ---- */

static void activation_failed(struct sim *s, struct sim_domain *d, int rc, const char *text)
{
	if (d->actual == ACTUAL_STOPPING)
		return;
	if (!may_pass(rc) || s->now_us >= d->retry_until) {
		domain_end_begin(s, d, END_CRASHED, text);
		return;
	}
	domain_set_trouble(d, text);
	d->not_before = s->now_us + ACTIVATE_AGAIN_US;
	domain_look_in(s, d, ACTIVATE_AGAIN_US);
	d->actual = ACTUAL_COMPLETE;
	domain_changed(s, d);
}

static void on_activate_leased(struct sim *s, struct sim_domain *d, int rc, const char *text)
{
	domain_leases_done(s, d, rc);
	domain_changed(s, d);
	if (d->actual == ACTUAL_STOPPING)
		return;
	if (rc < 0) {
		activation_failed(s, d, rc, text);
	} else if (goal_paused(d)) {
		is_running(d);
		d->actual = ACTUAL_PAUSED;
		if (domain_vm(d))
			vm_is_activated(s, domain_vm(d));
		domain_note(s, d, NOTE_RUNNING);
		migration_activated(s, d);
	} else {
		domain_ask(s, d, VM_ACTIVATE_CONT);
	}
}

void domain_activate(struct sim *s, struct sim_domain *d)
{
	if (d->not_before > s->now_us)
		return;
	if (!d->activating)
		d->retry_until = s->now_us + ACTIVATE_RETRY_US;
	d->activating = true;
	d->ha = d->goal.ha;
	d->actual = ACTUAL_STARTING;
	if (d->qmp_ready)
		domain_leases_ask(s, d, on_activate_leased);
	else
		activation_failed(s, d, -EAGAIN, "QEMU does not answer yet");
}

static void activated(struct sim *s, struct sim_domain *d, int rc)
{
	if (rc < 0) {
		domain_end_begin(s, d, END_CRASHED, "QEMU cannot be told to go on after the commit");
		return;
	}
	is_running(d);
	if (domain_vm(d))
		vm_is_activated(s, domain_vm(d));
	migration_activated(s, d);
	domain_note(s, d, NOTE_RUNNING);
}

/* ---- the source after ABORT ---- */

static void on_leases_back(struct sim *s, struct sim_domain *d, int rc, const char *text)
{
	if (d->leases_asked)
		domain_leases_done(s, d, rc);
	else if (rc == 0)
		store_renewal_begin(s, d);
	domain_changed(s, d);
	if (d->actual == ACTUAL_STOPPING)
		return;
	if (rc == 0) {
		d->leases_handed = false;
		d->settling = true;
		migration_abort_source(s, d);
	} else if (may_pass(rc)) {
		domain_set_trouble(d, text);
		d->not_before = s->now_us + SETTLE_AGAIN_US;
		domain_look_in(s, d, SETTLE_AGAIN_US);
		d->actual = ACTUAL_OUTGOING_HELD;
	} else {
		domain_end_begin(s, d, END_CRASHED, text);
	}
}

void domain_settle_abort(struct sim *s, struct sim_domain *d)
{
	if (d->not_before > s->now_us || domain_pending(d) > 0)
		return;
	d->actual = ACTUAL_STARTING;
	if (d->leases && !d->leases_handed) {
		d->settling = true;
		migration_abort_source(s, d);
	} else if (!d->leases) {
		domain_leases_ask(s, d, on_leases_back);
	} else {
		domain_ask_store(s, d, STORE_TAKE_BACK, on_leases_back);
	}
}

void domain_settled(struct sim *s, struct sim_domain *d, int rc, const char *reason)
{
	d->settling = false;
	domain_changed(s, d);
	if (d->actual == ACTUAL_STOPPING || !d->vm)
		return;
	if (rc < 0) {
		domain_end_begin(s, d, END_CRASHED, "the aborted migration could not be undone");
		return;
	}
	d->job_id = 0;
	domain_set_trouble(d, "");
	domain_note(s, d, NOTE_RUNNING);
	d->actual = ACTUAL_PAUSED;
	domain_ask(s, d, VM_STATUS);
	sim_trace(s, "%s: agent: the migration of %s was aborted, it stays here", d->agent->host->name, d->shape.name);
}

void domain_held(struct sim *s, struct sim_domain *d)
{
	if (d->actual == ACTUAL_OUTGOING)
		d->actual = ACTUAL_OUTGOING_HELD;
}

/* ---- what QEMU says ---- */

static void adopt_status_is(struct sim *s, struct sim_domain *d, bool running)
{
	if (d->actual == ACTUAL_OUTGOING_HELD)
		d->actual = running ? ACTUAL_OUTGOING : ACTUAL_OUTGOING_HELD;
	else if (running)
		d->actual = ACTUAL_RUNNING;
	else if (d->cut_short)
		domain_end_begin(s, d, END_RETRY, "the start was cut short by the end of the agent");
	else
		d->actual = ACTUAL_PAUSED;
}

void domain_answered(struct sim *s, struct sim_domain *d, enum vm_command command, int rc, bool running)
{
	if (command == VM_QUIT)
		return;
	if (command >= VM_MIGRATE) {
		migration_vm_answered(s, d, command, rc);
		return;
	}
	if (d->pending_qmp > 0)
		d->pending_qmp--;
	domain_changed(s, d);
	if (d->actual == ACTUAL_STOPPING || !d->vm)
		return;
	switch (command) {
	case VM_FIRST_CONT:
		if (rc < 0) {
			domain_end_begin(s, d, END_FAILED, "QEMU cannot be told to run");
			return;
		}
		is_running(d);
		domain_note(s, d, NOTE_RUNNING);
		return;
	case VM_STOP:
		d->actual = rc == 0 ? ACTUAL_PAUSED : ACTUAL_RUNNING;
		return;
	case VM_CONT:
		if (rc == 0)
			is_running(d);
		else
			d->actual = ACTUAL_PAUSED;
		return;
	case VM_ACTIVATE_CONT:
		activated(s, d, rc);
		return;
	case VM_STATUS:
		if (d->actual == ACTUAL_RUNNING || d->actual == ACTUAL_PAUSED)
			d->actual = running ? ACTUAL_RUNNING : ACTUAL_PAUSED;
		return;
	case VM_ADOPT_STATUS:
		adopt_status_is(s, d, running);
		return;
	default:
		return;
	}
}

static void on_resume(struct sim *s, struct sim_domain *d)
{
	switch (migration_rule_resume(&(struct resume_facts){d->actual, d->settling, d->leases_handed, d->adopted})) {
	case RESUME_IGNORED:
		return;
	case RESUME_RUNS:
		d->actual = ACTUAL_RUNNING;
		return;
	case RESUME_OUTGOING:
		d->actual = ACTUAL_OUTGOING;
		return;
	case RESUME_STOP:
		sim_trace(s, "%s: agent: QEMU resumed an undecided source, %s: stopped again", d->agent->host->name, d->shape.name);
		domain_ask(s, d, VM_RESTOP);
		return;
	}
}

void domain_vm_event(struct sim *s, struct sim_domain *d, enum vm_event event)
{
	switch (event) {
	case EVENT_SHUTDOWN:
		d->guest_shutdown = true;
		break;
	case EVENT_PANIC:
		d->guest_panicked = true;
		break;
	case EVENT_STOP:
		if (d->actual == ACTUAL_RUNNING)
			d->actual = ACTUAL_PAUSED;
		else
			domain_held(s, d);
		break;
	case EVENT_RESUME:
		on_resume(s, d);
		break;
	default:
		break;
	}
	migration_vm_event(s, d, event);
	domain_changed(s, d);
}
