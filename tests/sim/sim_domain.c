/* One domain on one host: its note, its end, its adoption, and the pass that asks agent/core (agent/daemon: domain_note, domain_end,
 * domain_adopt, agent_pass). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_agent_internal.h"

#define LEASE_AGAIN_US (2 * SECOND)
#define DESTROY_QUIT_US (1500 * MS)

/* ---- the list ---- */

struct sim_domain *domain_find(const struct sim_agent *a, const char *uuid, uint64_t key)
{
	for (struct sim_domain *d = a->domains; d; d = d->next)
		if (d->shape.key == key && !strcmp(d->shape.uuid, uuid))
			return d;
	return NULL;
}

struct sim_domain *domain_by_no(const struct sim_agent *a, uint64_t no)
{
	for (struct sim_domain *d = a->domains; d; d = d->next)
		if (d->no == no)
			return d;
	return NULL;
}

struct sim_domain *domain_of_vm(const struct sim_agent *a, uint64_t vm)
{
	for (struct sim_domain *d = a->domains; d; d = d->next)
		if (d->vm == vm)
			return d;
	return NULL;
}

struct sim_domain *domain_get(struct sim *s, struct sim_agent *a, const struct sim_shape *shape)
{
	struct sim_domain *d = domain_find(a, shape->uuid, shape->key);

	if (d)
		return d;
	d = mem_alloc(sizeof(*d));
	d->agent = a;
	d->no = ++s->seq;
	d->shape = *shape;
	d->dirty = true;
	gantry__domain_goal__init(&d->goal);
	*a->domains_end = d;
	a->domains_end = &d->next;
	return d;
}

void domain_free(struct sim_domain *d)
{
	free(d->leases);
	free(d);
}

void domain_changed(struct sim *s, struct sim_domain *d)
{
	d->dirty = true;
	d->agent->report_now = true;
	agent_wake(s, d->agent);
}

static void on_look(struct sim *s, struct sim_host *h, uint64_t arg, void *p)
{
	struct sim_domain *d;

	AGENT_EVENT(on_look);
	d = domain_by_no(h->agent, arg);
	if (!d)
		return;
	d->dirty = true;
	agent_wake(s, h->agent);
}

/* What the daemon sees at one of its ticks: that a time has come. */
void domain_look_in(struct sim *s, struct sim_domain *d, uint64_t us)
{
	agent_after(s, d->agent, us, on_look, d->no, NULL);
}

void domain_set_trouble(struct sim_domain *d, const char *text)
{
	snprintf(d->trouble, sizeof(d->trouble), "%s", text);
}

struct sim_vm *domain_vm(const struct sim_domain *d)
{
	return d->vm_dead ? NULL : vm_find(d->agent->host, d->vm);
}

void domain_ask(struct sim *s, struct sim_domain *d, enum vm_command command)
{
	d->pending_qmp++;
	vm_ask(s, d->agent->host, d->vm, command);
}

void domain_ask_store(struct sim *s, struct sim_domain *d, enum store_what what, store_done done)
{
	d->pending_store++;
	store_ask(s, d, what, NULL, 0, done);
}

/* ---- the note ---- */

static struct sim_note **note_of(struct sim_agent *a, const struct sim_shape *shape)
{
	struct sim_note **p = &a->notes;

	while (*p && ((*p)->shape.key != shape->key || strcmp((*p)->shape.uuid, shape->uuid) != 0))
		p = &(*p)->next;
	return p;
}

void domain_note(struct sim *s, struct sim_domain *d, enum note_stage stage)
{
	struct sim_note **p = note_of(d->agent, &d->shape);

	if (!*p)
		*p = mem_alloc(sizeof(**p));
	(*p)->shape = d->shape;
	(*p)->generation = d->generation;
	(*p)->job_id = d->job_id;
	(*p)->vm = d->vm;
	(*p)->stage = stage;
	(*p)->ha = d->ha;
	(*p)->has_run = d->has_run;
}

static void note_remove(struct sim_domain *d)
{
	struct sim_note **p = note_of(d->agent, &d->shape), *gone = *p;

	if (!gone)
		return;
	*p = gone->next;
	free(gone);
}

