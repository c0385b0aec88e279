/* The agent's small rules: which goals count, how a QEMU's end is read, what is said of a domain, what a migration may do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/core/domain_word.h"
#include "agent/core/goals_order.h"
#include "agent/core/migration_rule.h"

#define STATE(x) GANTRY__DOMAIN_STATE__DOMAIN_STATE_##x
#define GOAL(x) GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_##x
#define ROWS(t) (sizeof(t) / sizeof((t)[0]))

static void test_goals_are_ordered_within_a_cluster(void **state)
{
	static const struct { uint64_t epoch, index; const char *cluster; bool older; } rows[] = {
		{2, 50, "c1", false}, {2, 51, "c1", false}, {2, 49, "c1", true}, {1, 99, "c1", true}, {3, 1, "c1", false}, {1, 1, "c2", false},
	};
	struct goals_order known = {"c1", 2, 50}, none = {0};

	for (size_t i = 0; i < ROWS(rows); i++) {
		Gantry__AgentGoals goals = GANTRY__AGENT_GOALS__INIT;

		goals.cluster_uuid = (char *)rows[i].cluster;
		goals.epoch = rows[i].epoch;
		goals.index = rows[i].index;
		assert_int_equal(goals_order_older(&known, &goals), rows[i].older);
		assert_false(goals_order_older(&none, &goals));
	}
}

static void test_a_quorum_of_an_older_epoch_does_not_count(void **state)
{
	struct goals_order known = {"c1", 5, 50};
	Gantry__AgentQuorum quorum = GANTRY__AGENT_QUORUM__INIT;

	quorum.quorate = true;
	quorum.epoch = 4;
	assert_false(goals_order_quorum_counts(&known, true, &quorum));
	assert_true(goals_order_quorum_counts(&known, false, &quorum)); /* an agent that has just begun obeys nothing yet */
	quorum.epoch = 5;
	assert_true(goals_order_quorum_counts(&known, true, &quorum));
	quorum.quorate = false;
	quorum.epoch = 4;
	assert_true(goals_order_quorum_counts(&known, true, &quorum));
}

static void test_an_exit_is_read(void **state)
{
	static const struct { struct domain_exit x; enum domain_end end; } rows[] = {
		{{ACTUAL_STARTING}, END_FAILED},
		{{ACTUAL_RUNNING, .has_run = true}, END_CRASHED},
		{{ACTUAL_RUNNING, .has_run = true, .guest_shutdown = true}, END_STOPPED},
		{{ACTUAL_RUNNING, .has_run = true, .guest_reboot = true}, END_STOPPED},
		{{ACTUAL_RUNNING, .has_run = true, .guest_panicked = true, .guest_shutdown = true}, END_CRASHED},
		{{ACTUAL_INCOMING, .copy = true}, END_GONE},
		{{ACTUAL_COMPLETE, .copy = true}, END_GONE},
		{{ACTUAL_STARTING, .copy = true}, END_GONE},
		{{ACTUAL_STARTING, .copy = true, .activating = true}, END_CRASHED},
		{{ACTUAL_RUNNING, .copy = true, .has_run = true}, END_CRASHED},
		{{ACTUAL_OUTGOING_HELD, .has_run = true}, END_CRASHED},
	};

	for (size_t i = 0; i < ROWS(rows); i++)
		assert_int_equal(domain_fate_of_exit(&rows[i].x), rows[i].end);
}

static void test_a_kill_says_why(void **state)
{
	Gantry__DomainGoal goal = GANTRY__DOMAIN_GOAL__INIT;
	Gantry__MigrationGoal migration = GANTRY__MIGRATION_GOAL__INIT;
	Gantry__Job job = GANTRY__JOB__INIT;
	struct reconcile_input in = {.actual = ACTUAL_RUNNING, .actual_generation = 7};
	struct domain_kill kill;

	migration.job = &job;
	migration.incoming = true;
	goal.generation = 7;
	assert_int_equal(domain_fate_of_kill(&in).end, END_GONE); /* not ours */
	in.goal = &goal;
	kill = domain_fate_of_kill(&in);
	assert_true(kill.quit && kill.end == END_STOPPED);
	in.fenced = true;
	assert_false(domain_fate_of_kill(&in).fenced); /* not HA */
	goal.ha = true;
	kill = domain_fate_of_kill(&in);
	assert_true(kill.fenced && !kill.quit && kill.end == END_CRASHED);
	in.fenced = false;
	in.actual_generation = 6;
	assert_int_equal(domain_fate_of_kill(&in).end, END_GONE);
	in.actual_generation = 7;
	in.actual = ACTUAL_INCOMING;
	in.migration = &migration;
	assert_int_equal(domain_fate_of_kill(&in).end, END_GONE);
	job.committed = true;
	assert_int_equal(domain_fate_of_kill(&in).end, END_CRASHED);
	in.actual = ACTUAL_ABSENT;
	goal.goal = GOAL(RUNNING);
	assert_true(domain_fate_image_lost(&in, false));
	assert_false(domain_fate_image_lost(&in, true));
	goal.goal = GOAL(STOPPED);
	assert_false(domain_fate_image_lost(&in, false));
}

