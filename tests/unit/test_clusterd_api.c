/* clusterd's API: who may ask what, what is filled in and held back, what is told. */
#include "tests/unit/clusterd_api_fixture.h"

/* ---- who may ask what */

static void test_status_and_result(void **state)
{
	Gantry__CtlStatusRequest request = GANTRY__CTL_STATUS_REQUEST__INIT;
	Gantry__CtlMessage *a;
	struct client c;

	open_unix(&c);
	ASK(&c, 7, STATUS_REQUEST, status_request, &request);
	a = answer(&c);
	assert_int_equal(a->id, 7);
	assert_string_equal(a->status->log_state, "normal");
	note(&c, 8, "hello");
	assert_int_equal(result_of(&c)->status, STATUS(OK));
	assert_int_equal(c.answers[1]->id, 8);
	drop_client(&c);
}

static void test_daemons_commands_are_refused(void **state)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdHostState host_state = GANTRY__CMD_HOST_STATE__INIT;
	Gantry__CmdDomainPlace place = GANTRY__CMD_DOMAIN_PLACE__INIT;
	Gantry__CmdMigrateCommit commit = GANTRY__CMD_MIGRATE_COMMIT__INIT;
	Gantry__CmdHostAdd add = GANTRY__CMD_HOST_ADD__INIT;
	Gantry__CmdClusterInit init = GANTRY__CMD_CLUSTER_INIT__INIT;
	struct client c;

	open_unix(&c);
#define REFUSED(FIELD, field, value) do { \
	command.body_case = GANTRY__COMMAND__BODY_##FIELD; \
	command.field = (value); \
	propose(&c, 1, &command); \
	EXPECT_ERROR(&c, PERMISSION, ""); \
} while (0)
	REFUSED(HOST_STATE, host_state, &host_state);
	REFUSED(DOMAIN_PLACE, domain_place, &place);
	REFUSED(MIGRATE_COMMIT, migrate_commit, &commit);
	REFUSED(HOST_ADD, host_add, &add);
	REFUSED(CLUSTER_INIT, cluster_init, &init);
	command.body_case = GANTRY__COMMAND__BODY__NOT_SET;
	propose(&c, 1, &command);
	EXPECT_ERROR(&c, PERMISSION, "");
	assert_int_equal(w.n_proposed, 0);
	drop_client(&c);
}

static void test_users_command_is_bound_to_no_epoch(void **state)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdPoolRemove remove = GANTRY__CMD_POOL_REMOVE__INIT;
	struct client c;

	open_unix(&c);
	remove.name = (char *)"none";
	command.epoch = 99;
	command.body_case = GANTRY__COMMAND__BODY_POOL_REMOVE;
	command.pool_remove = &remove;
	propose(&c, 1, &command);
	assert_int_equal(result_of(&c)->status, STATUS(NO_SUCH));
	assert_int_equal(w.last_epoch, 0);
	drop_client(&c);
}

static void test_tls_needs_a_members_certificate(void **state)
{
	Gantry__CtlStatusRequest request = GANTRY__CTL_STATUS_REQUEST__INIT;
	struct tls_context *anonymous = NULL;
	char fingerprint[65];
	struct client c;

	assert_int_equal(pki_fingerprint(&w.ca, fingerprint, NULL), 0);
	assert_int_equal(tls_context_for_join(fingerprint, &anonymous, NULL), 0);
	open_tls(&c, w.host_a);
	ASK(&c, 1, STATUS_REQUEST, status_request, &request);
	assert_int_equal(answer(&c)->body_case, GANTRY__CTL_MESSAGE__BODY_STATUS);
	drop_client(&c);
	open_tls(&c, w.host_z);
	ASK(&c, 1, STATUS_REQUEST, status_request, &request);
	EXPECT_ERROR(&c, PERMISSION, "no member");
	note(&c, 2, "from outside");
	EXPECT_ERROR(&c, PERMISSION, "no member");
	drop_client(&c);
	open_tls(&c, anonymous);
	ASK(&c, 1, STATUS_REQUEST, status_request, &request);
	EXPECT_ERROR(&c, PERMISSION, "only joining");
	note(&c, 2, "from outside");
	EXPECT_ERROR(&c, PERMISSION, "only joining");
	drop_client(&c);
	assert_int_equal(w.n_proposed, 0);
	tls_context_free(anonymous);
}

static void test_garbage_is_dropped(void **state)
{
	struct client c;

	open_unix(&c);
	assert_int_equal(rpc_send(c.conn, FRAME_CTL, "\xff\xff\xff\xff", 4), 0);
	UNTIL(c.closed);
	assert_int_equal(c.rc, -ECONNREFUSED);
	assert_non_null(strstr(c.err.text, "cannot read"));
	drop_client(&c);
}

/* ---- what is filled in, what is held back */