/* ---- ends ---- */

static struct sim_ended **ended_of(struct sim_agent *a, const struct sim_shape *shape)
{
	struct sim_ended **p = &a->ended;

	while (*p && ((*p)->shape.key != shape->key || strcmp((*p)->shape.uuid, shape->uuid) != 0))
		p = &(*p)->next;
	return p;
}

void domain_ended_forget(struct sim_domain *d)
{
	struct sim_ended **p = ended_of(d->agent, &d->shape), *gone = *p;

	if (!gone)
		return;
	*p = gone->next;
	free(gone);
}

/* The note comes before the word (agent/daemon/ended_note.h). */
static void end_record(struct sim_domain *d, uint64_t generation, Gantry__DomainState state, const char *reason, bool guest_shutdown)
{
	struct sim_ended **p = ended_of(d->agent, &d->shape);

	if (!*p)
		*p = mem_alloc(sizeof(**p));
	(*p)->shape = d->shape;
	(*p)->generation = d->ended_generation = generation;
	(*p)->state = d->ended_state = state;
	(*p)->guest_shutdown = d->ended_guest_shutdown = guest_shutdown;
	snprintf(d->ended_reason, sizeof(d->ended_reason), "%s", reason);
	snprintf((*p)->reason, sizeof((*p)->reason), "%s", reason);
}

static void end_is(struct sim *s, struct sim_domain *d, enum domain_end end, const char *reason)
{
	d->end = end;
	snprintf(d->end_reason, sizeof(d->end_reason), "%s", reason);
	sim_trace(s, "%s: agent: %s (generation %llu, %s) ends: %s", d->agent->host->name, d->shape.name, (unsigned long long)d->generation,
		  reconcile_state_word(d->actual), reason);
}

void domain_end_begin(struct sim *s, struct sim_domain *d, enum domain_end end, const char *reason)
{
	if (d->actual == ACTUAL_ABSENT)
		return;
	if (d->end == END_NONE)
		end_is(s, d, end, reason);
	if (d->actual == ACTUAL_ENDED)
		return;
	d->actual = ACTUAL_STOPPING;
	if (domain_vm(d))
		vm_kill(s, domain_vm(d));
	domain_changed(s, d);
}

static void end_quit(struct sim *s, struct sim_domain *d, const char *reason)
{
	if (domain_pending(d) > 0 || !domain_vm(d) || !d->qmp_ready) {
		domain_end_begin(s, d, END_STOPPED, reason);
		return;
	}
	end_is(s, d, END_STOPPED, reason);
	vm_ask(s, d->agent->host, d->vm, VM_QUIT);
	d->actual = ACTUAL_STOPPING;
	d->quit_at = s->now_us + DESTROY_QUIT_US;
	domain_look_in(s, d, DESTROY_QUIT_US);
	domain_changed(s, d);
}

void domain_vm_exited(struct sim *s, struct sim_domain *d)
{
	d->vm_dead = true;
	d->pending_qmp = 0; /* their callbacks come with an error: nobody waits for them any more */
	if (d->end == END_NONE) {
		enum domain_end end = domain_fate_of_exit(&(struct domain_exit){
			.actual = d->actual, .copy = d->copy, .activating = d->activating, .has_run = d->has_run,
			.guest_shutdown = d->guest_shutdown, .guest_panicked = d->guest_panicked,
		});
		end_is(s, d, end, end == END_GONE ? "the incoming QEMU ended" : d->guest_panicked ? "the guest panicked" :
		       end == END_STOPPED ? "the guest shut down" : "QEMU ended");
	}
	migration_vm_died(s, d);
	d->actual = ACTUAL_STOPPING;
	domain_changed(s, d);
}

static void reap(struct sim *s, struct sim_domain *d)
{
	if (d->vm_dead) {
		migration_drop_vm(d);
		d->vm = 0;
		d->vm_dead = d->qmp_ready = false;
		d->quit_at = 0;
	}
	if (d->actual != ACTUAL_STOPPING)
		return;
	if (!d->vm && domain_pending(d) == 0) {
		d->actual = ACTUAL_ENDED;
	} else if (d->quit_at && s->now_us >= d->quit_at) {
		d->quit_at = 0;
		if (domain_vm(d))
			vm_kill(s, domain_vm(d));
	}
}

