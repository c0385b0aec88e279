/* The simulator's agents by themselves, with the real model in place of the clusterds: what is asserted is what the daemon is known to do
 * (docs/agent.md, MIGRATION.md's "who dies when"), so that the simulator does not prove something about an agent of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/sim_agent_world.h"

static uint64_t job_id;

static struct sim_migration *side(unsigned host)
{
	for (struct sim_migration *m = world->s.host[host].agent->migrations; m; m = m->next)
		if (m->job.id == job_id)
			return m;
	return NULL;
}

static bool both_complete(void) { return side(1) && side(2) && side(1)->state == SIDE_COMPLETE && side(2)->state == SIDE_COMPLETE; }
static bool is_greeting(void) { return side(1) && side(1)->state == SIDE_GREETING && side(1)->engine; }
static bool is_reserving(void) { return side(2) && side(2)->state == SIDE_RESERVING; }
static bool is_copying(void) { return side(1) && side(1)->state == SIDE_COPYING; }
static bool is_handing_over(void) { return side(1) && side(1)->state == SIDE_HANDING_OVER; }
static bool is_switching(void) { return side(1) && side(1)->state == SIDE_SWITCHING; }
static bool is_verifying(void) { return side(2) && side(2)->state == SIDE_VERIFYING; }
static bool is_held(void) { return world->held != NULL; }
static bool is_committed(void) { return model_job(&world->f.m, job_id)->committed; }
static bool is_activating(void)
{
	struct sim_domain *d = domain_find(world->s.host[2].agent, uuid_of(1), shape_key(uuid_of(1)));

	return d && d->activating;
}
static bool is_over(void) { return model_job(&world->f.m, job_id)->state != GANTRY__JOB_STATE__JOB_STATE_RUNNING; }

static void migrate(void)
{
	world_do("{'migrate_start': {'domain': 'vm1', 'destination': 'host2'}}");
	job_id = world->f.result->job_id;
}

static void commit_held(void)
{
	Gantry__Command *c = world->held;

	world->holds_commit = false;
	world->held = NULL;
	world_apply(c);
	gantry__command__free_unpacked(c, NULL);
}

static void abort_now(void)
{
	world_do("{'migrate_abort': {'job_id': %llu, 'reason': 'the test says so'}}", (unsigned long long)job_id);
}

/* ---- the plain life of a domain ---- */

static void test_starts_pauses_stops(void **state)
{
	world_new(2, 1);
	world_domain(1, "host1");
	assert_runs(1, 1);
	world_do("{'domain_goal': {'domain': 'vm1', 'goal': 'paused'}}");
	world_ms(1000);
	assert_int_equal(dom(1)->state, STATE(PAUSED));
	assert_settled();
	world_do("{'domain_goal': {'domain': 'vm1', 'goal': 'running'}}");
	world_ms(2500);
	assert_runs(1, 1);
	world_do("{'domain_goal': {'domain': 'vm1', 'goal': 'stopped', 'how': 'shutdown'}}");
	world_ms(60000);
	assert_int_equal(dom(1)->state, STATE(STOPPED));
	assert_null(vm_at(1, 1));
	/* Its lease was released: another host needs no proof. */
	world_do("{'domain_start': {'domain': 'vm1', 'host': 'host2'}}");
	world_do("{'domain_place': {'uuid': '%s', 'host': 'host2', 'generation': 2}}", uuid_of(1));
	world_ms(3000);
	assert_runs(1, 2);
	world_do("{'domain_goal': {'domain': 'vm1', 'goal': 'stopped', 'how': 'destroy'}}");
	world_ms(3000);
	assert_int_equal(dom(1)->state, STATE(STOPPED));
	assert_settled();
	world_end();
}

static void test_ends_are_told(void **state)
{
	world_new(2, 2);
	world_domain(1, "host1");
	assert_true(qemu_guest_ends(&world->s, uuid_of(1), true));
	world_ms(5000);
	assert_string_not_equal(dom(1)->host, ""); /* HA: started again */
	assert_int_equal(dom(1)->restart_failures, 1);
	assert_true(qemu_fault_crash(&world->s));
	world_ms(5000);
	assert_int_equal(dom(1)->restart_failures, 2);
	assert_settled();
	assert_true(qemu_guest_ends(&world->s, uuid_of(1), false));
	world_ms(5000);
	assert_int_equal(dom(1)->state, STATE(STOPPED));
	assert_settled();
	world_end();
}

