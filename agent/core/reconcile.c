#include "agent/core/reconcile.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "lib/mutant.h"

/* What the cluster wants of the domain on this host. */
enum want {
	WANT_NONE = 1 << 0, /* not ours */
	WANT_RUN = 1 << 1,
	WANT_PAUSE = 1 << 2,
	WANT_SHUTDOWN = 1 << 3, /* stop, the guest is asked */
	WANT_DESTROY = 1 << 4,	/* stop, the guest is not asked */
};
#define WANT_STOP (WANT_SHUTDOWN | WANT_DESTROY)
#define WANT_GO (WANT_RUN | WANT_PAUSE)
#define WANT_OWN (WANT_GO | WANT_STOP)
#define WANT_ANY (WANT_NONE | WANT_OWN)

/* The migration of this domain in which this host has a part. */
enum part {
	PART_NONE = 1 << 0,
	PART_SOURCE = 1 << 1,	       /* undecided */
	PART_SOURCE_GONE = 1 << 2,     /* COMMIT was applied: the domain is the other host's */
	PART_DESTINATION = 1 << 3,     /* undecided */
	PART_DESTINATION_OWN = 1 << 4, /* COMMIT was applied: the domain is ours */
};
#define PART_ANY (PART_NONE | PART_SOURCE | PART_SOURCE_GONE | PART_DESTINATION | PART_DESTINATION_OWN)

/* Generation of the QEMU that is here, seen from the goal. Without a goal it is SAME. */
enum age { AGE_OLDER = 1 << 0, AGE_SAME = 1 << 1, AGE_NEWER = 1 << 2 };
#define AGE_ANY (AGE_OLDER | AGE_SAME | AGE_NEWER)

/* Whether the domain must not run here although it is ours. */
enum ban { BAN_NONE = 1 << 0, BAN_FENCED = 1 << 1, BAN_FAILED = 1 << 2 };
#define BAN_ANY (BAN_NONE | BAN_FENCED | BAN_FAILED)
#define BAN_UNFENCED (BAN_NONE | BAN_FAILED)

#define IS(state) (1u << ACTUAL_##state)
#define IS_ANY 0xffffffffu
/* There is, or may be, a QEMU process. */
#define IS_PROCESS                                                                                                     \
	(IS(STARTING) | IS(RUNNING) | IS(PAUSED) | IS(INCOMING) | IS(COMPLETE) | IS(OUTGOING) | IS(OUTGOING_HELD))
#define IS_LEFT (IS(STARTING) | IS(RUNNING) | IS(PAUSED) | IS(OUTGOING) | IS(OUTGOING_HELD))
#define IS_COPY (IS(INCOMING) | IS(COMPLETE))
#define IS_SOURCE (IS(OUTGOING) | IS(OUTGOING_HELD))

struct row {
	unsigned want, part, actual, age, ban;
	enum reconcile_op op;
	const char *reason;
};

/* The policy, first match wins. Every row may be applied again and again: an operation moves the domain to another
 * actual state (or is throttled by the daemon, as SHUTDOWN is), and the row of that state asks for nothing more. */
