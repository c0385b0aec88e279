/* The model's frame: order, exactly-once, versions, snapshots, voters, limits. What commands do is told in scenarios/. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/cleanup.h"
#include "lib/limits.h"
#include "tests/unit/model_fixture.h"

static int setup(void **state)
{
	struct fixture *f = mem_alloc(sizeof(*f));

	fixture_start(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	fixture_end(*state);
	free(*state);
	return 0;
}

static void test_nothing_before_the_cluster(void **state)
{
	fixture_refused(*state, 105, "no cluster yet", "{'domain_start': {'domain': 'web1'}}");
	fixture_refused(*state, 65, "node id", "{'cluster_init': {'name': 'x', 'uuid': 'u', 'host': {'name': 'hostA'}}}");
	fixture_refused(*state, 65, "needs a name", "{'cluster_init': {'name': '', 'uuid': 'u', 'host': {'name': 'hostA'}}}");
}

static void test_older_epoch_is_refused(void **state)
{
	struct fixture *f = *state;

	fixture_three_hosts(f);
	f->epoch = 7;
	fixture_refused(f, 75, "decided in epoch 6", "{'epoch': 6, 'host_state': {'name': 'hostB', 'state': 'lost', 'incarnation': 1}}");
	fixture_ok(f, "{'epoch': 7, 'host_state': {'name': 'hostB', 'state': 'lost', 'incarnation': 1, 'reason': 'gone'}}");
	assert_int_equal(f->m.state->applied_epoch, 7);
}

static void test_a_decision_about_an_earlier_life(void **state)
{
	struct fixture *f = *state;

	fixture_three_hosts(f);
	fixture_refused(f, 75, "incarnation 0", "{'host_state': {'name': 'hostB', 'state': 'lost'}}");
	fixture_refused(f, 75, "cannot become", "{'host_state': {'name': 'hostB', 'state': 'dead', 'incarnation': 1, 'proof': 'x'}}");
	fixture_ok(f, "{'host_state': {'name': 'hostB', 'state': 'lost', 'incarnation': 1}}");
	fixture_refused(f, 75, "cannot become", "{'host_state': {'name': 'hostB', 'state': 'dead', 'incarnation': 1, 'proof': 'x'}}");
	fixture_ok(f, "{'host_state': {'name': 'hostB', 'state': 'fencing', 'incarnation': 1}}");
	fixture_refused(f, 65, "without a proof", "{'host_state': {'name': 'hostB', 'state': 'dead', 'incarnation': 1}}");
	fixture_ok(f, "{'host_state': {'name': 'hostB', 'state': 'online', 'incarnation': 2}}");
	fixture_refused(f, 75, "cannot become", "{'host_state': {'name': 'hostB', 'state': 'dead', 'incarnation': 1, 'proof': 'too late'}}");
}

static void test_a_request_is_done_once(void **state)
{
	struct fixture *f = *state;
	Gantry__CommandResult *first;

	fixture_three_hosts(f);
	fixture_ok(f, "{'client': 'c1', 'seq': 4, 'pool_add': {'pool': {'name': 'p', 'type': 'dir', 'target': '/p'}}}");
	first = pb_clone(f->result);
	/* The second time it would be refused as taken. */
	fixture_ok(f, "{'client': 'c1', 'seq': 4, 'pool_add': {'pool': {'name': 'p', 'type': 'dir', 'target': '/p'}}}");
	assert_true(pb_equal(first, f->result));
	assert_int_equal(f->m.state->n_pools, 1);
	fixture_refused(f, 108, "exists", "{'pool_add': {'pool': {'name': 'p', 'type': 'dir', 'target': '/p'}}}");
	gantry__command_result__free_unpacked(first, NULL);
}

static void note_of(struct fixture *f, const char *client, int seq)
{
	char *text = str_printf("{'client': '%s', 'seq': %d, 'event_note': {'severity': 'info', 'subject': 'host x', 'kind': 'note'}}", client, seq);

	fixture_ok(f, text);
	free(text);
}

/* A repeat makes none. */
static bool makes_an_event(struct fixture *f, const char *client, int seq)
{
	uint64_t before = f->m.state->next_event_id;

	note_of(f, client, seq);
	return f->m.state->next_event_id > before;
}

