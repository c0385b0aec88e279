/* Golden scenarios: each file of scenarios/ is a story of the model and the leader's manager, step by step, with what
 * must come of it. docs/failover.md says what the files may hold. With SCENARIOS_WRITE set, plans and answers are
 * written anew, to be looked at. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "clusterd/core/manager.h"
#include "lib/cleanup.h"
#include "tests/unit/model_fixture.h"

struct story {
	struct fixture f;
	struct manager *mgr;
	const char *file;
	size_t step;
	uint64_t now_ms;
	uint64_t events_seen;
	bool write;
	json_t *json;
};

static bool is_nothing(const json_t *v)
{
	return !v || json_is_null(v) || json_is_false(v) || (json_is_integer(v) && !json_integer_value(v)) ||
	       (json_is_string(v) && !*json_string_value(v)) || (json_is_array(v) && !json_array_size(v)) ||
	       (json_is_object(v) && !json_object_size(v));
}

/* All that is expected is there; "~words" matches a text that has the words. */
static bool covers(const json_t *expected, const json_t *actual)
{
	const char *key;
	json_t *value;

	if (is_nothing(expected))
		return is_nothing(actual);
	if (json_is_object(expected)) {
		json_object_foreach((json_t *)(uintptr_t)expected, key, value)
			if (!covers(value, json_object_get(actual, key)))
				return false;
		return json_is_object(actual);
	}
	if (json_is_array(expected)) {
		if (json_array_size(expected) != json_array_size(actual))
			return false;
		for (size_t i = 0; i < json_array_size(expected); i++)
			if (!covers(json_array_get(expected, i), json_array_get(actual, i)))
				return false;
		return true;
	}
	if (json_is_string(expected) && *json_string_value(expected) == '~')
		return json_is_string(actual) && strstr(json_string_value(actual), json_string_value(expected) + 1);
	return json_equal((json_t *)(uintptr_t)expected, (json_t *)(uintptr_t)actual);
}

/* Compares, or writes the story anew. `exact`: nothing more than what is expected either. */
static void expect(struct story *s, json_t *step, const char *key, json_t *actual, bool exact)
{
	json_t *expected = json_object_get(step, key);
	_cleanup_free_ char *want = NULL, *got = NULL;

	if (s->write && exact) {
		json_object_set_new(step, key, actual);
		return;
	}
	if (exact ? !json_equal(expected, actual) : !covers(expected, actual)) {
		want = json_dumps(expected, JSON_INDENT(1));
		got = json_dumps(actual, JSON_INDENT(1));
		fail_msg("%s, step %zu, %s:\nexpected %s\ngot %s", s->file, s->step, key, want ? want : "nothing", got);
	}
	json_decref(actual);
}

static json_t *command_json(const Gantry__Command *c)
{
	json_t *json = pbjson_from_message(&c->base, false);

	json_object_del(json, "version");
	return json;
}

/* ---- steps ----------------------------------------------------------------- */

static void step_apply(struct story *s, json_t *step)
{
	json_t *answer;

	fixture_apply_json(&s->f, json_object_get(step, "apply"));
	answer = json_pack("{s:i, s:s}", "status", (int)s->f.result->status, "text", s->f.result->text);
	if (!*s->f.result->text)
		json_object_del(answer, "text");
	if (s->f.result->status || json_object_get(step, "answer"))
		expect(s, step, "answer", answer, true);
	else
		json_decref(answer);
}

static uint32_t *ids_of(const json_t *array, size_t *ret_n)
{
	uint32_t *ids = mem_alloc((json_array_size(array) + 1) * sizeof(*ids));

	*ret_n = json_array_size(array);
	for (size_t i = 0; i < *ret_n; i++)
		ids[i] = (uint32_t)json_integer_value(json_array_get(array, i));
	return ids;
}