static void test_a_start_that_fails_goes_elsewhere(void **state)
{
	world_new(2, 3);
	world_domain(1, "host1");
	qemu_fault_starts_fail(&world->s, &world->s.host[1], 10 * SECOND);
	assert_true(qemu_fault_crash(&world->s));
	world_ms(8000);
	assert_runs(1, 2);
	world_end();
}

static void test_a_qemu_that_hangs_is_killed_by_a_destroy(void **state)
{
	world_new(2, 4);
	world_domain(1, "host1");
	assert_true(qemu_fault_hang(&world->s));
	world_do("{'domain_goal': {'domain': 'vm1', 'goal': 'stopped', 'how': 'destroy'}}");
	world_ms(1000);
	assert_non_null(vm_at(1, 1)); /* quit is not heard */
	world_ms(3000);
	assert_null(vm_at(1, 1));
	assert_int_equal(dom(1)->state, STATE(STOPPED));
	world_end();
}

/* ---- the agent's restart ---- */

static void test_an_agent_restart_touches_nothing(void **state)
{
	uint64_t serial;

	world_new(2, 5);
	world_domain(1, "host1");
	serial = vm_at(1, 1)->q.serial;
	for (int i = 0; i < 3; i++) {
		agent_stop(&world->s, &world->s.host[1]);
		world_ms(2000);
		agent_start(&world->s, &world->s.host[1]);
		agent_connected(&world->s, &world->s.host[1], true);
		world_goals();
		world_ms(7000);
	}
	assert_runs(1, 1);
	assert_int_equal(vm_at(1, 1)->q.serial, serial);
	assert_int_equal(dom(1)->generation, 1);
	/* Dead meanwhile: told as crashed. */
	agent_stop(&world->s, &world->s.host[1]);
	qemu_fault_crash(&world->s);
	agent_start(&world->s, &world->s.host[1]);
	agent_connected(&world->s, &world->s.host[1], true);
	world_goals();
	world_ms(5000);
	assert_int_equal(dom(1)->restart_failures, 1);
	assert_settled();
	world_end();
}

static void test_older_goals_are_refused_after_a_restart_too(void **state)
{
	Gantry__AgentGoals *old;
	struct sim_host *h;

	world_new(2, 6);
	h = &world->s.host[1];
	old = model_goals(&world->f.m, "host1", 1, 3);
	world_domain(1, "host1");
	agent_take_goals(&world->s, h, old);
	assert_runs(1, 1);
	agent_stop(&world->s, h);
	agent_start(&world->s, h);
	agent_take_goals(&world->s, h, old);
	world_ms(1000);
	assert_runs(1, 1);
	gantry__agent_goals__free_unpacked(old, NULL);
	world_end();
}

/* ---- quorum ---- */

static void test_lost_quorum_ends_ha_domains_and_no_others(void **state)
{
	world_new(2, 7);
	world_domain(1, "host1");
	world_domain_of(2, "host1", false);
	world->out_of_quorum[1] = true;
	world_ms(19000);
	assert_non_null(vm_at(1, 1));
	/* A restart of the agent does not begin the countdown anew. */
	agent_stop(&world->s, &world->s.host[1]);
	agent_start(&world->s, &world->s.host[1]);
	agent_connected(&world->s, &world->s.host[1], true);
	world_ms(3500);
	assert_null(vm_at(1, 1));
	assert_non_null(vm_at(1, 2));
	world->out_of_quorum[1] = false;
	world_goals();
	world_ms(6000);
	assert_settled();
	assert_int_equal(dom(1)->restart_failures, 0); /* not the guest's fault */
	world_end();
}

static void test_the_countdown_stands_still_without_a_clusterd(void **state)
{
	world_new(2, 8);
	world_domain(1, "host1");
	world->out_of_quorum[1] = true;
	world_ms(5000);
	agent_connected(&world->s, &world->s.host[1], false);
	world_ms(40000);
	assert_non_null(vm_at(1, 1));
	agent_connected(&world->s, &world->s.host[1], true);
	world_ms(10000);
	assert_non_null(vm_at(1, 1));
	world_ms(7000);
	assert_null(vm_at(1, 1));
	world_end();
}

/* ---- migrations ---- */

