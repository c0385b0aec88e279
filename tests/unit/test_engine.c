/* The migration engine, both sides, with real QEMUs: whole migrations, and what holds when something breaks in each stage.
 * The rule that each test checks in its way: from the hand-over of the leases on the source's guest stands still until a decision,
 * and after ABORT it runs again, whatever happened. */
#include "tests/unit/migrate_fixture.h"

static void on_alarm(uv_timer_t *alarm)
{
	*(bool *)alarm->data = true;
}

static void run_for(struct pair *p, uint64_t ms)
{
	uv_timer_t *alarm = mem_alloc(sizeof(*alarm));
	bool rung = false;

	uv_update_time(&p->loop);
	uv_timer_init(&p->loop, alarm);
	alarm->data = &rung;
	uv_timer_start(alarm, on_alarm, ms, 0);
	RUN_UNTIL(p, rung);
	uv_close((uv_handle_t *)alarm, (uv_close_cb)free);
}

/* ---- whole ones ---- */

static void save_memory(struct side *s, const char *path)
{
	struct answer a = side_ask(s, "pmemsave", json_pack("{s:I, s:I, s:s}", "val", (json_int_t)(1 << 20), "size", (json_int_t)(FIXTURE_DATA_MIB + 20) << 20, "filename", path));

	assert_int_equal(a.rc, 0);
}

static void assert_same_memory(struct pair *p)
{
	size_t size = (size_t)(FIXTURE_DATA_MIB + 20) << 20;
	uint8_t *bytes[2];
	char path[2][128];

	for (int i = 0; i < 2; i++) {
		struct side *s = i ? &p->destination : &p->source;
		FILE *f;

		snprintf(path[i], sizeof(path[i]), "%s/memory", s->dir);
		save_memory(s, path[i]);
		bytes[i] = mem_alloc(size);
		f = fopen(path[i], "r");
		assert_int_equal(fread(bytes[i], 1, size, f), size);
		fclose(f);
		unlink(path[i]);
	}
	assert_true(memcmp(bytes[0], bytes[1], size) == 0);
	assert_true(bytes[0][20 << 20] || bytes[0][(20 << 20) + 1]);
	free(bytes[0]);
	free(bytes[1]);
}

static void test_committed(void **state)
{
	struct pair *p = pair_open();
	const Gantry__MigrationReport *r;

	pair_start(p);
	RUN_UNTIL(p, p->destination.ready_reported && p->source.stage == GANTRY__MIGRATION_STAGE__STAGE_COMMITMENT);
	assert_int_equal(p->source.hand_overs, 1);
	assert_false(side_runs(&p->source));
	assert_false(side_runs(&p->destination));
	assert_same_memory(p);
	/* COMMIT is applied: the destination goes on, the source is killed. */
	side_ask(&p->destination, "cont", NULL);
	RUN_UNTIL(p, engine_report(p->destination.engine)->running);
	side_decide(&p->destination, true);
	side_decide(&p->source, true);
	assert_int_equal(p->source.settle_rc, 0);
	assert_int_equal(p->destination.settle_rc, 0);
	assert_false(side_runs(&p->source));
	assert_true(side_runs(&p->destination));
	r = engine_report(p->destination.engine);
	assert_true(r->settled && r->running && !r->failed);
	assert_true(r->figures->transferred_bytes > (uint64_t)FIXTURE_DATA_MIB << 20);
	assert_int_equal(r->figures->transferred_bytes, engine_report(p->source.engine)->figures->transferred_bytes);
	assert_true(r->figures->downtime_ms > 0);
	assert_true(r->figures->rounds >= 1);
	assert_false(p->source.failed_reported || p->destination.failed_reported);
	pair_close(p);
}