/* The leader thinks; by default what it proposes is applied at once, in order. */
static void step_leader(struct story *s, json_t *step)
{
	const json_t *e = json_object_get(step, "leader");
	const char *type = json_string_value(json_object_get(e, "type"));
	struct manager_event event = {.epoch = s->f.epoch};
	const struct manager_action *actions;
	_cleanup_free_ uint32_t *members = NULL, *synced = NULL, *nodes = NULL, *seen = NULL;
	Gantry__Command *commands[64];
	size_t n, n_commands = 0;
	json_t *plan = json_array();

	s->now_ms += (uint64_t)json_integer_value(json_object_get(e, "after_ms"));
	event.now_ms = s->now_ms;
	event.wall_ms = s->f.time_ms;
	if (strcmp(type, "members") == 0) {
		event.type = MANAGER_EVENT_MEMBERS;
		members = ids_of(json_object_get(e, "members"), &event.u.members.n_members);
		synced = ids_of(json_object_get(e, json_object_get(e, "synced") ? "synced" : "members"), &event.u.members.n_synced);
		event.u.members.members = members;
		event.u.members.synced = synced;
		if (json_object_get(e, "nodes"))
			nodes = ids_of(json_object_get(e, "nodes"), &event.u.members.n_nodes);
		event.u.members.nodes = nodes;
		if (json_object_get(e, "seen"))
			seen = ids_of(json_object_get(e, "seen"), &event.u.members.n_seen);
		event.u.members.seen = seen;
		if (json_object_get(e, "patience_ms"))
			event.u.members.patience_until_ms = s->now_ms + (uint64_t)json_integer_value(json_object_get(e, "patience_ms"));
	} else if (strcmp(type, "fenced") == 0) {
		event.type = MANAGER_EVENT_FENCED;
		event.u.fenced.host = json_string_value(json_object_get(e, "host"));
		event.u.fenced.rc = (int)json_integer_value(json_object_get(e, "rc"));
		event.u.fenced.text = json_string_value(json_object_get(e, "text"));
		event.u.fenced.by_time = json_is_true(json_object_get(e, "by_time"));
	} else {
		event.type = strcmp(type, "model") == 0 ? MANAGER_EVENT_MODEL :
			     strcmp(type, "refused") == 0 ? MANAGER_EVENT_REFUSED : MANAGER_EVENT_TICK;
	}
	manager_step(s->mgr, &s->f.m, &event, &actions, &n);
	for (size_t i = 0; i < n; i++) {
		json_t *action = json_object();

		if (actions[i].type == MANAGER_ACTION_FENCE) {
			json_object_set_new(action, "fence", json_string(actions[i].host));
		} else {
			assert_int_equal(actions[i].command->epoch, s->f.epoch);
			commands[n_commands++] = pb_clone(actions[i].command);
			json_object_set_new(action, "propose", command_json(actions[i].command));
			json_object_del(json_object_get(action, "propose"), "epoch");
		}
		json_object_set_new(action, "reason", json_string(actions[i].reason));
		json_array_append_new(plan, action);
	}
	expect(s, step, "plan", plan, true);
	for (size_t i = 0; i < n_commands; i++) {
		if (!json_is_true(json_object_get(step, "lost")) && fixture_apply(&s->f, commands[i]))
			fail_msg("%s, step %zu: the plan was refused: %s", s->file, s->step, s->f.result->text);
		gantry__command__free_unpacked(commands[i], NULL);
	}
}

/* The agent of a host reports; what it asks for is applied, after which the same report must ask for nothing. */
static void step_report(struct story *s, json_t *step)
{
	const char *host = json_string_value(json_object_get(step, "host"));
	Gantry__AgentReport *report = fixture_message(json_object_get(step, "report"), &gantry__agent_report__descriptor);
	Gantry__Command **commands;
	json_t *list = json_array();
	size_t n;

	if (!report->goals_index)
		report->goals_index = s->f.index;
	model_commands_for_report(&s->f.m, host, report, &commands, &n);
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, command_json(commands[i]));
	expect(s, step, "commands", list, true);
	for (size_t i = 0; i < n; i++) {
		if (fixture_apply(&s->f, commands[i]))
			fail_msg("%s, step %zu: refused: %s", s->file, s->step, s->f.result->text);
		gantry__command__free_unpacked(commands[i], NULL);
	}
	free(commands);
	model_commands_for_report(&s->f.m, host, report, &commands, &n);
	if (n)
		fail_msg("%s, step %zu: the same report asks for something again", s->file, s->step);
	free(commands);
	gantry__agent_report__free_unpacked(report, NULL);
}

static void step_goals(struct story *s, json_t *step)
{
	Gantry__AgentGoals *goals = model_goals(&s->f.m, json_string_value(json_object_get(step, "goals")), s->f.epoch, s->f.index);

	expect(s, step, "are", pbjson_from_message(&goals->base, true), false);
	gantry__agent_goals__free_unpacked(goals, NULL);
}

static void check_each(struct story *s, json_t *wanted, const char *name, json_t *(*find)(struct story *s, const char *key))
{
	const char *key;
	json_t *value;

	json_object_foreach(wanted, key, value) {
		json_t *actual = find(s, key);

		if (!covers(value, actual)) {
			_cleanup_free_ char *got = json_dumps(actual ? actual : json_null(), JSON_INDENT(1) | JSON_ENCODE_ANY);

			fail_msg("%s, step %zu, %s %s is\n%s", s->file, s->step, name, key, got);
		}
		json_decref(actual);
	}
}

static json_t *find_domain(struct story *s, const char *key)
{
	const Gantry__Domain *d = model_domain(&s->f.m, key);

	return d ? pbjson_from_message(&d->base, true) : NULL;
}