static void test_a_migration_is_committed(void **state)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		world_new(2, seed);
		world_domain(1, "host1");
		migrate();
		assert_true(world_wait(is_over, 40000));
		world_ms(2000);
		assert_int_equal(model_job(&world->f.m, job_id)->state, GANTRY__JOB_STATE__JOB_STATE_DONE);
		assert_null(vm_at(1, 1));
		assert_runs(1, 2);
		assert_null(side(1));
		assert_null(side(2));
		world_end();
	}
}

static void test_an_abort_at_any_stage_leaves_the_guest_where_it_was(void **state)
{
	bool (*const stages[])(void) = {is_greeting, is_reserving, is_copying, is_handing_over, is_switching, is_verifying, both_complete};

	for (size_t i = 0; i < sizeof(stages) / sizeof(*stages); i++) {
		uint64_t serial;

		world_new(2, 30 + i);
		world_domain(1, "host1");
		serial = vm_at(1, 1)->q.serial;
		world->holds_commit = true;
		migrate();
		assert_true(world_wait(stages[i], 40000));
		abort_now();
		world_ms(8000);
		assert_null(vm_at(2, 1));
		assert_runs(1, 1);
		assert_int_equal(vm_at(1, 1)->q.serial, serial);
		world_end();
	}
}

static void test_a_paused_guest_migrates_paused(void **state)
{
	world_new(2, 9);
	world_domain(1, "host1");
	world_do("{'domain_goal': {'domain': 'vm1', 'goal': 'paused'}}");
	world_ms(1000);
	migrate();
	assert_true(world_wait(is_over, 40000));
	world_ms(2000);
	assert_null(vm_at(1, 1));
	assert_int_equal(vm_at(2, 1)->q.phase, QEMU_PAUSED);
	assert_settled();
	world_do("{'domain_goal': {'domain': 'vm1', 'goal': 'running'}}");
	world_ms(3000);
	assert_runs(1, 2);
	world_end();
}

enum victim { SOURCE_AGENT, DESTINATION_AGENT, SOURCE_QEMU, DESTINATION_QEMU, SOURCE_HOST, DESTINATION_HOST, NETWORK, STORE, VICTIMS };

static void crash_vm(unsigned host)
{
	struct sim_vm *vm = vm_at(host, 1);

	if (vm)
		vm_kill(&world->s, vm);
}

static void host_is_dead(unsigned host)
{
	world_do("{'host_state': {'name': 'host%u', 'state': 'lost', 'incarnation': 1, 'reason': 'gone'}}", host);
	/* As the manager does. */
	if (!is_over() && !is_committed())
		abort_now();
	world_do("{'host_state': {'name': 'host%u', 'state': 'fencing', 'incarnation': 1}}", host);
	world_do("{'host_state': {'name': 'host%u', 'state': 'dead', 'incarnation': 1, 'proof': 'off'}}", host);
}

static void strike(enum victim v)
{
	struct sim *s = &world->s;
	unsigned host = v % 2 ? 2 : 1;

	switch (v) {
	case SOURCE_AGENT:
	case DESTINATION_AGENT:
		agent_stop(s, &s->host[host]);
		world_ms(500);
		agent_start(s, &s->host[host]);
		agent_connected(s, &s->host[host], true);
		world_goals();
		return;
	case SOURCE_QEMU:
	case DESTINATION_QEMU:
		crash_vm(host);
		return;
	case SOURCE_HOST:
	case DESTINATION_HOST:
		host_power_off(s, &s->host[host], "the test");
		world->out_of_quorum[host] = true;
		host_is_dead(host);
		return;
	case NETWORK:
		world->cut[1][2] = true;
		world_ms(12000);
		world->cut[1][2] = false;
		return;
	case STORE:
		world->cut[1][0] = true;
		world_ms(3000);
		world->cut[1][0] = false;
		return;
	default:
		return;
	}
}