static void test_aborted_when_complete(void **state)
{
	struct pair *p = pair_open();

	pair_start(p);
	RUN_UNTIL(p, p->destination.ready_reported && p->source.stage == GANTRY__MIGRATION_STAGE__STAGE_COMMITMENT);
	pair_abort(p);
	/* And the same guest can be moved again afterwards. */
	side_free_engine(&p->source);
	p->source.settled = p->destination.settled = p->destination.reserves = p->destination.exits = 0;
	p->destination.ready_reported = p->source.failed_reported = false;
	side_make_engine(&p->destination);
	pair_start(p);
	RUN_UNTIL(p, p->destination.ready_reported || p->source.failed_reported);
	assert_false(p->source.failed_reported);
	pair_abort(p);
	pair_close(p);
}

static void test_paused_guest_stays_paused(void **state)
{
	struct pair *p = pair_open();

	side_ask(&p->source, "stop", NULL);
	pair_start(p);
	RUN_UNTIL(p, p->destination.ready_reported && p->source.stage == GANTRY__MIGRATION_STAGE__STAGE_COMMITMENT);
	side_decide(&p->source, false);
	assert_int_equal(p->source.settle_rc, 0);
	assert_false(side_runs(&p->source));
	pair_close(p);
}

static void test_cancelled_while_copying(void **state)
{
	struct pair *p = pair_open();

	p->source.goal->job->bandwidth_bytes_per_s = 4 << 20;
	pair_start(p);
	RUN_UNTIL(p, engine_report(p->source.engine)->progress->transferred_bytes > 1 << 20);
	assert_true(side_runs(&p->source));
	pair_abort(p);
	assert_int_equal(p->source.hand_overs, 0);
	pair_close(p);
}

static void test_cancelled_before_anything(void **state)
{
	struct pair *p = pair_open();

	side_make_engine(&p->source);
	side_decide(&p->source, false);
	assert_int_equal(p->source.settle_rc, 0);
	assert_true(side_runs(&p->source));
	pair_close(p);
}

/* ---- the connection is cut ---- */

static void both_fail_then_abort(struct pair *p, bool runs_meanwhile)
{
	RUN_UNTIL(p, p->source.failed_reported && p->destination.failed_reported);
	run_for(p, 300);
	assert_int_equal(side_runs(&p->source), runs_meanwhile);
	assert_false(p->destination.ready_reported);
	pair_abort(p);
	pair_close(p);
}

static void test_cut_while_reserving(void **state)
{
	struct pair *p = pair_open();

	side_make_engine(&p->source);
	RUN_UNTIL(p, p->destination.reserves);
	pair_cut(p);
	RUN_UNTIL(p, p->source.failed_reported && p->destination.failed_reported);
	assert_non_null(strstr(p->destination.reason, "lost the connection to host 'hostA'"));
	/* The agent's QEMU comes too late. */
	side_start_qemu(&p->destination, true);
	engine_reserved(p->destination.engine, 0, p->destination.qemu, NULL);
	both_fail_then_abort(p, true);
}

static void test_cut_while_copying(void **state)
{
	struct pair *p = pair_open();

	p->source.goal->job->bandwidth_bytes_per_s = 4 << 20;
	pair_start(p);
	RUN_UNTIL(p, engine_report(p->source.engine)->progress->transferred_bytes > 1 << 20);
	pair_cut(p);
	both_fail_then_abort(p, true);
}

static void test_cut_at_the_hand_over(void **state)
{
	struct pair *p = pair_open();

	p->at_hand_over = pair_cut;
	p->hold_hand_over = true;
	pair_start(p);
	RUN_UNTIL(p, p->source.hand_overs);
	RUN_UNTIL(p, p->source.failed_reported);
	/* The leases' answer comes too late, and changes nothing. */
	engine_leases_handed(p->source.engine, 0, NULL);
	both_fail_then_abort(p, false);
}

/* The destination's answer does not reach the source: it has all, the source does not know. */
static void hold_the_answer(struct pair *p)
{
	qemu_channel_pause(p->destination.engine->channel, true);
}