static json_t *find_host(struct story *s, const char *key)
{
	const Gantry__Host *h = model_host(&s->f.m, key);

	return h ? pbjson_from_message(&h->base, true) : NULL;
}

static json_t *find_job(struct story *s, const char *key)
{
	const Gantry__Job *j = model_job(&s->f.m, strtoull(key, NULL, 10));

	return j ? pbjson_from_message(&j->base, true) : NULL;
}

static json_t *find_volume(struct story *s, const char *key)
{
	_cleanup_free_ char *pool = str_dup(key);
	char *slash = strchr(pool, '/');
	const Gantry__Volume *v;

	*slash = '\0';
	v = model_volume(&s->f.m, pool, slash + 1);
	return v ? pbjson_from_message(&v->base, true) : NULL;
}

static void step_check(struct story *s, json_t *step)
{
	json_t *check = json_object_get(step, "check");

	check_each(s, json_object_get(check, "domains"), "domain", find_domain);
	check_each(s, json_object_get(check, "hosts"), "host", find_host);
	check_each(s, json_object_get(check, "jobs"), "job", find_job);
	check_each(s, json_object_get(check, "volumes"), "volume", find_volume);
}

/* What the history tells since the last such step. */
static void step_events(struct story *s, json_t *step)
{
	json_t *list = json_array();

	for (size_t i = 0; i < s->f.m.state->n_events; i++) {
		const Gantry__Event *e = s->f.m.state->events[i];
		char line[1024];

		if (e->id <= s->events_seen)
			continue;
		s->events_seen = e->id;
		snprintf(line, sizeof(line), "%s: %s: %s", e->subject, e->kind, e->text);
		json_array_append_new(list, json_string(line));
	}
	expect(s, step, "events", list, true);
}

static void run_step(struct story *s, json_t *step)
{
	s->f.time_ms += 1000 + (uint64_t)json_integer_value(json_object_get(step, "time_passes_ms"));
	if (json_object_get(step, "three_hosts")) {
		fixture_three_hosts(&s->f);
		s->events_seen = s->f.m.state->next_event_id - 1;
	} else if (json_object_get(step, "apply")) {
		step_apply(s, step);
	} else if (json_object_get(step, "leader")) {
		step_leader(s, step);
	} else if (json_object_get(step, "report")) {
		step_report(s, step);
	} else if (json_object_get(step, "goals")) {
		step_goals(s, step);
	} else if (json_object_get(step, "check")) {
		step_check(s, step);
	} else if (json_object_get(step, "new_leader")) {
		/* A fresh manager in a new epoch: it must find everything in the model. */
		manager_free(s->mgr);
		s->mgr = manager_new();
		s->f.epoch++;
	} else if (json_object_get(step, "events")) {
		step_events(s, step);
	} else {
		fail_msg("%s, step %zu: nothing to do in it", s->file, s->step);
	}
}

static void run_story(void **state)
{
	struct story s = {.file = *state, .write = getenv("SCENARIOS_WRITE")};
	_cleanup_free_ char *path = str_printf("%s/%s", SCENARIOS, s.file);
	json_error_t error;
	json_t *steps;

	s.json = json_load_file(path, 0, &error);
	if (!s.json)
		fail_msg("%s:%d: %s", s.file, error.line, error.text);
	steps = json_object_get(s.json, "steps");
	assert_true(json_array_size(steps) > 0);
	fixture_start(&s.f);
	s.mgr = manager_new();
	for (s.step = 0; s.step < json_array_size(steps); s.step++)
		run_step(&s, json_array_get(steps, s.step));
	if (s.write)
		json_dump_file(s.json, path, JSON_INDENT(1));
	json_decref(s.json);
	manager_free(s.mgr);
	fixture_end(&s.f);
}

static int is_story(const struct dirent *e)
{
	size_t len = strlen(e->d_name);

	return len > 5 && strcmp(e->d_name + len - 5, ".json") == 0;
}

int main(void)
{
	struct dirent **files;
	int n = scandir(SCENARIOS, &files, is_story, alphasort), rc;
	struct CMUnitTest *tests;

	if (n <= 0) {
		fprintf(stderr, "no scenarios in %s\n", SCENARIOS);
		return 1;
	}
	tests = mem_alloc((size_t)n * sizeof(*tests));
	for (int i = 0; i < n; i++)
		tests[i] = (struct CMUnitTest){.name = files[i]->d_name, .test_func = run_story, .initial_state = files[i]->d_name};
	rc = _cmocka_run_group_tests("scenarios", tests, (size_t)n, NULL, NULL);
	for (int i = 0; i < n; i++)
		free(files[i]);
	free(files);
	free(tests);
	return rc;
}
