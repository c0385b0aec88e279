#include "agent/daemon/migration_host.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/migration_rule.h"
#include "agent/daemon/domain_end.h"
#include "agent/daemon/domain_note.h"
#include "agent/daemon/domain_run.h"
#include "agent/daemon/domain_start.h"
#include "lib/buf.h"
#include "lib/log.h"
#include "migrate/engine.h"
#include "proto/pb.h"

struct migration {
	struct migration *next;
	struct agent *agent;
	uint64_t job_id;
	bool incoming;
	Gantry__MigrationGoal *goal; /* the newest seen */
	char *uuid;
	struct engine *engine;		 /* NULL: none (yet, any more) */
	Gantry__MigrationReport *report; /* the engine's last, with what only the agent knows */
	bool tried;			 /* an engine was made or its making failed: never a second one */
	bool reserve_wanted, hand_over_wanted;
	bool decided, settled; /* engine_decide() was called; on_settled came */
	bool aborting;	       /* the domain waits for on_settled */
	int settle_rc;
	struct err settle_err;
};

static struct migration *migration_host__find(const struct agent *a, uint64_t job_id)
{
	for (struct migration *m = a->migrations; m != NULL; m = m->next)
		if (m->job_id == job_id)
			return m;
	return NULL;
}

static struct migration *migration_host__of(const struct domain *d)
{
	for (struct migration *m = d->agent->migrations; m != NULL; m = m->next)
		if (strcmp(m->uuid, d->uuid) == 0 && m->job_id == d->job_id)
			return m;
	return NULL;
}

static struct domain *migration_host__domain(const struct migration *m)
{
	struct domain *d = agent_find_domain(m->agent, m->uuid);

	return d != NULL && d->job_id == m->job_id ? d : NULL;
}

static void migration_host__fail(struct migration *m, const char *reason)
{
	if (!m->report->failed) {
		m->report->failed = true;
		pb_set_string(&m->report->reason, reason);
		log_error("task %" PRIu64 ": %s", m->job_id, reason);
	}
	agent_wake(m->agent);
}

/* ---- callbacks of the engine: written down, acted on in the pass ---- */

static int migration_host__note_complete(struct domain *d, struct err *err)
{
	int rc;

	if (d == NULL || d->actual == ACTUAL_STOPPING || d->actual == ACTUAL_ENDED || d->actual == ACTUAL_ABSENT)
		return err_set(err, ESRCH, "the copy has ended");
	if (d->actual != ACTUAL_INCOMING)
		return 0;
	rc = domain_note_write(d, NOTE_COMPLETE, err);
	if (rc == 0)
		d->actual = ACTUAL_COMPLETE;
	return rc;
}

static void migration_host__on_report(void *data, struct engine *en, const Gantry__MigrationReport *report)
{
	struct migration *m = data;
	struct domain *d = migration_host__domain(m);
	bool running = m->report->running, failed = m->report->failed;
	Gantry__MigrationReport *copy = pb_clone(report);
	struct err err;

	if (failed && !copy->failed) {
		copy->failed = true;
		pb_set_string(&copy->reason, m->report->reason);
	}
	copy->running |= running;
	/* The note comes before the word: after it COMMIT may be applied at any time, also while this agent restarts.
	 */
	if (copy->ready_to_commit && migration_host__note_complete(d, &err) < 0) {
		copy->ready_to_commit = false;
		copy->failed = true;
		pb_set_string(&copy->reason, err.text);
	}
	if (copy->failed && !failed)
		log_error("task %" PRIu64 ": %s", m->job_id, copy->reason);
	gantry__migration_report__free_unpacked(m->report, NULL);
	m->report = copy;
	agent_wake(m->agent);
}

static void migration_host__on_hand_over(void *data, struct engine *en)
{
	struct migration *m = data;

	m->hand_over_wanted = true;
	agent_wake(m->agent);
}

static void migration_host__on_reserve(void *data, struct engine *en)
{
	struct migration *m = data;

	m->reserve_wanted = true;
	agent_wake(m->agent);
}

static void migration_host__on_settled(void *data, struct engine *en, int rc, const struct err *err)
{
	struct migration *m = data;

	m->settled = true;
	m->settle_rc = rc;
	if (rc < 0 && err != NULL)
		m->settle_err = *err;
	agent_wake(m->agent);
}