static const struct row table[] = {
    /* What is under way or over comes first: it is finished whatever the goal is. */
    {WANT_ANY, PART_ANY, IS(STOPPING), AGE_ANY, BAN_ANY, OP_NONE, "it is being stopped"},
    {WANT_ANY, PART_ANY, IS(ENDED), AGE_ANY, BAN_ANY, OP_CLEAN, "its QEMU has ended"},

    /* Nobody else may wait for us: no quorum ends an HA domain before anything else is asked. */
    {WANT_OWN, PART_ANY, IS_PROCESS, AGE_ANY, BAN_FENCED, OP_KILL, "this host has had no quorum for too long"},
    {WANT_OWN, PART_ANY, IS(ABSENT), AGE_ANY, BAN_FENCED, OP_NONE, "this host has no quorum"},

    /* Not ours. An undecided copy may wait; everything else of it ends at once. */
    {WANT_NONE, PART_DESTINATION, IS_COPY | IS(STARTING) | IS(ABSENT), AGE_ANY, BAN_ANY, OP_NONE,
     "the migration to this host is not decided"},
    {WANT_NONE, PART_ANY, IS(ABSENT), AGE_ANY, BAN_ANY, OP_NONE, "it is not on this host"},
    {WANT_NONE, PART_SOURCE_GONE, IS_PROCESS, AGE_ANY, BAN_ANY, OP_KILL, "it was migrated to another host"},
    {WANT_NONE, PART_ANY, IS_PROCESS, AGE_ANY, BAN_ANY, OP_KILL, "this host does not own it"},

    /* Ours, but the QEMU here is of another generation. */
    {WANT_OWN, PART_ANY, IS_PROCESS, AGE_OLDER, BAN_ANY, OP_KILL, "it is of an older generation"},
    {WANT_OWN, PART_ANY, IS_PROCESS, AGE_NEWER, BAN_ANY, OP_NONE, "the goal is of an older generation"},

    /* Ours: a copy counts only through the COMMIT of its own migration, and only when it is complete. */
    {WANT_GO | WANT_SHUTDOWN, PART_DESTINATION_OWN, IS(COMPLETE), AGE_SAME, BAN_UNFENCED, OP_ACTIVATE,
     "the migration was committed"},
    {WANT_OWN, PART_ANY, IS_COPY, AGE_SAME, BAN_ANY, OP_KILL, "the copy belongs to no committed migration"},
    /* Its image is lost: a fresh start would pretend that the guest had been moved. */
    {WANT_OWN, PART_DESTINATION_OWN, IS(ABSENT), AGE_ANY, BAN_ANY, OP_NONE, "its image was lost after the commit"},

    /* Ours, stop. */
    {WANT_STOP, PART_ANY, IS(ABSENT), AGE_ANY, BAN_ANY, OP_NONE, "it is stopped"},
    {WANT_DESTROY, PART_ANY, IS_PROCESS, AGE_SAME, BAN_ANY, OP_KILL, "it is to be destroyed"},
    {WANT_SHUTDOWN, PART_ANY, IS(STARTING), AGE_SAME, BAN_ANY, OP_NONE, "an operation is under way"},
    {WANT_SHUTDOWN, PART_ANY, IS(RUNNING), AGE_SAME, BAN_ANY, OP_SHUTDOWN, "it is to be shut down"},
    {WANT_SHUTDOWN, PART_ANY, IS(PAUSED), AGE_SAME, BAN_ANY, OP_UNPAUSE, "a paused guest cannot shut down"},

    /* Ours, source of a migration: only the decision releases it. */
    {WANT_OWN, PART_SOURCE | PART_SOURCE_GONE, IS_SOURCE | IS(PAUSED), AGE_SAME, BAN_ANY, OP_NONE,
     "the migration is not decided"},
    {WANT_OWN, PART_NONE, IS_SOURCE, AGE_SAME, BAN_ANY, OP_SETTLE_ABORT, "the migration was aborted"},

    /* Ours, run. */
    {WANT_GO, PART_ANY, IS(ABSENT), AGE_ANY, BAN_FAILED, OP_NONE, "this generation has failed or ended here"},
    /* The host lost its power on the way: a COMMIT may still come, which was under way then. This side's failure is reported, and the
     * ABORT that follows lets it start. */
    {WANT_GO, PART_SOURCE, IS(ABSENT), AGE_ANY, BAN_NONE, OP_NONE, "its migration is not decided"},
    {WANT_GO, PART_ANY, IS(ABSENT), AGE_ANY, BAN_NONE, OP_START, "it shall run here"},
    {WANT_GO, PART_ANY, IS(STARTING), AGE_SAME, BAN_ANY, OP_NONE, "an operation is under way"},
    {WANT_RUN, PART_ANY, IS(PAUSED), AGE_SAME, BAN_ANY, OP_UNPAUSE, "it shall run"},
    {WANT_PAUSE, PART_ANY, IS(RUNNING), AGE_SAME, BAN_ANY, OP_PAUSE, "it shall be paused"},
    {WANT_ANY, PART_ANY, IS_ANY, AGE_ANY, BAN_ANY, OP_NONE, "it is as it shall be"},
};

static unsigned reconcile__want(const Gantry__DomainGoal *goal)
{
	if (goal == NULL)
		return WANT_NONE;
	switch (goal->goal) {
	case GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_RUNNING:
		return WANT_RUN;
	case GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_PAUSED:
		return WANT_PAUSE;
	default:
		return goal->stop_how != NULL && strcmp(goal->stop_how, "destroy") == 0 ? WANT_DESTROY : WANT_SHUTDOWN;
	}
}