static void test_cut_before_the_answer(void **state)
{
	struct pair *p = pair_open();

	p->at_hand_over = hold_the_answer;
	pair_start(p);
	RUN_UNTIL(p, p->destination.engine->qemu_completed);
	run_for(p, 100);
	assert_int_equal(p->source.stage, GANTRY__MIGRATION_STAGE__STAGE_STOP_AND_COPY);
	pair_cut(p);
	both_fail_then_abort(p, false);
}

static void test_cut_when_complete_decides_nothing(void **state)
{
	for (int commit = 0; commit < 2; commit++) {
		struct pair *p = pair_open();

		pair_start(p);
		RUN_UNTIL(p, p->destination.ready_reported && p->source.stage == GANTRY__MIGRATION_STAGE__STAGE_COMMITMENT);
		pair_cut(p);
		run_for(p, 300);
		assert_false(p->source.failed_reported || p->destination.failed_reported);
		assert_false(side_runs(&p->source));
		assert_false(side_runs(&p->destination));
		if (commit) {
			side_decide(&p->source, true);
			side_ask(&p->destination, "cont", NULL);
			side_decide(&p->destination, true);
			assert_false(side_runs(&p->source));
			assert_true(side_runs(&p->destination));
		} else {
			pair_abort(p);
		}
		pair_close(p);
	}
}

/* ---- a stream that stalls so that QEMU's QMP freezes ---- */

static void stall_the_peer(struct pair *p)
{
	rpc_conn_pause_reading(p->destination.engine->conn, true);
}

static struct pair *pair_frozen(void)
{
	struct pair *p = pair_open();

	/* The whole memory is within even the first part of the downtime allowed: nearly all is left for the final copy. */
	p->source.goal->job->max_downtime_ms = 400000;
	p->source.goal->job->bandwidth_bytes_per_s = 20 << 20;
	p->at_hand_over = stall_the_peer;
	pair_start(p);
	RUN_UNTIL(p, p->source.hand_overs);
	run_for(p, 3000);
	return p;
}

static void on_frozen_answer(void *data, int rc, json_t *ret, const struct err *err)
{
	*(int *)data += rc == 0;
}

static void test_frozen_source_is_brought_back(void **state)
{
	struct pair *p = pair_frozen();
	int answers = 0;

	assert_int_equal(qmp_execute(qemu_process_qmp(p->source.qemu), "query-status", NULL, on_frozen_answer, &answers), 0);
	run_for(p, 500);
	assert_int_equal(answers, 0); /* it is frozen indeed: otherwise this test proves nothing */
	pair_abort(p);
	assert_int_equal(answers, 1);
	pair_close(p);
}

static void on_rescued(void *data, int rc, const struct err *err)
{
	struct side *s = data;

	s->settled++;
	s->settle_rc = rc;
	s->settle_err = *err;
}

/* The agent dies: engine and QMP sessions are gone without a word. */
static void agent_restarts(struct side *s)
{
	struct err err;

	side_free_engine(s);
	qemu_process_free(s->qemu);
	s->readies = 0;
	run_for(s->pair, 200);
	if (qemu_process_adopt(&s->pair->loop, s->dir, s->log, &side_callbacks, s, &s->qemu, &err) < 0)
		fail_msg("%s", err.text);
}

static void rescue(struct side *s)
{
	struct err err;

	assert_int_equal(engine_rescue_source(&s->pair->loop, s->qemu, on_rescued, s, &err), 0);
	RUN_UNTIL(s->pair, s->settled);
	if (s->settle_rc < 0)
		fail_msg("%s", s->settle_err.text);
	assert_true(side_runs(s));
}

static void test_agent_restart_with_frozen_source(void **state)
{
	struct pair *p = pair_frozen();

	agent_restarts(&p->source);
	run_for(p, 1000);
	assert_int_equal(p->source.readies, 0);
	rescue(&p->source);
	pair_close(p);
}