static void test_a_note_says_what_is_found(void **state)
{
	assert_int_equal(domain_fate_adopted(NOTE_RUNNING), ACTUAL_STARTING);
	assert_int_equal(domain_fate_adopted(NOTE_OUTGOING), ACTUAL_OUTGOING_HELD);
	assert_int_equal(domain_fate_adopted(NOTE_COMPLETE), ACTUAL_COMPLETE);
	assert_int_equal(domain_fate_adopted(NOTE_INCOMING), ACTUAL_INCOMING);
	assert_int_equal(domain_fate_unseen(NOTE_STARTING), END_RETRY);
	assert_int_equal(domain_fate_unseen(NOTE_RUNNING), END_CRASHED);
	assert_int_equal(domain_fate_unseen(NOTE_OUTGOING), END_CRASHED);
	assert_int_equal(domain_fate_unseen(NOTE_COMPLETE), END_GONE);
}

static void test_what_is_said_of_a_domain(void **state)
{
	Gantry__DomainGoal run = GANTRY__DOMAIN_GOAL__INIT, stop = GANTRY__DOMAIN_GOAL__INIT;
	struct { struct domain_facts f; Gantry__DomainState state; enum domain_word_of of; } rows[] = {
		{{&run, ACTUAL_ABSENT}, STATE(STARTING), WORD_OF_NOW},
		{{&stop, ACTUAL_ABSENT}, STATE(STOPPED), WORD_OF_NOW},
		{{&run, ACTUAL_ABSENT, .ended_generation = 7, .ended_state = STATE(CRASHED)}, STATE(CRASHED), WORD_OF_END},
		{{&run, ACTUAL_ABSENT, .ended_generation = 6, .ended_state = STATE(CRASHED)}, STATE(STARTING), WORD_OF_NOW},
		{{&run, ACTUAL_STARTING, 7}, STATE(STARTING), WORD_OF_NOW},
		{{&run, ACTUAL_STARTING, 7, .has_run = true}, STATE(RUNNING), WORD_OF_NOW},
		{{&run, ACTUAL_RUNNING, 7}, STATE(RUNNING), WORD_OF_NOW},
		{{&stop, ACTUAL_RUNNING, 7}, STATE(STOPPING), WORD_OF_NOW},
		{{&run, ACTUAL_PAUSED, 7}, STATE(PAUSED), WORD_OF_NOW},
		{{&run, ACTUAL_OUTGOING_HELD, 7}, STATE(RUNNING), WORD_OF_NOW},
		{{&run, ACTUAL_STOPPING, 7, END_RETRY}, STATE(STARTING), WORD_OF_NOW},
		{{&run, ACTUAL_STOPPING, 7, END_CRASHED}, STATE(STOPPING), WORD_OF_NOW},
		{{&run, ACTUAL_RUNNING, 6}, STATE(STARTING), WORD_OF_OLDER},
		{{&run, ACTUAL_ENDED, 7, END_CRASHED, .ended_generation = 7, .ended_state = STATE(FAILED)}, STATE(STOPPING), WORD_OF_NOW},
	};

	run.goal = GOAL(RUNNING);
	run.generation = stop.generation = 7;
	for (size_t i = 0; i < ROWS(rows); i++) {
		struct domain_word word = domain_word(&rows[i].f);

		assert_int_equal(word.state, rows[i].state);
		assert_int_equal(word.of, rows[i].of);
	}
}

