/* What users set for HA, what their agents are told of it, and what would happen if. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "clusterd/core/whatif.h"
#include "tests/unit/model_fixture.h"

#define UUID(n) "00000000-0000-4000-8000-00000000000" #n
#define GIB (1ull << 30)

static int apply(struct fixture *f, const char *text)
{
	json_t *json = fixture_json(text);
	int status = fixture_apply_json(f, json);

	json_decref(json);
	return status;
}

static void refused(struct fixture *f, int status, const char *words, const char *text)
{
	assert_int_equal(apply(f, text), status);
	if (!strstr(f->result->text, words))
		fail_msg("'%s' is not in: %s", words, f->result->text);
}

static void add_host(struct fixture *f, unsigned id, const char *name, const char *fence)
{
	char text[512];

	snprintf(text, sizeof(text), id == 1 ? "{\"cluster_init\":{\"name\":\"test\",\"uuid\":\"11111111-2222-4333-8444-555555555555\","
					       "\"host\":{\"node_id\":%u,\"name\":\"%s\",\"address\":\"10.79.0.%u\"}}}"
					     : "{\"host_add\":{\"host\":{\"node_id\":%u,\"name\":\"%s\",\"address\":\"10.79.0.%u\"}}}", id, name, id);
	assert_int_equal(apply(f, text), 0);
	snprintf(text, sizeof(text), "{\"host_state\":{\"name\":\"%s\",\"state\":\"online\",\"incarnation\":1}}", name);
	assert_int_equal(apply(f, text), 0);
	snprintf(text, sizeof(text), "{\"host_info\":{\"host\":{\"name\":\"%s\",\"memory_bytes\":8589934592,\"cpus\":4,\"accel\":\"tcg\",\"agent_connected\":true}}}",
		 name);
	assert_int_equal(apply(f, text), 0);
	snprintf(text, sizeof(text), "{\"fence_set\":{\"host\":\"%s\",\"devices\":[%s]}}", name, fence);
	assert_int_equal(apply(f, text), 0);
}

static void add_domain(struct fixture *f, unsigned n, const char *name, unsigned gib, const char *host, bool no_ha)
{
	char text[512];

	snprintf(text, sizeof(text), "{\"domain_create\":{\"spec\":{\"name\":\"%s\",\"uuid\":\"00000000-0000-4000-8000-00000000000%u\",\"memory_bytes\":%llu,\"vcpus\":1},"
		 "\"start\":true,\"host\":\"%s\",\"no_ha\":%s}}", name, n, gib * GIB, host, no_ha ? "true" : "false");
	assert_int_equal(apply(f, text), 0);
	snprintf(text, sizeof(text), "{\"domain_place\":{\"uuid\":\"00000000-0000-4000-8000-00000000000%u\",\"host\":\"%s\",\"generation\":1}}", n, host);
	assert_int_equal(apply(f, text), 0);
	snprintf(text, sizeof(text), "{\"domain_report\":{\"uuid\":\"00000000-0000-4000-8000-00000000000%u\",\"host\":\"%s\",\"generation\":1,\"state\":\"running\"}}", n, host);
	assert_int_equal(apply(f, text), 0);
}

static void three(struct fixture *f)
{
	fixture_start(f);
	add_host(f, 1, "hostA", "{\"agent\":\"fence_lab\",\"level\":1}");
	add_host(f, 2, "hostB", "{\"agent\":\"fence_lab\",\"level\":1}");
	add_host(f, 3, "hostC", "");
}

/* ---- policies ------------------------------------------------------------------ */