/* What an earlier one left behind fills the memory: a client that asks for several things at once keeps them all. */
static void test_what_others_left_behind_goes_before_ones_own_requests(void **state)
{
	struct fixture *f = *state;

	fixture_three_hosts(f);
	for (int i = 1; i <= 2 * LIMIT_REQUESTS_KEPT; i++)
		note_of(f, "earlier", i);
	for (int i = 1; i <= LIMIT_REQUESTS_KEPT / 2; i++)
		note_of(f, "now", i);
	for (int i = 1; i <= LIMIT_REQUESTS_KEPT / 2; i++)
		assert_false(makes_an_event(f, "now", i));
	assert_false(makes_an_event(f, "earlier", 2 * LIMIT_REQUESTS_KEPT));
	assert_int_equal(f->m.state->n_requests, LIMIT_REQUESTS_KEPT);
}

static void test_busy_clients_do_not_push_out_the_request_of_a_slow_one(void **state)
{
	struct fixture *f = *state;
	struct buf packed = {0};
	struct err err = {0};

	fixture_three_hosts(f);
	note_of(f, "slow", 1);
	for (int i = 1; i <= 3 * LIMIT_REQUESTS_KEPT; i++) {
		char name[16];

		snprintf(name, sizeof(name), "busy%d", i % 8);
		note_of(f, name, i);
	}
	assert_int_equal(f->m.state->n_requests, LIMIT_REQUESTS_KEPT);
	/* A new client takes none of the only ones either. */
	note_of(f, "another", 1);
	/* The same after a snapshot, where the index is made anew. */
	model_snapshot(&f->m, &packed);
	assert_int_equal(model_install(&f->m, packed.data, packed.len, &err), 0);
	buf_free(&packed);
	note_of(f, "a third", 1);
	assert_int_equal(f->m.state->n_requests, LIMIT_REQUESTS_KEPT);
	assert_false(makes_an_event(f, "slow", 1));
	assert_false(makes_an_event(f, "another", 1));
	assert_false(makes_an_event(f, "a third", 1));
	assert_false(makes_an_event(f, "busy1", 3 * LIMIT_REQUESTS_KEPT - 7));
	assert_true(makes_an_event(f, "busy1", 1));
	/* Of more clients than that the oldest go. */
	for (int i = 0; i < LIMIT_REQUESTS_KEPT; i++) {
		char name[16];

		snprintf(name, sizeof(name), "one%d", i);
		note_of(f, name, 1);
	}
	assert_false(makes_an_event(f, "one0", 1));
	assert_true(makes_an_event(f, "slow", 1));
}

static Gantry__Command *command_of(const char *text)
{
	char *copy = str_dup(text);
	Gantry__Command *c;
	json_t *json;

	for (char *p = copy; *p; p++)
		if (*p == '\'')
			*p = '"';
	json = fixture_json(copy);
	c = fixture_message(json, &gantry__command__descriptor);
	json_decref(json);
	free(copy);
	return c;
}

static void test_only_membership_commands_name_voters(void **state)
{
	static const struct { const char *json; bool names; } table[] = {
		{"{'client': 'a', 'seq': 1, 'host_add': {'host': {'name': 'hostD', 'node_id': 4, 'address': '10.0.0.4'}}}", true},
		{"{'host_remove': {'name': 'hostC', 'node_id': 3}}", true},
		{"{'host_remove': {'name': 'hostX', 'node_id': 9}}", false},
		{"{'cluster_init': {'name': 'x', 'host': {'name': 'hostA', 'node_id': 1}}}", false},
		{"{'client': 'a', 'seq': 300, 'time_ms': 1700000000000, 'event_note': {'kind': 'k', 'text': 'host_add'}}", false},
		{"{'pool_add': {'pool': {'name': 'p', 'type': 'dir', 'target': '/p'}}}", false},
	};
	static const uint32_t old[] = {1, 2, 3};
	static const char damaged[] = "bÿÿÿÿ";   /* a host_add longer than what there is */

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		Gantry__Command *c = command_of(table[i].json);
		struct buf packed = {0};
		uint32_t *voters = NULL;
		size_t n = 0;

		pb_pack(c, &packed);
		assert_int_equal(model_voters_of(packed.data, packed.len, old, 3, &voters, &n), table[i].names);
		for (size_t cut = 0; cut < packed.len; cut++) {
			uint8_t *part = mem_dup(packed.data, cut + 1);
			uint32_t *ids = NULL;

			model_voters_of(part, cut, old, 3, &ids, &n);
			free(ids);
			free(part);
		}
		free(voters);
		buf_free(&packed);
		gantry__command__free_unpacked(c, NULL);
	}
	assert_false(model_voters_of((const uint8_t *)damaged, sizeof(damaged) - 1, old, 3, NULL, NULL));
}