static void test_a_migration_is_decided_by_goals(void **state)
{
	Gantry__DomainGoal owner = GANTRY__DOMAIN_GOAL__INIT, newer = GANTRY__DOMAIN_GOAL__INIT;
	Gantry__MigrationGoal open = GANTRY__MIGRATION_GOAL__INIT, done = GANTRY__MIGRATION_GOAL__INIT, other = GANTRY__MIGRATION_GOAL__INIT;
	Gantry__Job open_job = GANTRY__JOB__INIT, done_job = GANTRY__JOB__INIT, other_job = GANTRY__JOB__INIT;
	struct { struct migration_facts f; enum migration_decision decision; } rows[] = {
		/* job, incoming, source's generation, here, goal, owner */
		{{3, true, 6, true, &open, NULL}, MIGRATION_UNDECIDED},
		{{3, false, 6, true, &open, &owner}, MIGRATION_UNDECIDED},
		{{3, true, 6, true, &done, &newer}, MIGRATION_WAITS_FOR_DOMAIN},
		{{3, true, 6, true, NULL, NULL}, MIGRATION_ABORTED},
		{{3, true, 6, true, &other, NULL}, MIGRATION_ABORTED},
		{{3, false, 6, true, &done, NULL}, MIGRATION_COMMITTED},
		{{3, false, 6, true, NULL, NULL}, MIGRATION_COMMITTED},
		{{3, false, 6, true, NULL, &newer}, MIGRATION_COMMITTED},
		{{3, false, 6, true, NULL, &owner}, MIGRATION_WAITS_FOR_DOMAIN},
		{{3, false, 6, false, NULL, &owner}, MIGRATION_ABORTED},
	};

	owner.generation = 6;
	newer.generation = 7;
	open.job = &open_job;
	done.job = &done_job;
	other.job = &other_job;
	open_job.id = done_job.id = 3;
	other_job.id = 4;
	done_job.committed = true;
	for (size_t i = 0; i < ROWS(rows); i++)
		assert_int_equal(migration_rule_decision(&rows[i].f), rows[i].decision);
}

static void test_a_destination_that_was_restarted_says_so(void **state)
{
	static const struct { Gantry__MigrationStage own, job; bool lost; } rows[] = {
		{GANTRY__MIGRATION_STAGE__STAGE_PRE_MIGRATION, GANTRY__MIGRATION_STAGE__STAGE_PRE_MIGRATION, false},
		{GANTRY__MIGRATION_STAGE__STAGE_PRE_MIGRATION, GANTRY__MIGRATION_STAGE__STAGE_RESERVATION, false}, /* the source is ahead by a word */
		{GANTRY__MIGRATION_STAGE__STAGE_PRE_MIGRATION, GANTRY__MIGRATION_STAGE__STAGE_COMMITMENT, true},
		{GANTRY__MIGRATION_STAGE__STAGE_RESERVATION, GANTRY__MIGRATION_STAGE__STAGE_PRE_COPY, true},
		{GANTRY__MIGRATION_STAGE__STAGE_PRE_COPY, GANTRY__MIGRATION_STAGE__STAGE_COMMITMENT, false},
		{GANTRY__MIGRATION_STAGE__STAGE_COMMITMENT, GANTRY__MIGRATION_STAGE__STAGE_PRE_COPY, false},
	};
	Gantry__Job job = GANTRY__JOB__INIT;

	for (size_t i = 0; i < ROWS(rows); i++) {
		job.stage = rows[i].job;
		assert_int_equal(migration_rule_copy_is_lost(&job, rows[i].own), rows[i].lost);
	}
}

static void test_only_the_log_resumes_a_source(void **state)
{
	static const struct { struct resume_facts f; enum resume_rule rule; } rows[] = {
		{{ACTUAL_PAUSED}, RESUME_RUNS},
		{{ACTUAL_RUNNING}, RESUME_IGNORED},
		{{ACTUAL_OUTGOING}, RESUME_IGNORED},
		{{ACTUAL_OUTGOING_HELD}, RESUME_OUTGOING},
		{{ACTUAL_OUTGOING_HELD, .settling = true}, RESUME_IGNORED},
		{{ACTUAL_OUTGOING_HELD, .leases_handed = true}, RESUME_STOP},
		{{ACTUAL_OUTGOING_HELD, .adopted = true}, RESUME_STOP},
	};

	for (size_t i = 0; i < ROWS(rows); i++)
		assert_int_equal(migration_rule_resume(&rows[i].f), rows[i].rule);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_goals_are_ordered_within_a_cluster),
		cmocka_unit_test(test_a_quorum_of_an_older_epoch_does_not_count),
		cmocka_unit_test(test_an_exit_is_read),
		cmocka_unit_test(test_a_kill_says_why),
		cmocka_unit_test(test_a_note_says_what_is_found),
		cmocka_unit_test(test_what_is_said_of_a_domain),
		cmocka_unit_test(test_a_migration_is_decided_by_goals),
		cmocka_unit_test(test_a_destination_that_was_restarted_says_so),
		cmocka_unit_test(test_only_the_log_resumes_a_source),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