static void test_host_removal_is_tried_first(void **state)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdHostRemove remove = GANTRY__CMD_HOST_REMOVE__INIT;
	struct client c;

	open_unix(&c);
	command.body_case = GANTRY__COMMAND__BODY_HOST_REMOVE;
	command.host_remove = &remove;
	remove.name = (char *)"hostA";
	propose(&c, 1, &command);
	EXPECT_ERROR(&c, CONSTRAINT, "last one");
	remove.name = (char *)"hostX";
	propose(&c, 2, &command);
	EXPECT_ERROR(&c, NO_SUCH, "hostX");
	/* Nothing of this has reached the log, where it would have cost a voter. */
	assert_int_equal(w.n_proposed, 0);
	drop_client(&c);
}

static void test_migration_token_and_volume_host(void **state)
{
	Gantry__Command command = GANTRY__COMMAND__INIT, *sent;
	Gantry__CmdMigrateStart start = GANTRY__CMD_MIGRATE_START__INIT;
	Gantry__CmdVolumeCreate create = GANTRY__CMD_VOLUME_CREATE__INIT;
	Gantry__Volume volume = GANTRY__VOLUME__INIT;
	uint8_t chosen[3] = {1, 2, 3};
	struct client c;

	w.hold = true;
	open_unix(&c);
	/* A client that wants to choose the secret itself does not get its way. */
	start.token = (ProtobufCBinaryData){.data = chosen, .len = 3};
	command.body_case = GANTRY__COMMAND__BODY_MIGRATE_START;
	command.migrate_start = &start;
	propose(&c, 1, &command);
	propose(&c, 2, &command);
	create.volume = &volume;
	command.body_case = GANTRY__COMMAND__BODY_VOLUME_CREATE;
	command.volume_create = &create;
	propose(&c, 3, &command);
	UNTIL(w.n_held == 3);
	sent = gantry__command__unpack(NULL, w.held[0].packed.len, w.held[0].packed.data);
	assert_int_equal(sent->migrate_start->token.len, 32);
	gantry__command__free_unpacked(sent, NULL);
	assert_memory_not_equal(w.held[0].packed.data, w.held[1].packed.data, w.held[1].packed.len);
	sent = gantry__command__unpack(NULL, w.held[2].packed.len, w.held[2].packed.data);
	assert_string_equal(sent->volume_create->volume->host, "hostA");
	gantry__command__free_unpacked(sent, NULL);
	for (size_t i = 0; i < 3; i++)
		apply(&w.held[i].packed, w.held[i].cb, w.held[i].data);
	drop_client(&c);
}

static void test_client_that_leaves_before_the_answer(void **state)
{
	struct client c, d;

	w.hold = true;
	open_unix(&c);
	note(&c, 1, "one");
	note(&c, 2, "two");
	UNTIL(w.n_held == 2);
	drop_client(&c);
	open_unix(&d);
	for (size_t i = 0; i < 2; i++)
		apply(&w.held[i].packed, w.held[i].cb, w.held[i].data);
	assert_int_equal(w.model.state->events[w.model.state->n_events - 1]->text[0], 't');
	drop_client(&d);
}

static void test_too_many_requests(void **state)
{
	struct client c;

	w.hold = true;
	open_unix(&c);
	for (uint64_t i = 1; i <= LIMIT_API_REQUESTS + 1; i++)
		note(&c, i, "x");
	EXPECT_ERROR(&c, RETRY, "under way");
	assert_int_equal(c.answers[0]->id, LIMIT_API_REQUESTS + 1);
	assert_int_equal(w.n_held, LIMIT_API_REQUESTS);
	for (size_t i = 0; i < w.n_held; i++)
		apply(&w.held[i].packed, w.held[i].cb, w.held[i].data);
	for (size_t i = 0; i < w.n_held; i++)
		assert_int_equal(result_of(&c)->status, STATUS(OK));
	drop_client(&c);
}

/* ---- reading */