static const struct engine_callbacks engine_callbacks = {
    .on_report = migration_host__on_report,
    .on_hand_over = migration_host__on_hand_over,
    .on_reserve = migration_host__on_reserve,
    .on_settled = migration_host__on_settled,
};

/* ---- engines ---- */

static struct engine_options migration_host__options(const struct migration *m)
{
	return (struct engine_options){
	    .goal = m->goal,
	    .cluster_uuid = m->agent->goals->cluster_uuid,
	    .host = m->agent->conf.name,
	    .qemu_version_text = m->agent->accel.qemu_version_text,
	    .tls = m->agent->tls,
	};
}

static void migration_host__start_source(struct migration *m)
{
	struct domain *d = agent_find_domain(m->agent, m->uuid);
	struct engine_options options = migration_host__options(m);
	enum actual_state was;
	struct err err;
	int rc;

	if (d == NULL || d->pending > 0 || d->actual == ACTUAL_STARTING)
		return;
	m->tried = true;
	if (d->job_id == m->job_id && (d->actual == ACTUAL_OUTGOING || d->actual == ACTUAL_OUTGOING_HELD)) {
		migration_host__fail(m, "the agent of the source was restarted during the migration");
		return;
	}
	if ((d->actual != ACTUAL_RUNNING && d->actual != ACTUAL_PAUSED) ||
	    d->generation != m->goal->source_generation) {
		migration_host__fail(m, "the domain is not running on the source");
		return;
	}
	was = d->actual;
	d->job_id = m->job_id;
	rc = domain_note_write(d, NOTE_OUTGOING, &err);
	if (rc == 0)
		rc = engine_source_start(m->agent->loop, &options, d->qemu, &engine_callbacks, m, &m->engine, &err);
	if (rc < 0) {
		m->engine = NULL;
		d->job_id = 0;
		domain_note_write(d, NOTE_RUNNING, NULL);
		migration_host__fail(m, err.text);
		return;
	}
	d->actual = was == ACTUAL_PAUSED ? ACTUAL_OUTGOING_HELD : ACTUAL_OUTGOING;
	log_notice("task %" PRIu64 ": domain %s goes to %s", m->job_id, d->name, m->goal->peer_host);
}

/* A copy that this agent found, not made: what it says depends on how far the old agent came. */
static void migration_host__adopted_copy(struct migration *m, const struct domain *d)
{
	/* Found by its note; QMP has not said yet what it does. */
	if (d->actual == ACTUAL_STARTING)
		return;
	m->tried = true;
	if (d->actual == ACTUAL_COMPLETE) {
		m->report->stage = GANTRY__MIGRATION_STAGE__STAGE_COMMITMENT;
		m->report->ready_to_commit = true;
	} else if (d->actual != ACTUAL_RUNNING && d->actual != ACTUAL_PAUSED && !d->activating) {
		migration_host__fail(m, "the agent of the destination was restarted during the migration");
	}
}

static void migration_host__make_destination(struct migration *m)
{
	struct engine_options options = migration_host__options(m);
	struct domain *d = migration_host__domain(m);
	struct err err;

	if (d != NULL && d->adopted && d->actual != ACTUAL_ABSENT) {
		migration_host__adopted_copy(m, d);
		return;
	}
	m->tried = true;
	if (engine_destination_new(m->agent->loop, &options, &engine_callbacks, m, &m->engine, &err) < 0) {
		m->engine = NULL;
		migration_host__fail(m, err.text);
	}
}

static void migration_host__reserve(struct migration *m)
{
	struct domain *d;
	struct err err;
	int rc = agent_get_domain(m->agent, m->uuid, m->goal->spec->name, &d, &err);

	m->reserve_wanted = false;
	if (m->engine == NULL || m->decided)
		return;
	if (rc == 0)
		rc = domain_start_copy(d, m->goal, &err);
	if (rc < 0)
		engine_reserved(m->engine, rc, NULL, &err);
}

void migration_host_reserved(struct domain *d, int rc, const struct err *err)
{
	struct migration *m = migration_host__of(d);

	if (m == NULL || m->engine == NULL || m->decided)
		return;
	engine_reserved(m->engine, rc, rc == 0 ? d->qemu : NULL, err);
}