static unsigned reconcile__part(const Gantry__MigrationGoal *migration)
{
	if (migration == NULL || migration->job == NULL)
		return PART_NONE;
	if (migration->job->committed)
		return migration->incoming ? PART_DESTINATION_OWN : PART_SOURCE_GONE;
	if (migration->job->state != GANTRY__JOB_STATE__JOB_STATE_RUNNING)
		return PART_NONE;
	return migration->incoming ? PART_DESTINATION : PART_SOURCE;
}

static unsigned reconcile__age(const struct reconcile_input *in)
{
	if (MUTANT(generation_not_checked) || in->goal == NULL || in->actual == ACTUAL_ABSENT || in->actual_generation == in->goal->generation)
		return AGE_SAME;
	return in->actual_generation < in->goal->generation ? AGE_OLDER : AGE_NEWER;
}

bool reconcile_is_fenced(const struct reconcile_input *in)
{
	const Gantry__HaPolicy *policy = in->goal != NULL ? in->goal->policy : NULL;

	if (!in->fenced || in->goal == NULL || !in->goal->ha)
		return false;
	/* What runs is left, by its leases. Nothing new begins: those may be another host's by now. */
	return in->guarded || policy == NULL || policy->isolation != GANTRY__ISOLATION__ISOLATION_LEAVE ||
	       !((1u << in->actual) & IS_LEFT);
}

static unsigned reconcile__ban(const struct reconcile_input *in)
{
	if (reconcile_is_fenced(in))
		return BAN_FENCED;
	return in->failed_this_generation && !MUTANT(generation_not_checked) ? BAN_FAILED : BAN_NONE;
}

struct reconcile_decision reconcile_domain(const struct reconcile_input *in)
{
	unsigned want = reconcile__want(in->goal), part = reconcile__part(in->migration);
	unsigned age = reconcile__age(in), ban = reconcile__ban(in);

	if (MUTANT(destination_before_commit) && part == PART_DESTINATION && in->actual == ACTUAL_COMPLETE)
		return (struct reconcile_decision){.op = OP_ACTIVATE, .reason = "mutant"};
	if (MUTANT(source_goes_on) && part == PART_SOURCE && in->actual == ACTUAL_OUTGOING_HELD)
		return (struct reconcile_decision){.op = OP_SETTLE_ABORT, .reason = "mutant"};
	if (MUTANT(source_survives_commit) && want == WANT_NONE && (IS_SOURCE & (1u << in->actual)))
		return (struct reconcile_decision){.op = OP_NONE, .reason = "mutant"};
	if (MUTANT(abort_keeps_copy) && part == PART_NONE && (IS_COPY & (1u << in->actual)))
		return (struct reconcile_decision){.op = OP_NONE, .reason = "mutant"};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		const struct row *r = &table[i];
		if ((r->want & want) && (r->part & part) && (r->actual & (1u << in->actual)) && (r->age & age) &&
		    (r->ban & ban))
			return (struct reconcile_decision){.op = r->op, .reason = r->reason};
	}
	assert(!"the last row matches everything");
	return (struct reconcile_decision){.op = OP_NONE, .reason = ""};
}

const char *reconcile_state_word(enum actual_state state)
{
	static const char *const words[] = {
	    [ACTUAL_ABSENT] = "absent",	    [ACTUAL_STARTING] = "starting",  [ACTUAL_RUNNING] = "running",
	    [ACTUAL_PAUSED] = "paused",	    [ACTUAL_INCOMING] = "incoming",  [ACTUAL_COMPLETE] = "complete",
	    [ACTUAL_OUTGOING] = "outgoing", [ACTUAL_OUTGOING_HELD] = "held", [ACTUAL_ENDED] = "ended",
	    [ACTUAL_STOPPING] = "stopping",
	};
	assert((size_t)state < sizeof(words) / sizeof(words[0]));
	return words[state];
}

const char *reconcile_op_word(enum reconcile_op op)
{
	static const char *const words[] = {
	    [OP_NONE] = "nothing",    [OP_START] = "start",	  [OP_PAUSE] = "pause",
	    [OP_UNPAUSE] = "unpause", [OP_SHUTDOWN] = "shutdown", [OP_KILL] = "kill",
	    [OP_CLEAN] = "clean",     [OP_ACTIVATE] = "activate", [OP_SETTLE_ABORT] = "settle the abort",
	};
	assert((size_t)op < sizeof(words) / sizeof(words[0]));
	return words[op];
}