static void apply_raw(struct fixture *f, const void *data, size_t len, int rc)
{
	Gantry__CommandResult *result = NULL;
	struct buf before = {0}, after = {0};
	struct err err = {0};

	model_snapshot(&f->m, &before);
	assert_int_equal(model_apply(&f->m, f->index + 1, f->epoch, data, len, &result, &err), rc);
	if (rc) {
		assert_null(result);
		assert_non_null(strstr(err.text, "upgrade"));
		model_snapshot(&f->m, &after);
		assert_int_equal(before.len, after.len);
		assert_memory_equal(before.data, after.data, before.len);
		buf_free(&after);
	} else {
		f->index++;
		assert_int_equal(result->status, GANTRY__STATUS__STATUS_BAD_DATA);
		gantry__command_result__free_unpacked(result, NULL);
	}
	buf_free(&before);
}

static void test_newer_commands_stop_this_program(void **state)
{
	struct fixture *f = *state;
	Gantry__Command c = GANTRY__COMMAND__INIT;
	Gantry__CmdEpochStart start = GANTRY__CMD_EPOCH_START__INIT;
	/* version 1, and a body of number 99 that no version knows yet */
	static const uint8_t unknown_body[] = {0x08, 0x01, 0x9a, 0x06, 0x02, 0x08, 0x01};
	struct buf packed = {0};

	fixture_three_hosts(f);
	c.version = MODEL_COMMAND_VERSION + 1;
	c.body_case = GANTRY__COMMAND__BODY_EPOCH_START;
	c.epoch_start = &start;
	pb_pack(&c, &packed);
	apply_raw(f, packed.data, packed.len, -ENOTSUP);
	apply_raw(f, unknown_body, sizeof(unknown_body), -ENOTSUP);
	/* What nobody can read, and what says nothing, is a refusal: the same on every host. */
	apply_raw(f, "\xff\xff\xff", 3, 0);
	apply_raw(f, "\x08\x01", 2, 0);
	buf_free(&packed);
}

static void test_a_newer_snapshot_is_not_installed(void **state)
{
	struct fixture *f = *state;
	struct model other;
	struct buf packed = {0};
	struct err err = {0};

	fixture_three_hosts(f);
	f->m.state->format = MODEL_FORMAT + 1;
	model_snapshot(&f->m, &packed);
	f->m.state->format = MODEL_FORMAT;
	model_init(&other);
	assert_int_equal(model_install(&other, packed.data, packed.len, &err), -ENOTSUP);
	assert_int_equal(other.state->n_hosts, 0);
	assert_int_equal(model_install(&other, (const uint8_t *)"\xff\xff", 2, &err), -EBADMSG);
	model_free(&other);
	buf_free(&packed);
}

/* ---- voters -------------------------------------------------------------------- */

static void voters_after(struct fixture *f, const char *text, const uint32_t *old, size_t n_old, const char *expected)
{
	char *copy = str_dup(text), got[64] = "unchanged";
	struct buf packed = {0};
	uint32_t *voters = NULL;
	size_t n = 0, at = 0;
	json_t *json;
	Gantry__Command *c;

	for (char *p = copy; *p; p++)
		if (*p == '\'')
			*p = '"';
	json = fixture_json(copy);
	c = fixture_message(json, &gantry__command__descriptor);
	pb_pack(c, &packed);
	if (model_voters_of(packed.data, packed.len, old, n_old, &voters, &n))
		for (size_t i = 0; i < n; i++)
			at += (size_t)snprintf(got + at, sizeof(got) - at, "%s%u", i ? " " : "", voters[i]);
	assert_string_equal(got, expected);
	free(voters);
	buf_free(&packed);
	gantry__command__free_unpacked(c, NULL);
	json_decref(json);
	free(copy);
}

