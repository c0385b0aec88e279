/* A model that is fed with commands written as JSON, for the tests of clusterd's core. Include cmocka.h before. */
#pragma once

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clusterd/core/model.h"
#include "proto/pb.h"
#include "proto/pbjson.h"

struct fixture {
	struct model m;
	uint64_t index, epoch, time_ms;
	Gantry__CommandResult *result;   /* of the last command */
};

static inline json_t *fixture_json(const char *text)
{
	json_error_t error;
	json_t *json = json_loads(text, 0, &error);

	if (!json)
		fail_msg("%s, column %d: %s", error.text, error.column, text);
	return json;
}

static inline void *fixture_message(const json_t *json, const ProtobufCMessageDescriptor *descriptor)
{
	ProtobufCMessage *message = NULL;
	struct err err = {0};

	if (pbjson_to_message(json, descriptor, &message, &err) < 0)
		fail_msg("%s", err.text);
	return message;
}

static inline void fixture_start(struct fixture *f)
{
	*f = (struct fixture){.epoch = 1, .time_ms = 1000};
	model_init(&f->m);
}

static inline void fixture_end(struct fixture *f)
{
	if (f->result)
		gantry__command_result__free_unpacked(f->result, NULL);
	model_free(&f->m);
}

/* Applies a command; returns the status. A migration gets a token: JSON has no bytes. */
static inline int fixture_apply(struct fixture *f, Gantry__Command *c)
{
	struct buf packed = {0};
	struct err err = {0};
	int rc;

	if (!c->version)
		c->version = MODEL_COMMAND_VERSION;
	if (!c->time_ms)
		c->time_ms = f->time_ms;
	if (c->body_case == GANTRY__COMMAND__BODY_MIGRATE_START && !c->migrate_start->token.len)
		pb_set_bytes(&c->migrate_start->token, "0123456789abcdef0123456789abcdef", 32);
	if (f->result)
		gantry__command_result__free_unpacked(f->result, NULL);
	f->result = NULL;
	pb_pack(c, &packed);
	rc = model_apply(&f->m, ++f->index, f->epoch, packed.data, packed.len, &f->result, &err);
	buf_free(&packed);
	if (rc)
		fail_msg("model_apply: %d %s", rc, err.text);
	return (int)f->result->status;
}

static inline int fixture_apply_json(struct fixture *f, const json_t *json)
{
	Gantry__Command *c = fixture_message(json, &gantry__command__descriptor);
	int status = fixture_apply(f, c);

	gantry__command__free_unpacked(c, NULL);
	return status;
}

/* The same from text, with ' for ": it must be accepted. */
static inline void fixture_ok(struct fixture *f, const char *text)
{
	char *copy = str_dup(text);
	json_t *json;

	for (char *p = copy; *p; p++)
		if (*p == '\'')
			*p = '"';
	json = fixture_json(copy);
	if (fixture_apply_json(f, json))
		fail_msg("refused with %d: %s\n%s", f->result->status, f->result->text, copy);
	json_decref(json);
	free(copy);
}

/* Must be refused with this status and a text that has `words`. */
static inline void fixture_refused(struct fixture *f, int status, const char *words, const char *text)
{
	char *copy = str_dup(text);
	struct buf before = {0}, after = {0};
	uint64_t index = f->m.state->applied_index, epoch = f->m.state->applied_epoch;
	json_t *json;

	for (char *p = copy; *p; p++)
		if (*p == '\'')
			*p = '"';
	json = fixture_json(copy);
	model_snapshot(&f->m, &before);
	assert_int_equal(fixture_apply_json(f, json), status);
	if (!strstr(f->result->text, words))
		fail_msg("'%s' is not in: %s", words, f->result->text);
	/* A refusal leaves no trace but its place in the log. */
	f->m.state->applied_index = index;
	f->m.state->applied_epoch = epoch;
	model_snapshot(&f->m, &after);
	f->m.state->applied_index = f->index;
	f->m.state->applied_epoch = f->epoch;
	assert_int_equal(before.len, after.len);
	assert_memory_equal(before.data, after.data, before.len);
	buf_free(&before);
	buf_free(&after);
	json_decref(json);
	free(copy);
}

/* Three hosts, online, of 8 GiB and 4 CPUs each. */
static inline void fixture_three_hosts(struct fixture *f)
{
	static const char *const names[] = {"hostA", "hostB", "hostC"};

	fixture_ok(f, "{'cluster_init': {'name': 'test', 'uuid': '11111111-2222-4333-8444-555555555555',"
		      " 'host': {'node_id': 1, 'name': 'hostA', 'address': '10.79.0.1'}}}");
	fixture_ok(f, "{'epoch_start': {'epoch': 1, 'leader': 1, 'synced': [1]}}");
	fixture_ok(f, "{'host_add': {'host': {'node_id': 2, 'name': 'hostB', 'address': '10.79.0.2'}}}");
	fixture_ok(f, "{'host_add': {'host': {'node_id': 3, 'name': 'hostC', 'address': '10.79.0.3'}}}");
	for (int i = 0; i < 3; i++) {
		char *online = str_printf("{'host_state': {'name': '%s', 'state': 'online', 'incarnation': 1, 'reason': 'it is here'}}", names[i]);
		char *info = str_printf("{'host_info': {'host': {'name': '%s', 'memory_bytes': 8589934592, 'cpus': 4, 'accel': 'tcg',"
					" 'qemu_version': '7.2', 'agent_connected': true}}}", names[i]);

		fixture_ok(f, online);
		fixture_ok(f, info);
		free(online);
		free(info);
	}
}
