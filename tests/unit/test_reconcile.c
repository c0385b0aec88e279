/* Every row of the agent's policy, and what holds over all inputs: nothing runs here that is not ours, and an
 * operation asked for twice is asked for only as long as it is not done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "agent/core/reconcile.h"

enum { G_NONE, G_RUN, G_PAUSE, G_SHUTDOWN, G_DESTROY, G_MAX };
enum { M_NONE, M_SOURCE, M_SOURCE_COMMITTED, M_DEST, M_DEST_COMMITTED, M_ENDED, M_MAX };
enum { SAME = 0, OLDER = -1, NEWER = 1 };

struct scene {
	int goal, migration;
	enum actual_state actual;
	int age;
	bool ha, fenced, failed;
	bool leave, guarded; /* the policy says so; the host has a watchdog */
};

static struct reconcile_decision decide(const struct scene *s)
{
	Gantry__DomainGoal goal = GANTRY__DOMAIN_GOAL__INIT;
	Gantry__MigrationGoal migration = GANTRY__MIGRATION_GOAL__INIT;
	Gantry__Job job = GANTRY__JOB__INIT;
	Gantry__HaPolicy policy = GANTRY__HA_POLICY__INIT;
	static const Gantry__DomainGoalState states[] = {
	    [G_RUN] = GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_RUNNING,
	    [G_PAUSE] = GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_PAUSED,
	    [G_SHUTDOWN] = GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_STOPPED,
	    [G_DESTROY] = GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_STOPPED,
	};

	goal.generation = 7;
	goal.goal = states[s->goal];
	goal.stop_how = s->goal == G_DESTROY ? (char *)"destroy" : (char *)"shutdown";
	goal.ha = s->ha;
	policy.isolation = s->leave ? GANTRY__ISOLATION__ISOLATION_LEAVE : GANTRY__ISOLATION__ISOLATION_STOP;
	goal.policy = &policy;
	job.state =
	    s->migration == M_ENDED ? GANTRY__JOB_STATE__JOB_STATE_FAILED : GANTRY__JOB_STATE__JOB_STATE_RUNNING;
	job.committed = s->migration == M_SOURCE_COMMITTED || s->migration == M_DEST_COMMITTED;
	migration.job = &job;
	migration.incoming = s->migration == M_DEST || s->migration == M_DEST_COMMITTED;
	return reconcile_domain(&(struct reconcile_input){
	    .goal = s->goal == G_NONE ? NULL : &goal,
	    .migration = s->migration == M_NONE ? NULL : &migration,
	    .actual = s->actual,
	    .actual_generation = (uint64_t)(7 + s->age),
	    .fenced = s->fenced,
	    .guarded = s->guarded,
	    .failed_this_generation = s->failed,
	});
}

struct expectation {
	const char *name;
	struct scene s;
	enum reconcile_op op;
};