static void end_on_record(struct sim_domain *d)
{
	static const Gantry__DomainState states[] = {[END_STOPPED] = STATE(STOPPED), [END_CRASHED] = STATE(CRASHED), [END_FAILED] = STATE(FAILED)};

	if (d->end == END_STOPPED || d->end == END_CRASHED || d->end == END_FAILED) {
		end_record(d, d->generation, states[d->end], d->end_reason, d->guest_shutdown);
	}
	domain_set_trouble(d, d->end == END_RETRY ? d->end_reason : "");
	if (d->end != END_RETRY)
		d->retry_until = d->tries = 0;
}

static void end_finish(struct sim *s, struct sim_domain *d)
{
	note_remove(d);
	end_on_record(d);
	d->end = END_NONE;
	d->end_reason[0] = '\0';
	d->guest_shutdown = d->guest_panicked = d->stop_asked = false;
	d->adopted = d->cut_short = d->copy = d->activating = d->settling = d->leases_handed = d->has_run = false;
	d->powerdown_at = d->quit_at = d->cont_at = d->lease_retry = d->job_id = 0;
	d->actual = ACTUAL_ABSENT;
	domain_changed(s, d);
}

static void leases_free(struct sim_domain *d)
{
	free(d->leases);
	d->leases = NULL;
}

static void on_released(struct sim *s, struct sim_domain *d, int rc, const char *text)
{
	leases_free(d);
	end_finish(s, d);
}

static void clean(struct sim *s, struct sim_domain *d)
{
	if (domain_pending(d) > 0)
		return;
	/* Not ours any more: the records belong to the next generation's story, not to us. */
	if (d->leases && !d->has_goal && d->agent->has_goals)
		leases_free(d);
	if (!d->leases) {
		end_finish(s, d);
		return;
	}
	d->actual = ACTUAL_STOPPING;
	d->leases->held = false;
	domain_ask_store(s, d, STORE_RELEASE, on_released);
}

/* ---- adoption ---- */

static void adopt(struct sim *s, struct sim_agent *a, const struct sim_note *n)
{
	static const char *const texts[] = {
		[END_GONE] = "the copy ended while the agent was away",
		[END_RETRY] = "the start was cut short by the end of the agent",
		[END_CRASHED] = "QEMU ended while the agent was away",
	};
	struct sim_domain *d = domain_get(s, a, &n->shape);
	enum domain_end end = domain_fate_unseen(n->stage);

	d->generation = n->generation;
	d->job_id = n->job_id;
	d->ha = n->ha;
	d->has_run = n->has_run;
	d->copy = n->stage == NOTE_INCOMING || n->stage == NOTE_COMPLETE;
	d->adopted = true;
	d->cut_short = n->stage == NOTE_STARTING;
	d->actual = domain_fate_adopted(n->stage);
	d->vm = n->vm;
	if (domain_vm(d)) {
		vm_adopt(s, domain_vm(d));
		return;
	}
	d->vm = 0;
	d->actual = ACTUAL_STOPPING;
	domain_end_begin(s, d, end, texts[end]);
}

void domain_adopt_all(struct sim *s, struct sim_agent *a)
{
	for (const struct sim_ended *e = a->ended; e; e = e->next) {
		struct sim_domain *d = domain_get(s, a, &e->shape);

		d->ended_generation = e->generation;
		d->ended_state = e->state;
		d->ended_guest_shutdown = e->guest_shutdown;
		snprintf(d->ended_reason, sizeof(d->ended_reason), "%s", e->reason);
	}
	for (const struct sim_note *n = a->notes; n; n = n->next)
		adopt(s, a, n);
}

/* ---- the pass ---- */

