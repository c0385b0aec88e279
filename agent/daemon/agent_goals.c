#include "agent/daemon/agent_goals.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "agent/core/goals_order.h"
#include "agent/daemon/domain_note.h"
#include "agent/daemon/goals_note.h"
#include "lib/buf.h"
#include "lib/limits.h"
#include "lib/log.h"

/* Names become parts of file names, uuids names of folders. */
static int agent_goals__check_spec(const Gantry__DomainSpec *spec, struct err *err)
{
	if (spec == NULL || !domain_note_uuid_valid(spec->uuid))
		return err_set_status(err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA, "a goal has no valid uuid");
	if (spec->name[0] == '\0' || spec->name[0] == '.' || strchr(spec->name, '/') != NULL ||
	    strlen(spec->name) > LIMIT_NAME_CHARS)
		return err_set_status(err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA,
				      "domain %s: '%s' is no name for a domain", spec->uuid, spec->name);
	return 0;
}

static int agent_goals__check_domain(const Gantry__DomainGoal *goal, struct err *err)
{
	int rc = agent_goals__check_spec(goal->spec, err);

	if (rc == 0 && goal->generation == 0)
		rc = err_set_status(err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA,
				    "domain '%s': its goal has no generation", goal->spec->name);
	return rc;
}

static int agent_goals__check_migration(const Gantry__MigrationGoal *goal, struct err *err)
{
	int rc = agent_goals__check_spec(goal->spec, err);

	if (rc == 0 &&
	    (goal->job == NULL || goal->job->id == 0 || strcmp(goal->job->domain_uuid, goal->spec->uuid) != 0))
		rc = err_set_status(err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA,
				    "domain '%s': its migration has no task", goal->spec->name);
	return rc;
}

static int agent_goals__check(const struct agent *a, const Gantry__AgentGoals *goals, struct err *err)
{
	int rc = 0;

	if (strcmp(goals->host, a->conf.name) != 0)
		return err_set_status(err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA,
				      "goals for host '%s' came to host '%s'", goals->host, a->conf.name);
	if (goals->cluster_uuid[0] == '\0')
		return err_set_status(err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA, "goals of no cluster");
	for (size_t i = 0; rc == 0 && i < goals->n_domains; i++)
		rc = agent_goals__check_domain(goals->domains[i], err);
	for (size_t i = 0; rc == 0 && i < goals->n_migrations; i++)
		rc = agent_goals__check_migration(goals->migrations[i], err);
	for (size_t i = 0; rc == 0 && i < goals->n_volumes; i++)
		if (goals->volumes[i]->volume == NULL)
			rc = err_set_status(err, EINVAL, GANTRY__STATUS__STATUS_BAD_DATA,
					    "a goal for a volume names none");
	return rc;
}

int agent_goals_take(struct agent *a, Gantry__AgentMessage *message, struct err *err)
{
	Gantry__AgentGoals *goals = message->goals;
	int rc = agent_goals__check(a, goals, err);

	if (rc == 0)
		rc = goals_note_check(a, goals, err);
	if (rc < 0) {
		log_error("goals were refused: %s", err->text);
		return rc;
	}
	log_debug("goals of epoch %" PRIu64 " index %" PRIu64 ": %zu domains, %zu migrations, %zu volumes",
		  goals->epoch, goals->index, goals->n_domains, goals->n_migrations, goals->n_volumes);
	if (a->goals != NULL)
		gantry__agent_goals__free_unpacked(a->goals, NULL);
	a->goals = goals;
	message->goals = NULL;
	message->body_case = GANTRY__AGENT_MESSAGE__BODY__NOT_SET;
	goals_note_seen(a, goals);
	storage_set_pools(a->storage, goals->pools, goals->n_pools);
	agent_wake(a);
	return 0;
}

void agent_goals_heartbeat(struct agent *a, const Gantry__AgentQuorum *quorum)
{
	struct goals_order known = {a->known_cluster, a->known_epoch, a->known_index};
	uint64_t now = goals_note_boot_ms();

	if (!goals_order_quorum_counts(&known, a->goals != NULL, quorum))
		return;
	selffence_heartbeat(&a->selffence, quorum->quorate, now);
	if (!quorum->quorate)
		return;
	goals_note_quorum_store(now);
	if (a->fenced) {
		log_notice("quorum is back");
		agent_wake(a);
	}
}