static const struct expectation expectations[] = {
    /* the plain life of a domain */
    {"start", {G_RUN, M_NONE, ACTUAL_ABSENT}, OP_START},
    {"start to be paused", {G_PAUSE, M_NONE, ACTUAL_ABSENT}, OP_START},
    {"start while a migration from here is not decided", {G_RUN, M_SOURCE, ACTUAL_ABSENT}, OP_NONE},
    {"start under way", {G_RUN, M_NONE, ACTUAL_STARTING}, OP_NONE},
    {"runs", {G_RUN, M_NONE, ACTUAL_RUNNING}, OP_NONE},
    {"pause", {G_PAUSE, M_NONE, ACTUAL_RUNNING}, OP_PAUSE},
    {"is paused", {G_PAUSE, M_NONE, ACTUAL_PAUSED}, OP_NONE},
    {"unpause", {G_RUN, M_NONE, ACTUAL_PAUSED}, OP_UNPAUSE},
    {"shutdown", {G_SHUTDOWN, M_NONE, ACTUAL_RUNNING}, OP_SHUTDOWN},
    {"shutdown of a paused one", {G_SHUTDOWN, M_NONE, ACTUAL_PAUSED}, OP_UNPAUSE},
    {"shutdown of a starting one", {G_SHUTDOWN, M_NONE, ACTUAL_STARTING}, OP_NONE},
    {"destroy", {G_DESTROY, M_NONE, ACTUAL_RUNNING}, OP_KILL},
    {"destroy a paused one", {G_DESTROY, M_NONE, ACTUAL_PAUSED}, OP_KILL},
    {"destroy a starting one", {G_DESTROY, M_NONE, ACTUAL_STARTING}, OP_KILL},
    {"stop under way", {G_DESTROY, M_NONE, ACTUAL_STOPPING}, OP_NONE},
    {"ended", {G_RUN, M_NONE, ACTUAL_ENDED}, OP_CLEAN},
    {"ended, to be stopped", {G_SHUTDOWN, M_NONE, ACTUAL_ENDED}, OP_CLEAN},
    {"stopped", {G_SHUTDOWN, M_NONE, ACTUAL_ABSENT}, OP_NONE},
    {"stopped by force", {G_DESTROY, M_NONE, ACTUAL_ABSENT}, OP_NONE},
    {"failed: waits for a new generation", {G_RUN, M_NONE, ACTUAL_ABSENT, .failed = true}, OP_NONE},
    /* generations */
    {"older QEMU", {G_RUN, M_NONE, ACTUAL_RUNNING, OLDER}, OP_KILL},
    {"older start", {G_RUN, M_NONE, ACTUAL_STARTING, OLDER}, OP_KILL},
    {"older source", {G_RUN, M_NONE, ACTUAL_OUTGOING_HELD, OLDER}, OP_KILL},
    {"older goal to stop", {G_DESTROY, M_NONE, ACTUAL_RUNNING, NEWER}, OP_NONE},
    {"older goal, copy of a newer one", {G_RUN, M_DEST, ACTUAL_COMPLETE, NEWER}, OP_NONE},
    /* not ours */
    {"no owner", {G_NONE, M_NONE, ACTUAL_RUNNING}, OP_KILL},
    {"no owner, paused", {G_NONE, M_NONE, ACTUAL_PAUSED}, OP_KILL},
    {"no owner, starting", {G_NONE, M_NONE, ACTUAL_STARTING}, OP_KILL},
    {"no owner, held", {G_NONE, M_NONE, ACTUAL_OUTGOING_HELD}, OP_KILL},
    {"no owner, nothing here", {G_NONE, M_NONE, ACTUAL_ABSENT}, OP_NONE},
    {"no owner, ended", {G_NONE, M_NONE, ACTUAL_ENDED}, OP_CLEAN},
    /* source */
    {"source runs", {G_RUN, M_SOURCE, ACTUAL_OUTGOING}, OP_NONE},
    {"source held", {G_RUN, M_SOURCE, ACTUAL_OUTGOING_HELD}, OP_NONE},
    {"source stopped by QEMU, event of the hold still to come", {G_RUN, M_SOURCE, ACTUAL_PAUSED}, OP_NONE},
    {"source committed", {G_NONE, M_SOURCE_COMMITTED, ACTUAL_OUTGOING_HELD}, OP_KILL},
    {"source committed, job gone", {G_NONE, M_NONE, ACTUAL_OUTGOING_HELD}, OP_KILL},
    {"source aborted, running", {G_RUN, M_NONE, ACTUAL_OUTGOING}, OP_SETTLE_ABORT},
    {"source aborted, held", {G_RUN, M_NONE, ACTUAL_OUTGOING_HELD}, OP_SETTLE_ABORT},
    {"source aborted, job still listed", {G_RUN, M_ENDED, ACTUAL_OUTGOING_HELD}, OP_SETTLE_ABORT},
    {"source aborted, to be shut down", {G_SHUTDOWN, M_NONE, ACTUAL_OUTGOING_HELD}, OP_SETTLE_ABORT},
    {"source destroyed", {G_DESTROY, M_SOURCE, ACTUAL_OUTGOING_HELD}, OP_KILL},
    /* destination */
    {"copy comes", {G_NONE, M_DEST, ACTUAL_INCOMING}, OP_NONE},
    {"copy starts", {G_NONE, M_DEST, ACTUAL_STARTING}, OP_NONE},
    {"copy waits", {G_NONE, M_DEST, ACTUAL_COMPLETE}, OP_NONE},
    {"not there yet", {G_NONE, M_DEST, ACTUAL_ABSENT}, OP_NONE},
    {"copy aborted", {G_NONE, M_NONE, ACTUAL_COMPLETE}, OP_KILL},
    {"copy aborted early", {G_NONE, M_ENDED, ACTUAL_INCOMING}, OP_KILL},
    {"an old copy of ours is in the way", {G_NONE, M_DEST, ACTUAL_OUTGOING_HELD}, OP_KILL},
    {"committed", {G_RUN, M_DEST_COMMITTED, ACTUAL_COMPLETE}, OP_ACTIVATE},
    {"committed, to be paused", {G_PAUSE, M_DEST_COMMITTED, ACTUAL_COMPLETE}, OP_ACTIVATE},
    {"committed, to be shut down", {G_SHUTDOWN, M_DEST_COMMITTED, ACTUAL_COMPLETE}, OP_ACTIVATE},
    {"committed, activation under way", {G_RUN, M_DEST_COMMITTED, ACTUAL_STARTING}, OP_NONE},
    {"committed, running", {G_RUN, M_DEST_COMMITTED, ACTUAL_RUNNING}, OP_NONE},
    {"committed, but the copy is not complete", {G_RUN, M_DEST_COMMITTED, ACTUAL_INCOMING}, OP_KILL},
    {"committed, copy lost", {G_RUN, M_DEST_COMMITTED, ACTUAL_ABSENT}, OP_NONE},
    {"committed, destroyed", {G_DESTROY, M_DEST_COMMITTED, ACTUAL_COMPLETE}, OP_KILL},
    {"owner by another way than this copy's migration", {G_RUN, M_NONE, ACTUAL_COMPLETE}, OP_KILL},
    /* self-fence */
    {"fenced HA", {G_RUN, M_NONE, ACTUAL_RUNNING, SAME, true, true}, OP_KILL},
    {"fenced HA source", {G_RUN, M_SOURCE, ACTUAL_OUTGOING_HELD, SAME, true, true}, OP_KILL},
    {"fenced HA start", {G_RUN, M_NONE, ACTUAL_STARTING, SAME, true, true}, OP_KILL},
    {"fenced HA activation", {G_RUN, M_DEST_COMMITTED, ACTUAL_COMPLETE, SAME, true, true}, OP_KILL},
    {"fenced HA absent", {G_RUN, M_NONE, ACTUAL_ABSENT, SAME, true, true}, OP_NONE},
    {"fenced HA being stopped", {G_RUN, M_NONE, ACTUAL_STOPPING, SAME, true, true}, OP_NONE},
    {"fenced HA ended", {G_RUN, M_NONE, ACTUAL_ENDED, SAME, true, true}, OP_CLEAN},
    {"fenced, not HA", {G_RUN, M_NONE, ACTUAL_RUNNING, SAME, false, true}, OP_NONE},
    {"fenced, not HA, absent", {G_RUN, M_NONE, ACTUAL_ABSENT, SAME, false, true}, OP_START},
    {"fenced HA, left by its policy", {G_RUN, M_NONE, ACTUAL_RUNNING, SAME, true, true, .leave = true}, OP_NONE},
    {"fenced HA, left by its policy, absent", {G_RUN, M_NONE, ACTUAL_ABSENT, SAME, true, true, .leave = true}, OP_NONE},
    {"fenced HA, left by its policy, committed to here", {G_RUN, M_DEST_COMMITTED, ACTUAL_COMPLETE, SAME, true, true, .leave = true}, OP_KILL},
    {"fenced HA, to be left, but a watchdog resets the host", {G_RUN, M_NONE, ACTUAL_RUNNING, SAME, true, true, .leave = true, .guarded = true},
     OP_KILL},
    {"watchdog, but not fenced", {G_RUN, M_NONE, ACTUAL_RUNNING, SAME, true, false, .guarded = true}, OP_NONE},
    {"fenced, undecided copy", {G_NONE, M_DEST, ACTUAL_COMPLETE, SAME, false, true}, OP_NONE},
};