/* Whoever dies at whichever stage: in the end the guest runs once, or was started again, and nothing is left over. */
static void test_whoever_dies_in_whichever_stage(void **state)
{
	bool (*const stages[])(void) = {is_greeting, is_reserving, is_copying, is_handing_over, is_switching, is_verifying, is_held, is_committed, is_activating};

	for (size_t i = 0; i < sizeof(stages) / sizeof(*stages); i++) {
		for (enum victim v = 0; v < VICTIMS; v++) {
			world_new(3, 100 + i * VICTIMS + v);
			world_domain(1, "host1");
			world->holds_commit = i >= 6;
			migrate();
			if (i >= 7) {
				assert_true(world_wait(is_held, 60000));
				commit_held();
			}
			assert_true(world_wait(stages[i], 60000));
			strike(v);
			if (world->held && v % 2 && !is_over())
				commit_held();
			world->holds_commit = false;
			if (!world_wait(is_over, 200000))
				fail_msg("stage %zu, victim %d: the task is not over: source %d destination %d", i, v, side(1) ? (int)side(1)->state : -1,
					 side(2) ? (int)side(2)->state : -1);
			world_ms(45000);
			if (world->r.violation[0] || strcmp(dom(1)->host, "") == 0)
				print_message("stage %zu, victim %d\n", i, v);
			assert_settled();
			assert_string_not_equal(dom(1)->host, "");
			world_end();
		}
	}
}

static void test_a_source_that_qemu_resumes_is_stopped_again(void **state)
{
	unsigned seen = 0;

	for (uint64_t seed = 1; seed <= 150; seed++) {
		world_new(2, seed);
		world_domain(1, "host1");
		world->s.quiet = false;
		migrate();
		world_wait(is_over, 60000);
		world->s.quiet = true;
		world_ms(10000);
		seen += model_job(&world->f.m, job_id)->state == GANTRY__JOB_STATE__JOB_STATE_FAILED;
		assert_settled();
		world_end();
	}
	assert_true(seen > 0);
}

/* ---- fences ---- */

static void fence_and_wait(unsigned target)
{
	fence_run(&world->s, &world->s.host[2], world->s.host[target].name, false);
	world_ms(45000);
}

static void test_fences(void **state)
{
	struct sim_host *t;

	world_new(3, 10);
	t = &world->s.host[1];
	world_domain(1, "host1");
	fence_set_mood(&world->s, t, FENCE_FAILS);
	fence_and_wait(1);
	assert_int_equal(world->fences_answered, 1);
	assert_true(world->fence_rc < 0 && t->powered);
	fence_set_mood(&world->s, t, FENCE_WORKS);
	world->cut[2][0] = true; /* the controllers are out of reach */
	fence_and_wait(1);
	assert_true(world->fence_rc < 0 && t->powered);
	world->cut[2][0] = false;
	fence_run(&world->s, &world->s.host[2], "host1", false);
	world_ms(1000);
	assert_int_equal(world->fence_rc, 0);
	assert_null(vm_at(1, 1));
	assert_false(t->powered);
	world_ms(61000);
	assert_true(t->powered);
	fence_set_mood(&world->s, t, FENCE_LIES);
	fence_and_wait(1);
	assert_true(world->fence_rc == 0 && t->powered && t->lied_about);
	assert_well();
	world_end();
}

static void test_a_failover_with_proof(void **state)
{
	world_new(3, 11);
	world_domain(1, "host1");
	job_id = 0;
	world->out_of_quorum[1] = true;
	fence_run(&world->s, &world->s.host[2], "host1", false);
	world_ms(1000);
	world_do("{'host_state': {'name': 'host1', 'state': 'lost', 'incarnation': 1, 'reason': 'gone'}}");
	world_do("{'host_state': {'name': 'host1', 'state': 'fencing', 'incarnation': 1}}");
	world_do("{'host_state': {'name': 'host1', 'state': 'dead', 'incarnation': 1, 'proof': 'off'}}");
	world_ms(5000);
	assert_runs(1, 2);
	world_end();
}

/* ---- the checkers see what is wrong ---- */

static void expect_violation(const char *invariant)
{
	if (strncmp(world->r.violation, invariant, strlen(invariant)) != 0)
		fail_msg("expected %s, got '%s'", invariant, world->r.violation);
	world_end();
}

static void declare_dead_without_proof(void)
{
	world->out_of_quorum[1] = true;
	world_do("{'host_state': {'name': 'host1', 'state': 'lost', 'incarnation': 1, 'reason': 'gone'}}");
	world_do("{'host_state': {'name': 'host1', 'state': 'fencing', 'incarnation': 1}}");
	world_do("{'host_state': {'name': 'host1', 'state': 'dead', 'incarnation': 1, 'proof': 'a lie'}}");
	world_ms(5000);
}

static void test_checkers_see_a_start_without_proof(void **state)
{
	world_new(3, 12);
	world_domain(1, "host1");
	world->s.host[1].frozen = true; /* and would go on at its thaw */
	declare_dead_without_proof();
	expect_violation("no-proof");
	/* If a fence device lied, the platform is not to blame. */
	world_new(3, 12);
	world_domain(1, "host1");
	world->s.host[1].lied_about = true;
	declare_dead_without_proof();
	assert_well();
	assert_non_null(vm_at(2, 1));
	world_end();
}

