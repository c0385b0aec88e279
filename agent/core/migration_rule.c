#include "agent/core/migration_rule.h"

#include <stddef.h>

enum migration_decision migration_rule_decision(const struct migration_facts *f)
{
	bool listed = f->goal != NULL && f->goal->job->id == f->job_id;
	bool committed = listed && f->goal->job->committed;

	if (listed && !committed && f->goal->job->state == GANTRY__JOB_STATE__JOB_STATE_RUNNING)
		return MIGRATION_UNDECIDED;
	if (f->incoming)
		return committed ? MIGRATION_WAITS_FOR_DOMAIN : MIGRATION_ABORTED;
	if (committed || f->owner == NULL || f->owner->generation > f->source_generation)
		return MIGRATION_COMMITTED;
	return f->domain_here ? MIGRATION_WAITS_FOR_DOMAIN : MIGRATION_ABORTED;
}

bool migration_rule_copy_is_lost(const Gantry__Job *job, Gantry__MigrationStage own)
{
	/* The source copies only once the destination has said that it is ready for it. */
	return own < GANTRY__MIGRATION_STAGE__STAGE_PRE_COPY && job->stage >= GANTRY__MIGRATION_STAGE__STAGE_PRE_COPY;
}

enum resume_rule migration_rule_resume(const struct resume_facts *f)
{
	if (f->actual == ACTUAL_PAUSED)
		return RESUME_RUNS;
	if (f->actual != ACTUAL_OUTGOING_HELD || f->settling)
		return RESUME_IGNORED;
	return !f->leases_handed && !f->adopted ? RESUME_OUTGOING : RESUME_STOP;
}