static void test_rows(void **state)
{
	for (size_t i = 0; i < sizeof(expectations) / sizeof(expectations[0]); i++) {
		struct reconcile_decision d = decide(&expectations[i].s);
		if (d.op != expectations[i].op)
			fail_msg("%s: %s (%s) instead of %s", expectations[i].name, reconcile_op_word(d.op), d.reason,
				 reconcile_op_word(expectations[i].op));
		assert_non_null(d.reason);
	}
}

/* Where an operation that has been begun leaves the domain. */
static enum actual_state begun(enum reconcile_op op, enum actual_state was)
{
	switch (op) {
	case OP_START:
	case OP_ACTIVATE:
	case OP_SETTLE_ABORT:
	case OP_UNPAUSE:
	case OP_PAUSE:
		return ACTUAL_STARTING;
	case OP_KILL:
	case OP_CLEAN:
		return ACTUAL_STOPPING;
	default:
		return was;
	}
}

static void check_scene(const struct scene *s)
{
	struct reconcile_decision d = decide(s);
	bool copy = s->actual == ACTUAL_INCOMING || s->actual == ACTUAL_COMPLETE || s->actual == ACTUAL_STARTING;
	bool process = s->actual != ACTUAL_ABSENT && s->actual != ACTUAL_ENDED && s->actual != ACTUAL_STOPPING;

	/* A guest is made to run only where the goal says so, at this very generation, without a fence. */
	if (d.op == OP_START || d.op == OP_ACTIVATE) {
		assert_true(s->goal == G_RUN || s->goal == G_PAUSE || (s->goal == G_SHUTDOWN && d.op == OP_ACTIVATE));
		assert_false(s->fenced && s->ha);
		assert_true(s->actual == ACTUAL_ABSENT || s->age == SAME);
		assert_false(s->migration == M_SOURCE);
	}
	if (d.op == OP_ACTIVATE)
		assert_true(s->migration == M_DEST_COMMITTED && s->actual == ACTUAL_COMPLETE);
	/* Only the end of the migration brings a held source back. */
	if (s->actual == ACTUAL_OUTGOING_HELD && (d.op == OP_SETTLE_ABORT || d.op == OP_UNPAUSE))
		assert_true(s->goal != G_NONE && (s->migration == M_NONE || s->migration == M_ENDED) && s->age == SAME);
	/* What is not ours does not stay, but for an undecided copy. */
	if (s->goal == G_NONE && process && !(copy && s->migration == M_DEST))
		assert_int_equal(d.op, OP_KILL);
	/* A stale goal touches nothing. */
	if (s->goal != G_NONE && s->age == NEWER && process && !(s->fenced && s->ha))
		assert_int_equal(d.op, OP_NONE);
	/* Idempotence: once begun, the same operation is not begun again. */
	if (d.op != OP_NONE && d.op != OP_SHUTDOWN) {
		struct scene next = *s;
		next.actual = begun(d.op, s->actual);
		assert_int_not_equal(decide(&next).op, d.op);
		if (next.actual == ACTUAL_STOPPING)
			assert_int_equal(decide(&next).op, OP_NONE);
	}
}

static void test_invariants_over_all_inputs(void **state)
{
	size_t n = 0;

	for (int goal = 0; goal < G_MAX; goal++)
		for (int migration = 0; migration < M_MAX; migration++)
			for (int actual = ACTUAL_ABSENT; actual <= ACTUAL_STOPPING; actual++)
				for (int age = OLDER; age <= NEWER; age++)
					for (int bits = 0; bits < 8; bits++, n++)
						check_scene(&(struct scene){goal, migration, (enum actual_state)actual,
									    age, bits & 1, bits & 2, bits & 4});
	assert_int_equal(n, G_MAX * M_MAX * (ACTUAL_STOPPING + 1) * 3 * 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rows),
	    cmocka_unit_test(test_invariants_over_all_inputs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