static void test_agent_restart_at_the_hand_over(void **state)
{
	struct pair *p = pair_open();

	p->hold_hand_over = true;
	pair_start(p);
	RUN_UNTIL(p, p->source.hand_overs);
	agent_restarts(&p->source);
	RUN_UNTIL(p, p->source.readies);
	run_for(p, 300);
	assert_false(side_runs(&p->source)); /* nobody has decided */
	rescue(&p->source);
	pair_close(p);
}

static void test_agent_restart_before_the_answer(void **state)
{
	struct pair *p = pair_open();

	p->at_hand_over = hold_the_answer;
	pair_start(p);
	RUN_UNTIL(p, p->destination.engine->qemu_completed);
	agent_restarts(&p->source);
	RUN_UNTIL(p, p->source.readies && p->destination.failed_reported);
	assert_false(side_runs(&p->source));
	rescue(&p->source);
	pair_close(p);
}

/* ---- refusals and damage ---- */

static void expect_refusal(struct pair *p, const char *text)
{
	side_make_engine(&p->source);
	RUN_UNTIL(p, p->source.failed_reported);
	if (!strstr(p->refusal, text))
		fail_msg("'%s' is not in '%s'", text, p->refusal);
	assert_non_null(strstr(p->source.reason, text)); /* the source's user reads the destination's reason */
	assert_int_equal(p->destination.reserves, 0);
	side_decide(&p->source, false);
	assert_true(side_runs(&p->source));
	pair_close(p);
}

static void test_strangers_are_refused(void **state)
{
	struct pair *p = pair_open();

	pb_set_bytes(&p->source.goal->job->token, "sixteen bytes no", 16);
	expect_refusal(p, "wrong token");
	p = pair_open();
	p->source.goal->job->generation = 5;
	expect_refusal(p, "another task, domain or generation");
	p = pair_open();
	p->source.name = "hostC";
	expect_refusal(p, "says it is 'hostC'");
	p = pair_open();
	tls_context_free(p->source.tls);
	p->source.tls = fixture_tls(p->dir, "hostC");
	expect_refusal(p, "host 'hostC' says it is 'hostA'");
}

static void test_wrong_host_answers(void **state)
{
	struct pair *p = pair_open();

	pb_set_string(&p->source.goal->peer_host, "hostD");
	side_make_engine(&p->source);
	RUN_UNTIL(p, p->source.failed_reported);
	assert_non_null(strstr(p->source.reason, "hostD"));
	side_decide(&p->source, false);
	pair_close(p);
}

static void test_no_room(void **state)
{
	struct pair *p = pair_open();

	p->reserve_rc = -ENOMEM;
	pair_start(p);
	RUN_UNTIL(p, p->source.failed_reported && p->destination.failed_reported);
	assert_non_null(strstr(p->source.reason, "hostB: there is no room for domain 'web1'"));
	pair_abort(p);
	pair_close(p);
}

static void test_damaged_chunk_is_found(void **state)
{
	struct pair *p = pair_open();

	side_make_engine(&p->source);
	p->source.engine->test_damage_chunk = 20;
	pair_reserve(p);
	RUN_UNTIL(p, p->source.failed_reported && p->destination.failed_reported);
	assert_non_null(strstr(p->destination.reason, "chunk 20 was damaged"));
	assert_non_null(strstr(p->source.reason, "hostB: migration stream: chunk 20 was damaged"));
	assert_false(p->destination.ready_reported);
	pair_abort(p);
	pair_close(p);
}

static void test_wrong_digest_is_found(void **state)
{
	struct pair *p = pair_open();

	side_make_engine(&p->source);
	p->source.engine->test_damage_end = true;
	pair_reserve(p);
	RUN_UNTIL(p, p->source.failed_reported && p->destination.failed_reported);
	assert_non_null(strstr(p->destination.reason, "digest"));
	assert_false(p->destination.ready_reported);
	assert_false(side_runs(&p->source));
	pair_abort(p);
	pair_close(p);
}