static void test_voters(void **state)
{
	static const uint32_t two[] = {2, 5}, one[] = {2};
	struct fixture *f = *state;

	voters_after(f, "{'cluster_init': {'name': 'x', 'uuid': 'u', 'host': {'node_id': 9}}}", NULL, 0, "9");
	voters_after(f, "{'cluster_init': {'name': 'x', 'uuid': 'u', 'host': {'node_id': 9}}}", two, 2, "unchanged");
	voters_after(f, "{'host_add': {'host': {'node_id': 3}}}", two, 2, "2 3 5");
	voters_after(f, "{'host_add': {'host': {'node_id': 5}}}", two, 2, "unchanged");
	voters_after(f, "{'host_add': {'host': {'node_id': 5}}}", NULL, 0, "unchanged");
	voters_after(f, "{'host_admit': {'host': {'node_id': 3}}}", two, 2, "unchanged");
	voters_after(f, "{'host_remove': {'name': 'x', 'node_id': 5}}", two, 2, "2");
	voters_after(f, "{'host_remove': {'name': 'x', 'node_id': 2}}", one, 1, "unchanged");
	voters_after(f, "{'pool_remove': {'name': 'x'}}", two, 2, "unchanged");
}

/* The log has counted a removal by the time the model refuses it: both must name the same voters. */
static void test_voters_follow_the_log(void **state)
{
	struct fixture *f = *state;
	Gantry__Command c = GANTRY__COMMAND__INIT;
	Gantry__CmdHostRemove remove = GANTRY__CMD_HOST_REMOVE__INIT;
	struct err err = {0};

	fixture_three_hosts(f);
	assert_int_equal(f->m.state->n_voters, 3);
	fixture_ok(f, "{'domain_create': {'spec': {'name': 'web1', 'uuid': '00000000-0000-4000-8000-000000000001',"
		      " 'memory_bytes': 1048576, 'vcpus': 1}, 'start': true}}");
	fixture_ok(f, "{'domain_place': {'uuid': '00000000-0000-4000-8000-000000000001', 'host': 'hostC', 'generation': 1}}");
	c.version = MODEL_COMMAND_VERSION;
	c.body_case = GANTRY__COMMAND__BODY_HOST_REMOVE;
	c.host_remove = &remove;
	remove.name = "hostC";
	remove.node_id = 3;
	/* Who asks first is told, and nothing has happened. */
	assert_true(model_check(&f->m, &c, &err) < 0);
	assert_int_equal(err.status, 113);
	assert_non_null(strstr(err.text, "web1"));
	assert_int_equal(f->m.state->n_voters, 3);
	assert_int_equal(fixture_apply(f, &c), 113);
	assert_int_equal(f->m.state->n_voters, 2);
	assert_non_null(model_host(&f->m, "hostC"));
	/* And the leader heals it: a member that does not vote is added again. */
	fixture_ok(f, "{'host_add': {'host': {'node_id': 3, 'name': 'hostC', 'address': '10.79.0.3'}}}");
	assert_int_equal(f->m.state->n_voters, 3);
	assert_int_equal(f->m.state->n_hosts, 3);
}

/* ---- look-ups and limits ---------------------------------------------------------- */