static void migration_host__handed(void *data, int rc, const struct err *err)
{
	struct domain *d = data;
	struct migration *m = migration_host__of(d);

	d->pending--;
	agent_wake(d->agent);
	if (m != NULL && m->engine != NULL && !m->decided)
		engine_leases_handed(m->engine, rc, err);
}

static void migration_host__hand_over(struct migration *m)
{
	struct domain *d = migration_host__domain(m);
	struct err err;
	int rc;

	m->hand_over_wanted = false;
	if (m->engine == NULL || m->decided || d == NULL)
		return;
	domain_run_held(d);
	if (d->leases == NULL) {
		rc = err_set(&err, ENOLCK, "domain '%s': this agent does not hold its leases", d->name);
	} else {
		/* From the attempt on: a record that was perhaps written must be taken back. */
		d->leases_handed = true;
		d->pending++;
		rc = storage_leases_hand_over(d->leases, m->goal->peer_host, m->goal->job->generation,
					      migration_host__handed, d);
		if (rc == 0)
			return;
		d->pending--;
		err_set(&err, -rc, "domain '%s': its leases cannot be handed over: %s", d->name, strerror(-rc));
	}
	engine_leases_handed(m->engine, rc, &err);
}

/* ---- decisions ---- */

static void migration_host__decide(struct migration *m, bool commit)
{
	if (m->decided)
		return;
	m->decided = true;
	log_notice("task %" PRIu64 ": %s", m->job_id, commit ? "committed" : "aborted");
	if (m->engine != NULL)
		engine_decide(m->engine, commit);
	else
		m->settled = true;
}

void migration_host_activated(struct domain *d)
{
	struct migration *m = migration_host__of(d);

	if (m == NULL)
		return;
	m->report->running = true;
	m->report->stage = GANTRY__MIGRATION_STAGE__STAGE_ACTIVATION;
	migration_host__decide(m, true);
	agent_wake(d->agent);
}

static void migration_host__rescued(void *data, int rc, const struct err *err)
{
	struct domain *d = data;

	d->pending--;
	domain_run_settled(d, rc, err);
}

int migration_host_abort_source(struct domain *d, struct err *err)
{
	struct migration *m = migration_host__of(d);
	int rc;

	if (m != NULL && m->engine != NULL) {
		m->aborting = true;
		migration_host__decide(m, false);
		return 0;
	}
	d->pending++;
	rc = engine_rescue_source(d->agent->loop, d->qemu, migration_host__rescued, d, err);
	if (rc < 0)
		d->pending--;
	return rc;
}

/* COMMIT is told to the destination's engine once the guest runs (migration_host_activated): nothing may delay that. ABORT to
 * the source's once its leases are back (OP_SETTLE_ABORT). */
static void migration_host__read_decision(struct migration *m)
{
	enum migration_decision decision;

	if (m->decided)
		return;
	decision = migration_rule_decision(&(struct migration_facts){
	    .job_id = m->job_id,
	    .incoming = m->incoming,
	    .source_generation = m->goal->source_generation,
	    .domain_here = migration_host__domain(m) != NULL,
	    .goal = agent_migration_goal(m->agent, m->uuid),
	    .owner = agent_goal(m->agent, m->uuid),
	});
	if (decision == MIGRATION_COMMITTED || decision == MIGRATION_ABORTED)
		migration_host__decide(m, decision == MIGRATION_COMMITTED);
}

static void migration_host__settle(struct migration *m)
{
	struct domain *d = migration_host__domain(m);

	if (m->engine != NULL) {
		engine_free(m->engine);
		m->engine = NULL;
		m->report->settled = true;
	}
	if (m->aborting) {
		m->aborting = false;
		if (d != NULL)
			domain_run_settled(d, m->settle_rc, &m->settle_err);
	} else if (m->settle_rc < 0) {
		log_warning("task %" PRIu64 ": %s", m->job_id, m->settle_err.text);
	}
}

/* ---- the pass ---- */