static void test_model_without_secrets(void **state)
{
	Gantry__CtlModelRequest request = GANTRY__CTL_MODEL_REQUEST__INIT;
	Gantry__FenceDevice *device = PB_NEW(Gantry__FenceDevice, gantry__fence_device__init);
	Gantry__Job *job = PB_NEW(Gantry__Job, gantry__job__init);
	Gantry__HostSoft soft = GANTRY__HOST_SOFT__INIT;
	struct buf packed = {0};
	struct client c;
	Gantry__CtlModel *m;

	for (int i = 0; i < 2; i++) {
		Gantry__FenceParam *p = PB_NEW(Gantry__FenceParam, gantry__fence_param__init);

		pb_set_string(&p->key, i ? "passwd" : "ip");
		pb_set_string(&p->value, i ? "hunter2" : "10.0.0.9");
		p->secret = i;
		PB_APPEND(device, params, p);
	}
	PB_APPEND(w.model.state->hosts[0], fence, device);
	job->id = 5;
	pb_set_bytes(&job->token, "tttttttt", 8);
	PB_APPEND(w.model.state, jobs, job);
	soft.node_id = 1;
	soft.memory_free_bytes = 4096;
	pb_pack(&soft, &packed);
	assert_true(soft_state_put(&w.soft, 1, packed.data, packed.len, 0));
	assert_false(soft_state_put(&w.soft, 2, packed.data, packed.len, 0));
	buf_free(&packed);
	open_unix(&c);
	ASK(&c, 1, MODEL_REQUEST, model_request, &request);
	m = answer(&c)->model;
	assert_true(m->quorate);
	assert_string_equal(m->model->hosts[0]->fence[0]->params[0]->value, "10.0.0.9");
	assert_string_equal(m->model->hosts[0]->fence[0]->params[1]->value, "");
	assert_int_equal(m->model->jobs[0]->token.len, 0);
	assert_int_equal(m->model->n_events, 0);
	assert_int_equal(m->soft[0]->memory_free_bytes, 4096);
	request.events = true;
	ASK(&c, 2, MODEL_REQUEST, model_request, &request);
	assert_true(answer(&c)->model->model->n_events > 0);
	/* Without a quorum it says so, or refuses if only the committed state was asked for. */
	w.no_quorum = true;
	ASK(&c, 3, MODEL_REQUEST, model_request, &request);
	assert_false(answer(&c)->model->quorate);
	request.committed_only = true;
	ASK(&c, 4, MODEL_REQUEST, model_request, &request);
	assert_int_equal(answer(&c)->error->status, STATUS(NO_QUORUM));
	w.no_quorum = false;
	/* The model itself still has them. */
	assert_string_equal(device->params[1]->value, "hunter2");
	assert_int_equal(job->token.len, 8);
	drop_client(&c);
}

static void test_watch_job(void **state)
{
	Gantry__CtlWatchJob request = GANTRY__CTL_WATCH_JOB__INIT;
	Gantry__Job *job = PB_NEW(Gantry__Job, gantry__job__init);
	Gantry__HostSoft soft = GANTRY__HOST_SOFT__INIT;
	Gantry__MigrationProgress progress = GANTRY__MIGRATION_PROGRESS__INIT, *list[] = {&progress};
	struct buf packed = {0};
	struct client c;
	Gantry__CtlJob *a;

	open_unix(&c);
	request.job_id = 77;
	ASK(&c, 1, WATCH_JOB, watch_job, &request);
	EXPECT_ERROR(&c, NO_SUCH, "77");
	job->id = 77;
	pb_set_string(&job->source, "hostA");
	PB_APPEND(w.model.state, jobs, job);
	ASK(&c, 2, WATCH_JOB, watch_job, &request);
	a = answer(&c)->job;
	assert_false(a->ended);
	assert_null(a->progress);
	/* Nothing new: nothing is said. Progress: it is. */
	api_model_changed(w.api);
	soft.node_id = 1;
	soft.progress = list;
	soft.n_progress = 1;
	progress.job_id = 77;
	progress.round = 3;
	pb_pack(&soft, &packed);
	assert_true(soft_state_put(&w.soft, 1, packed.data, packed.len, 0));
	buf_free(&packed);
	api_soft_changed(w.api);
	a = answer(&c)->job;
	assert_int_equal(a->progress->round, 3);
	assert_int_equal(c.n, 3);
	job->state = GANTRY__JOB_STATE__JOB_STATE_DONE;
	api_model_changed(w.api);
	assert_true(answer(&c)->job->ended);
	/* The watch has ended with it. */
	job->ended_ms = 5;
	api_model_changed(w.api);
	note(&c, 3, "x");
	assert_int_equal(answer(&c)->body_case, GANTRY__CTL_MESSAGE__BODY_RESULT);
	drop_client(&c);
}

static void test_watch_events(void **state)
{
	Gantry__CtlWatchEvents request = GANTRY__CTL_WATCH_EVENTS__INIT;
	struct client c, other;
	Gantry__CtlEvents *e;

	open_unix(&c);
	open_unix(&other);
	ASK(&c, 1, WATCH_EVENTS, watch_events, &request);
	e = answer(&c)->events;
	assert_string_equal(e->events[0]->kind, "cluster-created");
	request.after_id = e->events[e->n_events - 1]->id;
	request.follow = true;
	ASK(&c, 2, WATCH_EVENTS, watch_events, &request);
	assert_int_equal(answer(&c)->events->n_events, 0);
	note(&other, 1, "look");
	e = answer(&c)->events;
	assert_int_equal(e->n_events, 1);
	assert_string_equal(e->events[0]->text, "look");
	note(&other, 2, "again");
	assert_string_equal(answer(&c)->events->events[0]->text, "again");
	drop_client(&c);
	drop_client(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
		T(test_status_and_result), T(test_daemons_commands_are_refused),
		T(test_users_command_is_bound_to_no_epoch), T(test_tls_needs_a_members_certificate),
		T(test_garbage_is_dropped), T(test_host_removal_is_tried_first),
		T(test_migration_token_and_volume_host), T(test_client_that_leaves_before_the_answer),
		T(test_too_many_requests), T(test_model_without_secrets), T(test_watch_job), T(test_watch_events),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