/* Without goals since the start of this agent nothing is known but what runs: it goes on, unless the self-fence ends it. */
static void without_goals(struct sim *s, struct sim_domain *d)
{
	bool process = d->actual != ACTUAL_ABSENT && d->actual != ACTUAL_STOPPING && d->actual != ACTUAL_ENDED;

	if (d->actual == ACTUAL_ENDED)
		clean(s, d);
	else if (d->agent->fenced && d->ha && process)
		domain_end_begin(s, d, END_CRASHED, "self-fence: no quorum since before the agent's restart");
}

static void kill_it(struct sim *s, struct sim_domain *d, const struct reconcile_input *in, const char *reason)
{
	struct domain_kill kill = domain_fate_of_kill(in);

	if (kill.end == END_GONE && domain_vm(d) && (d->actual == ACTUAL_OUTGOING || d->actual == ACTUAL_OUTGOING_HELD))
		check_source_given_up(s, domain_vm(d));
	if (kill.fenced)
		reason = "self-fence: the host had no quorum";
	if (kill.quit)
		end_quit(s, d, reason);
	else
		domain_end_begin(s, d, kill.end, reason);
}

static void carry_out(struct sim *s, struct sim_domain *d, const struct reconcile_input *in)
{
	struct reconcile_decision decision = reconcile_domain(in);

	switch (decision.op) {
	case OP_NONE:
		return;
	case OP_START:
		domain_start(s, d);
		return;
	case OP_PAUSE:
		domain_pause(s, d);
		return;
	case OP_UNPAUSE:
		domain_unpause(s, d);
		return;
	case OP_SHUTDOWN:
		domain_shut_down(s, d);
		return;
	case OP_KILL:
		kill_it(s, d, in, decision.reason);
		return;
	case OP_CLEAN:
		clean(s, d);
		return;
	case OP_ACTIVATE:
		domain_activate(s, d);
		return;
	case OP_SETTLE_ABORT:
		domain_settle_abort(s, d);
		return;
	}
}

static void on_reowned(struct sim *s, struct sim_domain *d, int rc, const char *text)
{
	domain_leases_done(s, d, rc);
	domain_changed(s, d);
	if (rc == 0 || d->actual == ACTUAL_STOPPING)
		return;
	if (rc == -ESTALE) {
		domain_end_begin(s, d, END_CRASHED, text);
		return;
	}
	domain_set_trouble(d, text);
	d->lease_retry = s->now_us + LEASE_AGAIN_US;
	domain_look_in(s, d, LEASE_AGAIN_US);
}

/* An adopted QEMU's leases are taken again. */
static void tend(struct sim *s, struct sim_domain *d)
{
	if ((d->actual == ACTUAL_RUNNING || d->actual == ACTUAL_PAUSED) && d->adopted && !d->leases && !d->leases_asked && d->has_goal &&
	    d->goal.generation == d->generation && s->now_us >= d->lease_retry)
		domain_leases_ask(s, d, on_reowned);
}

void domain_pass(struct sim *s, struct sim_domain *d)
{
	struct sim_agent *a = d->agent;
	const struct sim_migration *m = migration_listed(a, d);
	struct reconcile_input in = {.goal = d->has_goal ? &d->goal : NULL, .migration = m ? &m->goal : NULL};
	bool ended;

	reap(s, d);
	if (!a->has_goals) {
		without_goals(s, d);
		return;
	}
	if (d->has_goal && d->goal.generation == d->generation && d->actual != ACTUAL_ABSENT)
		d->ha = d->goal.ha;
	ended = d->has_goal && d->ended_generation == d->goal.generation;
	in.actual = d->actual;
	in.actual_generation = d->generation;
	in.fenced = a->fenced;
	in.guarded = host_has_watchdog(a->host);
	if (domain_fate_image_lost(&in, ended)) {
		end_record(d, d->goal.generation, STATE(CRASHED), "the guest was lost on its new host after the migration was committed", false);
		a->report_now = true;
		ended = true;
	}
	/* A copy in the making has this migration's part only if it is this job's. */
	if (m && d->copy && d->job_id != m->job.id && d->actual != ACTUAL_ABSENT)
		in.migration = NULL;
	in.failed_this_generation = ended;
	carry_out(s, d, &in);
	tend(s, d);
}