static void test_leases_not_handed(void **state)
{
	struct pair *p = pair_open();

	p->lease_rc = -EIO;
	pair_start(p);
	RUN_UNTIL(p, p->source.failed_reported && p->destination.failed_reported);
	assert_non_null(strstr(p->source.reason, "leases could not be handed over: the pool is away"));
	assert_false(side_runs(&p->source));
	pair_abort(p);
	pair_close(p);
}

/* ---- QEMU dies ---- */

static void test_destination_qemu_dies(void **state)
{
	struct pair *p = pair_open();

	p->source.goal->job->bandwidth_bytes_per_s = 4 << 20;
	pair_start(p);
	RUN_UNTIL(p, engine_report(p->source.engine)->progress->transferred_bytes > 1 << 20);
	qemu_process_kill(p->destination.qemu, SIGKILL);
	RUN_UNTIL(p, p->source.failed_reported && p->destination.exits);
	assert_non_null(strstr(p->source.reason, "hostB: QEMU on host 'hostB' has ended"));
	assert_true(side_runs(&p->source));
	pair_abort(p);
	pair_close(p);
}

static void test_complete_destination_dies(void **state)
{
	struct pair *p = pair_open();

	pair_start(p);
	RUN_UNTIL(p, p->destination.ready_reported && p->source.stage == GANTRY__MIGRATION_STAGE__STAGE_COMMITMENT);
	qemu_process_kill(p->destination.qemu, SIGKILL);
	RUN_UNTIL(p, p->destination.failed_reported);
	assert_false(engine_report(p->destination.engine)->ready_to_commit);
	pair_abort(p);
	pair_close(p);
}

static void test_source_qemu_dies(void **state)
{
	struct pair *p = pair_open();

	p->source.goal->job->bandwidth_bytes_per_s = 4 << 20;
	pair_start(p);
	RUN_UNTIL(p, engine_report(p->source.engine)->progress->transferred_bytes > 1 << 20);
	qemu_process_kill(p->source.qemu, SIGKILL);
	RUN_UNTIL(p, p->source.failed_reported && p->destination.failed_reported);
	side_decide(&p->source, false);
	assert_int_equal(p->source.settle_rc, -ESRCH);
	side_decide(&p->destination, false);
	pair_close(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_committed),
		cmocka_unit_test(test_aborted_when_complete),
		cmocka_unit_test(test_paused_guest_stays_paused),
		cmocka_unit_test(test_cancelled_while_copying),
		cmocka_unit_test(test_cancelled_before_anything),
		cmocka_unit_test(test_cut_while_reserving),
		cmocka_unit_test(test_cut_while_copying),
		cmocka_unit_test(test_cut_at_the_hand_over),
		cmocka_unit_test(test_cut_before_the_answer),
		cmocka_unit_test(test_cut_when_complete_decides_nothing),
		cmocka_unit_test(test_frozen_source_is_brought_back),
		cmocka_unit_test(test_agent_restart_with_frozen_source),
		cmocka_unit_test(test_agent_restart_at_the_hand_over),
		cmocka_unit_test(test_agent_restart_before_the_answer),
		cmocka_unit_test(test_strangers_are_refused),
		cmocka_unit_test(test_wrong_host_answers),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_damaged_chunk_is_found),
		cmocka_unit_test(test_wrong_digest_is_found),
		cmocka_unit_test(test_leases_not_handed),
		cmocka_unit_test(test_destination_qemu_dies),
		cmocka_unit_test(test_complete_destination_dies),
		cmocka_unit_test(test_source_qemu_dies),
	};
	int failures;

	signal(SIGPIPE, SIG_IGN);
	failures = cmocka_run_group_tests(tests, NULL, NULL);
	fixture_tidy_up();
	buf_free(&fixture_ca);
	buf_free(&fixture_ca_key);
	return failures;
}
