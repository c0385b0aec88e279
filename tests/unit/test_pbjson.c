/* Messages as JSON and back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "proto/ctl.pb-c.h"
#include "proto/model.pb-c.h"
#include "proto/pb.h"
#include "proto/pbjson.h"

static char *text_of(const void *message, bool all)
{
	json_t *j = pbjson_from_message(message, all);
	char *text = json_dumps(j, JSON_COMPACT | JSON_PRESERVE_ORDER);

	json_decref(j);
	return text;
}

static void assert_json(const void *message, const char *expected)
{
	char *text = text_of(message, false);

	assert_string_equal(text, expected);
	free(text);
}

static Gantry__Job *job_new(void)
{
	Gantry__Job *job = PB_NEW(Gantry__Job, gantry__job__init);

	job->id = 7;
	job->kind = GANTRY__JOB_KIND__JOB_KIND_MIGRATE;
	job->stage = GANTRY__MIGRATION_STAGE__STAGE_PRE_COPY;
	job->committed = true;
	pb_set_string(&job->domain_name, "web \"1\" \xc3\xa4");
	pb_set_bytes(&job->token, "secret", 6);
	job->figures = PB_NEW(Gantry__MigrationFigures, gantry__migration_figures__init);
	job->figures->transferred_bytes = UINT64_MAX;
	return job;
}

static void test_message_to_json(void **state)
{
	Gantry__Job *job = job_new();

	assert_json(job, "{\"id\":7,\"kind\":\"migrate\",\"domain_name\":\"web \\\"1\\\" \xc3\xa4\",\"stage\":\"pre_copy\","
			 "\"committed\":true,\"figures\":{\"transferred_bytes\":\"18446744073709551615\"}}");
	char *all = text_of(job, true);
	assert_non_null(strstr(all, "\"state\":\"running\""));
	assert_non_null(strstr(all, "\"reason\":\"\""));
	assert_null(strstr(all, "token"));
	free(all);
	gantry__job__free_unpacked(job, NULL);
}

static void test_secrets_stay_secret(void **state)
{
	Gantry__FenceParam *p = PB_NEW(Gantry__FenceParam, gantry__fence_param__init);

	pb_set_string(&p->key, "password");
	pb_set_string(&p->value, "hunter2");
	assert_json(p, "{\"key\":\"password\",\"value\":\"hunter2\"}");
	p->secret = true;
	assert_json(p, "{\"key\":\"password\",\"secret\":true}");
	char *all = text_of(p, true);
	assert_null(strstr(all, "hunter2"));
	free(all);
	gantry__fence_param__free_unpacked(p, NULL);
}

static void test_enum_words(void **state)
{
	assert_string_equal(pbjson_enum_word(&gantry__domain_state__descriptor, 2), "running");
	assert_string_equal(pbjson_enum_word(&gantry__domain_goal_state__descriptor, 1), "running");
	assert_string_equal(pbjson_enum_word(&gantry__disk_format__descriptor, 1), "qcow2");
	assert_string_equal(pbjson_enum_word(&gantry__status__descriptor, 106), "no_quorum");
	assert_string_equal(pbjson_enum_word(&gantry__domain_state__descriptor, 99), "unknown");
	assert_ptr_equal(pbjson_enum_word(&gantry__host_state__descriptor, 1), pbjson_enum_word(&gantry__host_state__descriptor, 1));
}

static void test_oneof(void **state)
{
	Gantry__CtlMessage *m = PB_NEW(Gantry__CtlMessage, gantry__ctl_message__init);
	ProtobufCMessage *back = NULL;

	m->id = 3;
	m->body_case = GANTRY__CTL_MESSAGE__BODY_WATCH_JOB;
	m->watch_job = PB_NEW(Gantry__CtlWatchJob, gantry__ctl_watch_job__init);
	m->watch_job->job_id = 9;
	assert_json(m, "{\"id\":3,\"watch_job\":{\"job_id\":9}}");
	json_t *j = pbjson_from_message(&m->base, false);
	assert_int_equal(pbjson_to_message(j, &gantry__ctl_message__descriptor, &back, NULL), 0);
	assert_true(pb_equal(m, back));
	json_decref(j);
	protobuf_c_message_free_unpacked(back, NULL);
	gantry__ctl_message__free_unpacked(m, NULL);
}

static void test_round_trip(void **state)
{
	Gantry__ClusterModel *m = PB_NEW(Gantry__ClusterModel, gantry__cluster_model__init);
	ProtobufCMessage *back = NULL;
	Gantry__Domain *d = PB_NEW(Gantry__Domain, gantry__domain__init);
	Gantry__Job *job = job_new();

	pb_set_bytes(&job->token, NULL, 0);
	PB_APPEND(m, jobs, job);
	d->spec = PB_NEW(Gantry__DomainSpec, gantry__domain_spec__init);
	d->spec->rtc_offset_s = -3600;
	d->spec->on_crash = GANTRY__LIFECYCLE_ACTION__LIFECYCLE_RENAME_RESTART;
	pb_string_append(&d->spec->cpus, &d->spec->n_cpus, "0-3");
	pb_string_append(&d->spec->cpus, &d->spec->n_cpus, "");
	PB_APPEND(m, domains, d);
	pb_u32_append(&m->voters, &m->n_voters, 1);
	pb_u32_append(&m->voters, &m->n_voters, 4000000000u);
	for (int all = 0; all < 2; all++) {
		json_t *j = pbjson_from_message(&m->base, all);
		struct err err = {0};

		if (pbjson_to_message(j, &gantry__cluster_model__descriptor, &back, &err) < 0)
			fail_msg("%s", err.text);
		assert_true(pb_equal(m, back));
		protobuf_c_message_free_unpacked(back, NULL);
		json_decref(j);
	}
	gantry__cluster_model__free_unpacked(m, NULL);
}

static void test_bad_utf8_is_not_lost(void **state)
{
	Gantry__Event *e = PB_NEW(Gantry__Event, gantry__event__init);

	pb_set_string(&e->text, "caf\xe9!");
	assert_json(e, "{\"text\":\"caf?!\"}");
	gantry__event__free_unpacked(e, NULL);
}

static void test_bad_json(void **state)
{
	static const struct { const char *json, *text; } cases[] = {
		{"[]", "ClusterModel: an object {...} is wanted"},
		{"{\"nonsense\":1}", "ClusterModel has no 'nonsense'"},
		{"{\"hosts\":[{\"nam\":\"x\"}]}", "Host has no 'nam'"},
		{"{\"hosts\":{}}", "'hosts': a list is wanted"},
		{"{\"hosts\":[{\"name\":\"a\"},{\"name\":5}]}", "'name': a text is wanted"},
		{"{\"hosts\":[{\"name\":\"a\\u0000b\"}]}", "'name': a text is wanted"},
		{"{\"format\":-1}", "'format': -1 is out of range"},
		{"{\"format\":4294967296}", "'format': 4294967296 is out of range"},
		{"{\"format\":\"1\"}", "'format': a whole number is wanted"},
		{"{\"applied_index\":\"99999999999999999999\"}", "'applied_index': a whole number is wanted"},
		{"{\"applied_index\":\"-1\"}", "'applied_index': a whole number is wanted"},
		{"{\"hosts\":[{\"state\":\"onlin\"}]}", "'state': there is no 'onlin'"},
		{"{\"hosts\":[{\"agent_connected\":1}]}", "'agent_connected': true or false is wanted"},
		{"{\"jobs\":[{\"token\":\"aa\"}]}", "'token': binary data has no JSON form here"},
		{"{\"hosts\":[null]}", "Host: an object {...} is wanted"},
		{"{\"voters\":[1,null]}", "'voters': a whole number is wanted"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		json_t *j = json_loads(cases[i].json, JSON_ALLOW_NUL, NULL);
		ProtobufCMessage *m = NULL;
		struct err err = {0};

		assert_non_null(j);
		assert_true(pbjson_to_message(j, &gantry__cluster_model__descriptor, &m, &err) < 0);
		assert_string_equal(err.text, cases[i].text);
		assert_null(m);
		json_decref(j);
	}
}

static void test_two_alternatives(void **state)
{
	json_t *j = json_loads("{\"token\":{},\"status_request\":{}}", 0, NULL);
	ProtobufCMessage *m = NULL;
	struct err err = {0};

	assert_int_equal(pbjson_to_message(j, &gantry__ctl_message__descriptor, &m, &err), -EINVAL);
	assert_non_null(strstr(err.text, "only one of its alternatives"));
	json_decref(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_message_to_json),
		cmocka_unit_test(test_secrets_stay_secret),
		cmocka_unit_test(test_enum_words),
		cmocka_unit_test(test_oneof),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_bad_utf8_is_not_lost),
		cmocka_unit_test(test_bad_json),
		cmocka_unit_test(test_two_alternatives),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