static void migration_host__take_goal(struct agent *a, const Gantry__MigrationGoal *goal)
{
	struct migration *m = migration_host__find(a, goal->job->id);

	if (m == NULL) {
		m = mem_alloc(sizeof(*m));
		m->agent = a;
		m->job_id = goal->job->id;
		m->incoming = goal->incoming;
		m->uuid = str_dup(goal->job->domain_uuid);
		m->report = PB_NEW(Gantry__MigrationReport, gantry__migration_report__init);
		m->report->job_id = m->job_id;
		m->report->incoming = m->incoming;
		m->next = a->migrations;
		a->migrations = m;
	} else {
		gantry__migration_goal__free_unpacked(m->goal, NULL);
	}
	m->goal = pb_clone(goal);
}

static void migration_host__begin(struct migration *m)
{
	if (m->tried || m->decided || m->agent->tls == NULL || !m->agent->accel_known)
		return;
	if (m->goal->job->committed || m->goal->job->state != GANTRY__JOB_STATE__JOB_STATE_RUNNING) {
		struct domain *d = migration_host__domain(m);
		if (m->incoming && d != NULL && d->adopted)
			migration_host__adopted_copy(m, d);
		return;
	}
	if (m->incoming)
		migration_host__make_destination(m);
	else
		migration_host__start_source(m);
}

static void migration_host__look_for_copy(struct migration *m)
{
	if (m->incoming && m->engine != NULL && !m->decided && !m->report->failed &&
	    migration_rule_copy_is_lost(m->goal->job, m->report->stage))
		migration_host__fail(m, "the destination was restarted during the migration");
}

static void migration_host__free(struct migration *m)
{
	if (m->engine != NULL)
		engine_free(m->engine);
	gantry__migration_goal__free_unpacked(m->goal, NULL);
	gantry__migration_report__free_unpacked(m->report, NULL);
	free(m->uuid);
	free(m);
}

void migration_host_update(struct agent *a)
{
	if (a->goals == NULL)
		return;
	for (size_t i = 0; i < a->goals->n_migrations; i++)
		migration_host__take_goal(a, a->goals->migrations[i]);
	for (struct migration **p = &a->migrations; *p != NULL;) {
		struct migration *m = *p;
		const Gantry__MigrationGoal *goal = agent_migration_goal(a, m->uuid);
		bool listed = goal != NULL && goal->job->id == m->job_id;
		if (listed)
			migration_host__begin(m);
		migration_host__look_for_copy(m);
		if (m->reserve_wanted)
			migration_host__reserve(m);
		if (m->hand_over_wanted)
			migration_host__hand_over(m);
		migration_host__read_decision(m);
		if (m->settled)
			migration_host__settle(m);
		if (!listed && m->settled && m->engine == NULL) {
			*p = m->next;
			migration_host__free(m);
			continue;
		}
		p = &m->next;
	}
}

bool migration_host_active(const struct agent *a)
{
	for (struct migration *m = a->migrations; m != NULL; m = m->next)
		if (m->engine != NULL)
			return true;
	return false;
}

void migration_host_report(const struct agent *a, Gantry__AgentReport *report)
{
	for (struct migration *m = a->migrations; m != NULL; m = m->next)
		PB_APPEND(report, migrations, pb_clone(m->report));
}

int migration_host_accept(struct agent *a, struct rpc_conn *conn, const Gantry__MigrationHello *hello, struct err *err)
{
	struct migration *m = migration_host__find(a, hello->job_id);

	if (m == NULL || (!m->tried && m->incoming))
		return 1;
	if (m->engine == NULL || !m->incoming || m->decided)
		return err_set(err, ENOENT, "task %" PRIu64 " is not to be received by host '%s' (any more)",
			       hello->job_id, a->conf.name);
	return engine_destination_accept(m->engine, conn, hello, err);
}

void migration_host_qemu_event(struct domain *d, const char *event, json_t *event_data)
{
	struct migration *m = migration_host__of(d);

	if (m != NULL && m->engine != NULL)
		engine_qemu_event(m->engine, event, event_data);
}

void migration_host_qemu_died(struct domain *d, const char *why)
{
	struct migration *m = migration_host__of(d);

	if (m != NULL && m->engine != NULL)
		engine_qemu_died(m->engine, why);
}

/* The engine was told that its QEMU died and must not touch it again; an abort of a dead source is over. */
void migration_host_drop_qemu(struct domain *d)
{
	struct migration *m = migration_host__of(d);

	if (m != NULL && m->engine != NULL && m->decided && !m->settled && m->aborting)
		m->aborting = false;
}
