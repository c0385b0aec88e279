/* Tasks and events. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "clusterctl/cmd.h"
#include "clusterctl/ctl_client.h"
#include "clusterctl/job_wait.h"
#include "clusterctl/units.h"
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "proto/pbjson.h"

#define STATUS(x) GANTRY__STATUS__STATUS_##x

static void add_job(struct output_table *t, const Gantry__Job *j)
{
	bool migration = j->kind == GANTRY__JOB_KIND__JOB_KIND_MIGRATE;
	const char *state = pbjson_enum_word(&gantry__job_state__descriptor, j->state);
	char *const cells[] = {
		str_printf("%" PRIu64, j->id),
		str_dup(pbjson_enum_word(&gantry__job_kind__descriptor, j->kind)),
		str_dup(j->domain_name[0] ? j->domain_name : j->volume),
		migration && j->state == GANTRY__JOB_STATE__JOB_STATE_RUNNING ? str_printf("%s", job_stage_word(j->stage)) : str_dup(state),
		str_dup(j->source[0] ? j->source : "-"),
		str_dup(j->destination[0] ? j->destination : "-"),
		cmd_time(j->created_ms),
		str_dup(j->reason),
	};

	output_table_row(t, cells, pbjson_from_message(&j->base, true));
}

int cmd_task_list(struct invocation *inv)
{
	static const struct output_column columns[] = {{"Task", true}, {"Kind", false}, {"Of", false}, {"State", false},
						       {"From", false}, {"To", false}, {"Began", false}, {"Reason", false}};
	bool running = invocation_option(inv, "running") != NULL;
	Gantry__CtlModel *m = NULL;
	int rc = cmd_model(inv, false, &m);

	if (rc < 0)
		return rc;
	struct output_table *t = output_table_new(inv->format, columns, ARRAY_SIZE(columns));
	for (size_t i = 0; i < m->model->n_jobs; i++)
		if (!running || m->model->jobs[i]->state == GANTRY__JOB_STATE__JOB_STATE_RUNNING)
			add_job(t, m->model->jobs[i]);
	rc = output_table_finish(t, &inv->err);
	gantry__ctl_model__free_unpacked(m, NULL);
	return rc;
}

int cmd_task_watch(struct invocation *inv)
{
	Gantry__CtlJob *end = NULL;
	uint64_t id;
	int rc = units_parse_number("the task", inv->args[0], 1, UINT64_MAX, &id, &inv->err);

	if (rc == 0)
		rc = job_wait(inv, id, &end);
	if (rc != 0)
		return rc;
	if (inv->format == OUTPUT_TABLE || inv->format == OUTPUT_NAME) {
		_cleanup_free_ char *summary = job_summary(end);
		puts(summary);
	} else {
		rc = output_object(inv->format, pbjson_from_message(&end->base, true), &inv->err);
	}
	gantry__ctl_job__free_unpacked(end, NULL);
	return rc;
}

int cmd_task_cancel(struct invocation *inv)
{
	Gantry__Command command = GANTRY__COMMAND__INIT;
	Gantry__CmdJobCancel body = GANTRY__CMD_JOB_CANCEL__INIT;
	_cleanup_free_ char *done = str_printf("task %s is asked to stop", inv->args[0]);
	int rc = units_parse_number("the task", inv->args[0], 1, UINT64_MAX, &body.job_id, &inv->err);

	if (rc < 0)
		return rc;
	command.body_case = GANTRY__COMMAND__BODY_JOB_CANCEL;
	command.job_cancel = &body;
	inv->no_wait = true;
	return job_run(inv, &command, done);
}

void cmd_print_event(const struct invocation *inv, const Gantry__Event *e)
{
	static const char *const marks[] = {"", "WARNING: ", "ERROR: "};

	if (inv->format == OUTPUT_TABLE || inv->format == OUTPUT_NAME) {
		_cleanup_free_ char *time = cmd_time(e->time_ms);
		printf("%s  %s: %s%s\n", time, e->subject, (size_t)e->severity < ARRAY_SIZE(marks) ? marks[e->severity] : "", e->text);
		return;
	}
	output_record(inv->format, pbjson_from_message(&e->base, true));
}

struct follow {
	uint64_t *after_id;
	bool (*each)(void *data, const Gantry__Event *e);
	void *data;
	bool ended;
};

static void follow_message(struct follow *f, const Gantry__CtlMessage *message)
{
	if (message->body_case != GANTRY__CTL_MESSAGE__BODY_EVENTS)
		return;
	for (size_t i = 0; i < message->events->n_events && !f->ended; i++) {
		*f->after_id = message->events->events[i]->id;
		f->ended = !f->each(f->data, message->events->events[i]);
	}
}

/* Receives until the connection ends, or nobody wants more. */
static int follow(struct invocation *inv, struct ctl_client *c, bool go_on, uint64_t deadline_ms, struct follow *f)
{
	Gantry__CtlMessage request = GANTRY__CTL_MESSAGE__INIT, *message;
	Gantry__CtlWatchEvents body = GANTRY__CTL_WATCH_EVENTS__INIT;
	uint64_t id;
	int rc = ctl_connect(c, &inv->err);

	body.after_id = *f->after_id;
	body.follow = go_on;
	request.body_case = GANTRY__CTL_MESSAGE__BODY_WATCH_EVENTS;
	request.watch_events = &body;
	if (rc == 0)
		rc = ctl_send(c, &request, &id, &inv->err);
	while (rc == 0) {
		rc = ctl_receive(c, id, deadline_ms, &message, &inv->err);
		if (rc < 0)
			return rc;
		follow_message(f, message);
		gantry__ctl_message__free_unpacked(message, NULL);
		if (fflush(stdout) != 0)
			return err_set(&inv->err, EPIPE, "the output cannot be written");
		if (!go_on || f->ended)
			break;
	}
	return rc;
}

int cmd_watch_events(struct invocation *inv, bool go_on, uint64_t deadline_ms, uint64_t *after_id,
		     bool (*each)(void *data, const Gantry__Event *e), void *data)
{
	struct follow f = {.after_id = after_id, .each = each, .data = data};
	uint64_t lost_at = 0;
	struct ctl_client *c;
	int rc = invocation_client(inv, &c);

	if (rc < 0)
		return rc;
	for (;;) {
		uint64_t before = *after_id;
		rc = follow(inv, c, go_on, deadline_ms, &f);
		if (!go_on || f.ended || rc == -EINTR || rc == -ETIMEDOUT || rc == -EREMOTEIO || rc == -EPIPE || (before == 0 && *after_id == 0))
			return rc;
		if (lost_at == 0 || *after_id != before)
			lost_at = ctl_now_ms();
		if (ctl_now_ms() - lost_at >= CTL_RECONNECT_MS)
			return rc;
		rc = ctl_pause(c, CTL_RETRY_PAUSE_MS, &inv->err);
		if (rc < 0)
			return rc;
	}
}

static bool print_each(void *data, const Gantry__Event *e)
{
	cmd_print_event(data, e);
	return true;
}

int cmd_events(struct invocation *inv)
{
	bool go_on = invocation_option(inv, "watch") != NULL;
	uint64_t after_id = 0;
	int rc = cmd_watch_events(inv, go_on, go_on ? 0 : ctl_now_ms() + CTL_ANSWER_TIMEOUT_MS, &after_id, print_each, inv);

	return rc == -EINTR ? 130 : rc;
}
