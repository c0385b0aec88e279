#include "agent/daemon/agent_pass.h"

#include <inttypes.h>
#include <string.h>

#include "agent/daemon/agent_clients.h"
#include "agent/daemon/domain_end.h"
#include "agent/daemon/domain_run.h"
#include "agent/daemon/domain_start.h"
#include "agent/daemon/goals_note.h"
#include "agent/daemon/host_info.h"
#include "agent/daemon/host_watchdog.h"
#include "agent/daemon/migration_host.h"
#include "agent/daemon/reporter.h"
#include "agent/daemon/volume_task.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/log.h"

static void agent_pass__kill(struct domain *d, const struct reconcile_input *in, const char *reason)
{
	struct domain_kill kill = domain_fate_of_kill(in);
	_cleanup_free_ char *text = NULL;

	if (kill.fenced) {
		text = str_printf("self-fence: host '%s' had no quorum for %d s", d->agent->conf.name,
				  SELFFENCE_KILL_MS / 1000);
		reason = text;
	}
	if (kill.quit)
		domain_end_quit(d, reason);
	else
		domain_end_begin(d, kill.end, reason);
}

static void agent_pass__do(struct domain *d, const struct reconcile_input *in)
{
	struct reconcile_decision decision = reconcile_domain(in);

	if (decision.op != OP_NONE)
		log_debug("domain %s (%s): %s: %s", d->name, reconcile_state_word(in->actual),
			  reconcile_op_word(decision.op), decision.reason);
	switch (decision.op) {
	case OP_NONE:
		return;
	case OP_START:
		domain_start(d, in->goal);
		return;
	case OP_PAUSE:
		domain_run_pause(d);
		return;
	case OP_UNPAUSE:
		domain_run_unpause(d);
		return;
	case OP_SHUTDOWN:
		domain_run_shutdown(d);
		return;
	case OP_KILL:
		agent_pass__kill(d, in, decision.reason);
		return;
	case OP_CLEAN:
		domain_end_clean(d);
		return;
	case OP_ACTIVATE:
		domain_run_activate(d);
		return;
	case OP_SETTLE_ABORT:
		domain_run_settle_abort(d);
		return;
	}
}

/* Without goals since the start of this agent nothing is known but what runs: it goes on, unless the self-fence ends
 * it. */
static void agent_pass__without_goals(struct domain *d)
{
	bool process = d->actual != ACTUAL_ABSENT && d->actual != ACTUAL_STOPPING && d->actual != ACTUAL_ENDED;

	if (d->actual == ACTUAL_ENDED)
		domain_end_clean(d);
	else if (d->agent->fenced && d->ha && (!d->left || d->agent->selffence.strict) && process)
		domain_end_begin(d, END_CRASHED, "self-fence: no quorum since before the agent's restart");
}

static void agent_pass__domain(struct domain *d)
{
	struct agent *a = d->agent;
	const Gantry__DomainGoal *goal = agent_goal(a, d->uuid);
	const Gantry__MigrationGoal *migration = agent_migration_goal(a, d->uuid);

	domain_end_reap(d);
	if (a->goals == NULL) {
		agent_pass__without_goals(d);
		return;
	}
	if (goal != NULL && goal->generation == d->generation && d->actual != ACTUAL_ABSENT)
		domain_run_take_policy(d, goal);
	struct reconcile_input in = {
	    .goal = goal,
	    .migration = migration,
	    .actual = d->actual,
	    .actual_generation = d->generation,
	    .fenced = a->fenced,
	    .guarded = a->selffence.strict,
	};
	if (domain_fate_image_lost(&in, goal != NULL && d->ended_generation == goal->generation))
		domain_end_record(d, goal->generation, GANTRY__DOMAIN_STATE__DOMAIN_STATE_CRASHED,
				  "the guest was lost on its new host after the migration was committed");
	/* A copy in the making has this migration's part only if it is this job's. */
	if (migration != NULL && d->copy && d->job_id != migration->job->id && d->actual != ACTUAL_ABSENT)
		in.migration = NULL;
	in.failed_this_generation = goal != NULL && d->ended_generation == goal->generation;
	agent_pass__do(d, &in);
	domain_run_tend(d);
}

static void agent_pass__goals_known(struct agent *a)
{
	struct domain *d;
	struct err err;

	for (size_t i = 0; a->goals != NULL && i < a->goals->n_domains; i++) {
		const Gantry__DomainSpec *spec = a->goals->domains[i]->spec;
		if (agent_get_domain(a, spec->uuid, spec->name, &d, &err) < 0)
			log_error("%s", err.text);
	}
}

/* Taps of domains that are not here any more: an agent that was killed between a tap and its note leaves some. */
static void agent_pass__sweep_taps(struct agent *a)
{
	struct err err;
	char **names;
	size_t n;

	if (a->taps_swept || a->goals == NULL)
		return;
	a->taps_swept = true;
	if (tap_list("vif", &names, &n, &err) < 0) {
		log_warning("taps left behind cannot be looked for: %s", err.text);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		bool used = false;
		for (struct domain *d = a->domains; d != NULL; d = d->next)
			for (char **t = d->taps; t != NULL && *t != NULL; t++)
				used |= strcmp(*t, names[i]) == 0;
		if (!used && tap_delete(names[i], &err) < 0)
			log_warning("%s", err.text);
		free(names[i]);
	}
	free(names);
}

static void agent_pass__fence(struct agent *a)
{
	bool fenced = selffence_tick(&a->selffence, goals_note_boot_ms());

	if (fenced && !a->fenced)
		log_error("no quorum for %d s: the HA domains of this host are ended now", SELFFENCE_KILL_MS / 1000);
	a->fenced = fenced;
}

void agent_pass(struct agent *a)
{
	agent_pass__fence(a);
	host_watchdog_update(a);
	host_info_probe(a);
	agent_clients_listen_remote(a);
	agent_pass__goals_known(a);
	agent_pass__sweep_taps(a);
	migration_host_update(a);
	agent_clients_retry_channels(a);
	for (struct domain *d = a->domains; d != NULL; d = d->next)
		agent_pass__domain(d);
	volume_task_update(a);
	reporter_update(a->reporter);
	agent_forget_domains(a);
}