static void test_a_bad_policy_is_refused_with_its_reason(void **state)
{
	struct fixture f;

	three(&f);
	add_domain(&f, 1, "web1", 1, "hostA", false);
	refused(&f, GANTRY__STATUS__STATUS_NO_SUCH, "no domain 'web9'", "{\"ha_set\":{\"domain\":\"web9\",\"policy\":{}}}");
	refused(&f, GANTRY__STATUS__STATUS_BAD_DATA, "priority 256", "{\"ha_set\":{\"domain\":\"web1\",\"policy\":{\"priority\":256}}}");
	refused(&f, GANTRY__STATUS__STATUS_BAD_DATA, "order", "{\"ha_set\":{\"domain\":\"web1\",\"policy\":{\"order\":1001}}}");
	refused(&f, GANTRY__STATUS__STATUS_BAD_DATA, "restarts", "{\"ha_set\":{\"domain\":\"web1\",\"policy\":{\"restarts\":101}}}");
	refused(&f, GANTRY__STATUS__STATUS_BAD_DATA, "at most 86400", "{\"ha_set\":{\"domain\":\"web1\",\"policy\":{\"delay_s\":86401}}}");
	refused(&f, GANTRY__STATUS__STATUS_BAD_DATA, "hung after 15 s", "{\"ha_set\":{\"domain\":\"web1\",\"policy\":{\"hung_s\":14}}}");
	refused(&f, GANTRY__STATUS__STATUS_BAD_DATA, "address", "{\"ha_set\":{\"domain\":\"web1\",\"policy\":{\"ready_by\":\"port\",\"ready_port\":80}}}");
	refused(&f, GANTRY__STATUS__STATUS_BAD_DATA, "1 to 65535",
		"{\"ha_set\":{\"domain\":\"web1\",\"policy\":{\"ready_by\":\"port\",\"ready_port\":65536,\"ready_address\":\"10.80.0.1\"}}}");
	/* It writes nothing that is leased. */
	refused(&f, GANTRY__STATUS__STATUS_CONSTRAINT, "lease", "{\"ha_set\":{\"domain\":\"web1\",\"policy\":{\"isolation\":\"leave\"}}}");
	assert_int_equal(model_domain(&f.m, "web1")->policy->priority, 100);
	assert_int_equal(apply(&f, "{\"ha_set\":{\"domain\":\"web1\",\"policy\":{\"priority\":7,\"order\":2}}}"), 0);
	assert_int_equal(model_domain(&f.m, "web1")->policy->priority, 7);
	fixture_end(&f);
}

static void test_disarming_needs_an_end(void **state)
{
	struct fixture f;

	three(&f);
	refused(&f, GANTRY__STATUS__STATUS_BAD_DATA, "at most 24 hours", "{\"ha_arm\":{\"armed\":false}}");
	refused(&f, GANTRY__STATUS__STATUS_BAD_DATA, "at most 24 hours", "{\"ha_arm\":{\"armed\":false,\"for_ms\":864000000}}");
	refused(&f, GANTRY__STATUS__STATUS_BAD_DATA, "1 to 100", "{\"cluster_set\":{}}");
	refused(&f, GANTRY__STATUS__STATUS_BAD_DATA, "1 to 100", "{\"cluster_set\":{\"fence_share_percent\":101}}");
	assert_int_equal(apply(&f, "{\"cluster_set\":{\"fence_share_percent\":100}}"), 0);
	fixture_end(&f);
}

static const Gantry__DomainGoal *goal_of(const Gantry__AgentGoals *goals, const char *uuid)
{
	for (size_t i = 0; i < goals->n_domains; i++)
		if (!strcmp(goals->domains[i]->spec->uuid, uuid))
			return goals->domains[i];
	return NULL;
}

static void test_agents_are_told_of_evictions_and_of_disarming(void **state)
{
	Gantry__AgentGoals *goals;
	uint64_t life;
	struct fixture f;

	three(&f);
	add_domain(&f, 1, "web1", 1, "hostA", false);
	goals = model_goals(&f.m, "hostA", 1, 1);
	assert_true(goal_of(goals, UUID(1))->ha);
	assert_int_equal(goal_of(goals, UUID(1))->policy->priority, 100);
	life = goals->life;
	gantry__agent_goals__free_unpacked(goals, NULL);

	assert_int_equal(apply(&f, "{\"ha_arm\":{\"armed\":false,\"for_ms\":600000}}"), 0);
	goals = model_goals(&f.m, "hostA", 1, 1);
	assert_true(goals->disarmed && !goal_of(goals, UUID(1))->ha);
	gantry__agent_goals__free_unpacked(goals, NULL);

	assert_int_equal(apply(&f, "{\"ha_arm\":{\"armed\":true}}"), 0);
	assert_true(model_host(&f.m, "hostA")->unguarded);
	goals = model_goals(&f.m, "hostA", 1, 1);
	assert_true(goal_of(goals, UUID(1))->ha && goals->life > life);
	gantry__agent_goals__free_unpacked(goals, NULL);

	refused(&f, GANTRY__STATUS__STATUS_RETRY, "not to be ended", "{\"domain_evict\":{\"uuid\":\"" UUID(1) "\",\"host\":\"hostB\",\"generation\":1,\"reason\":\"x\"}}");
	assert_int_equal(apply(&f, "{\"domain_evict\":{\"uuid\":\"" UUID(1) "\",\"host\":\"hostA\",\"generation\":1,\"reason\":\"x\"}}"), 0);
	goals = model_goals(&f.m, "hostA", 1, 1);
	assert_int_equal(goal_of(goals, UUID(1))->goal, GANTRY__DOMAIN_GOAL_STATE__DOMAIN_GOAL_STOPPED);
	assert_string_equal(goal_of(goals, UUID(1))->stop_how, "destroy");
	gantry__agent_goals__free_unpacked(goals, NULL);
	/* The user's own wish goes before. */
	assert_int_equal(apply(&f, "{\"domain_goal\":{\"domain\":\"web1\",\"goal\":\"stopped\",\"how\":\"shutdown\"}}"), 0);
	assert_int_equal(apply(&f, "{\"domain_report\":{\"uuid\":\"" UUID(1) "\",\"host\":\"hostA\",\"generation\":1,\"state\":\"stopped\"}}"), 0);
	assert_int_equal(model_domain(&f.m, "web1")->state, GANTRY__DOMAIN_STATE__DOMAIN_STATE_STOPPED);
	fixture_end(&f);
}