static void test_look_ups(void **state)
{
	struct fixture *f = *state;
	uint64_t memory;
	uint32_t vcpus;

	fixture_three_hosts(f);
	fixture_ok(f, "{'domain_create': {'spec': {'name': '2', 'uuid': '00000000-0000-4000-8000-000000000001', 'memory_bytes': 1048576, 'vcpus': 2}}}");
	fixture_ok(f, "{'domain_create': {'spec': {'name': 'b', 'uuid': '00000000-0000-4000-8000-000000000002', 'memory_bytes': 1048576, 'vcpus': 3}, 'start': true}}");
	assert_int_equal(model_domain(&f->m, "1")->id, 1);
	/* A name counts more than an id. */
	assert_int_equal(model_domain(&f->m, "2")->id, 1);
	assert_int_equal(model_domain(&f->m, "00000000-0000-4000-8000-000000000002")->id, 2);
	assert_null(model_domain(&f->m, ""));
	assert_null(model_domain(&f->m, "1x"));
	assert_null(model_domain(&f->m, "3"));
	assert_int_equal(model_host_by_node(&f->m, 2)->node_id, 2);
	assert_null(model_host(&f->m, "hostZ"));
	fixture_ok(f, "{'domain_place': {'uuid': '00000000-0000-4000-8000-000000000002', 'host': 'hostA', 'generation': 1}}");
	fixture_ok(f, "{'domain_report': {'uuid': '00000000-0000-4000-8000-000000000002', 'host': 'hostA', 'generation': 1, 'state': 'running'}}");
	fixture_ok(f, "{'migrate_start': {'domain': 'b', 'destination': 'hostC'}}");
	/* A migration promises the room on both sides. */
	for (int i = 0; i < 3; i++) {
		model_host_use(&f->m, i == 0 ? "hostA" : i == 1 ? "hostB" : "hostC", &memory, &vcpus);
		assert_int_equal(memory, i == 1 ? 0 : 1048576);
		assert_int_equal(vcpus, i == 1 ? 0 : 3);
	}
}

static void test_rings_are_bounded(void **state)
{
	struct fixture *f = *state;

	fixture_three_hosts(f);
	fixture_ok(f, "{'domain_create': {'spec': {'name': 'a', 'uuid': '00000000-0000-4000-8000-000000000001', 'memory_bytes': 1048576, 'vcpus': 2}}}");
	for (int i = 0; i < LIMIT_EVENTS_KEPT + 10; i++) {
		char *text = str_printf("{'client': 'c', 'seq': %d, 'event_note': {'severity': 'info', 'subject': 'host x', 'kind': 'note', 'text': 'n %d'}}", i, i);

		fixture_ok(f, text);
		free(text);
	}
	for (int i = 0; i < LIMIT_JOBS_KEPT + 10; i++)
		fixture_ok(f, "{'domain_goal': {'domain': 'a', 'goal': 'stopped', 'how': 'destroy'}}");
	assert_int_equal(f->m.state->n_events, LIMIT_EVENTS_KEPT);
	assert_int_equal(f->m.state->n_requests, LIMIT_REQUESTS_KEPT);
	assert_true(f->m.state->n_jobs <= LIMIT_JOBS_KEPT + 1);
	assert_int_equal(f->m.state->jobs[f->m.state->n_jobs - 1]->id, LIMIT_JOBS_KEPT + 10);
}

static void test_secrets_stay_out_of_the_history(void **state)
{
	struct fixture *f = *state;

	fixture_three_hosts(f);
	fixture_ok(f, "{'fence_set': {'host': 'hostA', 'devices': [{'agent': 'fence_b', 'level': 2}, {'agent': 'fence_a', 'level': 1,"
		      " 'params': [{'key': 'password', 'value': 'hunter2', 'secret': true}]}]}}");
	assert_string_equal(model_host(&f->m, "hostA")->fence[0]->agent, "fence_a");
	assert_string_equal(model_host(&f->m, "hostA")->fence[0]->params[0]->value, "hunter2");
	for (size_t i = 0; i < f->m.state->n_events; i++)
		assert_null(strstr(f->m.state->events[i]->text, "hunter2"));
	fixture_refused(f, 65, "not the name of a fence agent", "{'fence_set': {'host': 'hostA', 'devices': [{'agent': '../bin/sh'}]}}");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_nothing_before_the_cluster),
		T(test_older_epoch_is_refused),
		T(test_a_decision_about_an_earlier_life),
		T(test_a_request_is_done_once),
		T(test_what_others_left_behind_goes_before_ones_own_requests),
		T(test_busy_clients_do_not_push_out_the_request_of_a_slow_one),
		T(test_only_membership_commands_name_voters),
		T(test_newer_commands_stop_this_program),
		T(test_a_newer_snapshot_is_not_installed),
		T(test_voters),
		T(test_voters_follow_the_log),
		T(test_look_ups),
		T(test_rings_are_bounded),
		T(test_secrets_stay_out_of_the_history),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