static void test_checkers_see_a_commit_to_nothing(void **state)
{
	world_new(2, 13);
	world_domain(1, "host1");
	migrate();
	assert_true(world_wait(is_copying, 20000));
	world_do("{'migrate_commit': {'job_id': %llu, 'generation': 2}}", (unsigned long long)job_id);
	expect_violation("migration-lost");
}

static void test_checkers_see_older_goals_obeyed(void **state)
{
	Gantry__AgentGoals *old;

	world_new(2, 14);
	old = model_goals(&world->f.m, "host1", 1, 3);
	world_domain(1, "host1");
	world->s.host[1].agent->index = 0; /* it forgets */
	agent_take_goals(&world->s, &world->s.host[1], old);
	gantry__agent_goals__free_unpacked(old, NULL);
	expect_violation("stale-generation");
}

static void test_checkers_see_bad_fences(void **state)
{
	world_new(3, 15);
	world->s.host[1].healthy_us = 1;
	world_ms(20000);
	fence_and_wait(1);
	expect_violation("healthy-fenced");
	world_new(3, 16);
	fence_run(&world->s, &world->s.host[2], "host1", false);
	fence_run(&world->s, &world->s.host[2], "host3", false);
	world_ms(1000);
	expect_violation("fence-storm");
}

static void test_checkers_see_a_guest_that_is_missing(void **state)
{
	world_new(2, 17);
	world_domain(1, "host1");
	agent_stop(&world->s, &world->s.host[1]);
	qemu_fault_crash(&world->s);
	check_domains_settled(&world->s, world->f.m.state);
	expect_violation("liveness");
}

static void test_checkers_see_a_self_fence_that_does_not_come(void **state)
{
	world_new(2, 18);
	world_domain(1, "host1");
	world->out_of_quorum[1] = true;
	for (int i = 0; i < 60 && !world->r.violation[0]; i++) {
		world->s.host[1].agent->selffence.last_quorate_ms = sim_clock_ms(&world->s, &world->s.host[1]);
		world_ms(500);
	}
	expect_violation("self-fence");
}

static uint64_t hash_of(uint64_t seed)
{
	uint64_t hash;

	world_new(2, seed);
	world_domain(1, "host1");
	migrate();
	world_ms(30000);
	hash = world->r.hash;
	world_end();
	return hash;
}

static void test_a_seed_gives_the_same_run(void **state)
{
	assert_int_equal(hash_of(5), hash_of(5));
	assert_int_not_equal(hash_of(5), hash_of(6));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_starts_pauses_stops),
		cmocka_unit_test(test_ends_are_told),
		cmocka_unit_test(test_a_start_that_fails_goes_elsewhere),
		cmocka_unit_test(test_a_qemu_that_hangs_is_killed_by_a_destroy),
		cmocka_unit_test(test_an_agent_restart_touches_nothing),
		cmocka_unit_test(test_older_goals_are_refused_after_a_restart_too),
		cmocka_unit_test(test_lost_quorum_ends_ha_domains_and_no_others),
		cmocka_unit_test(test_the_countdown_stands_still_without_a_clusterd),
		cmocka_unit_test(test_a_migration_is_committed),
		cmocka_unit_test(test_an_abort_at_any_stage_leaves_the_guest_where_it_was),
		cmocka_unit_test(test_a_paused_guest_migrates_paused),
		cmocka_unit_test(test_whoever_dies_in_whichever_stage),
		cmocka_unit_test(test_a_source_that_qemu_resumes_is_stopped_again),
		cmocka_unit_test(test_fences),
		cmocka_unit_test(test_a_failover_with_proof),
		cmocka_unit_test(test_checkers_see_a_start_without_proof),
		cmocka_unit_test(test_checkers_see_a_commit_to_nothing),
		cmocka_unit_test(test_checkers_see_older_goals_obeyed),
		cmocka_unit_test(test_checkers_see_bad_fences),
		cmocka_unit_test(test_checkers_see_a_guest_that_is_missing),
		cmocka_unit_test(test_checkers_see_a_self_fence_that_does_not_come),
		cmocka_unit_test(test_a_seed_gives_the_same_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