/* ---- what if --------------------------------------------------------------------- */

static const Gantry__PlanMove *move_of(const Gantry__CtlPlan *plan, const char *domain)
{
	for (size_t i = 0; i < plan->n_moves; i++)
		if (!strcmp(plan->moves[i]->domain, domain))
			return plan->moves[i];
	return NULL;
}

static void test_what_if_shows_moves_and_changes_nothing(void **state)
{
	char *one[] = {(char *)"hostA"}, *two[] = {(char *)"hostA", (char *)"hostC"}, *nobody[] = {(char *)"hostX"};
	struct buf before = {0}, after = {0};
	struct err err = {0};
	Gantry__CtlPlan *plan;
	struct fixture f;

	three(&f);
	add_domain(&f, 1, "big", 5, "hostA", false);
	add_domain(&f, 2, "fill", 4, "hostB", false);
	add_domain(&f, 3, "cheap", 4, "hostC", false);
	add_domain(&f, 4, "alone", 1, "hostA", true);
	assert_int_equal(apply(&f, "{\"ha_set\":{\"domain\":\"cheap\",\"policy\":{\"priority\":5,\"gives_way\":true,\"restarts\":3,\"ready_s\":120}}}"), 0);
	model_snapshot(&f.m, &before);

	assert_int_equal(whatif_fail(&f.m, one, 1, &plan, &err), 0);
	assert_true(plan->quorate);
	assert_int_equal(plan->n_notes, 0);
	assert_string_equal(move_of(plan, "big")->to, "hostC");
	assert_non_null(strstr(move_of(plan, "big")->reason, "room"));
	assert_string_equal(move_of(plan, "cheap")->from, "hostC"); /* gives way, and fits beside fill */
	assert_string_equal(move_of(plan, "cheap")->to, "hostB");
	assert_string_equal(move_of(plan, "alone")->to, "");
	assert_non_null(strstr(move_of(plan, "alone")->reason, "not HA"));
	assert_null(move_of(plan, "fill"));
	gantry__ctl_plan__free_unpacked(plan, NULL);

	assert_int_equal(whatif_fail(&f.m, two, 2, &plan, &err), 0);
	assert_false(plan->quorate);
	assert_non_null(strstr(plan->quorum_text, "1 of 3"));
	assert_int_equal(plan->n_notes, 2); /* no fence device; too many at once */
	assert_string_equal(move_of(plan, "big")->to, "");
	gantry__ctl_plan__free_unpacked(plan, NULL);

	assert_true(whatif_fail(&f.m, nobody, 1, &plan, &err) < 0);
	assert_non_null(strstr(err.text, "hostX"));
	model_snapshot(&f.m, &after);
	assert_int_equal(before.len, after.len);
	assert_memory_equal(before.data, after.data, after.len);
	buf_free(&before);
	buf_free(&after);
	fixture_end(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_bad_policy_is_refused_with_its_reason),
		cmocka_unit_test(test_disarming_needs_an_end),
		cmocka_unit_test(test_agents_are_told_of_evictions_and_of_disarming),
		cmocka_unit_test(test_what_if_shows_moves_and_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
